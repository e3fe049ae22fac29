import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.types import MaskEncoding

OBJECT = np.zeros((20, 30), dtype=bool)
OBJECT[4:9, 6:20] = True
CLASSES = (np.arange(600).reshape(20, 30) // 7 % 4).astype(np.uint8)


def written_again(path, tmp_path):
    """Read a mask, write its codes in its own encoding, and return both and the new file."""
    mask = io.read_mask(path)
    target = tmp_path / f"again{mask.encoding.suffix}"
    io.write_mask(target, mask.codes, mask.encoding)
    return mask, target


def test_1_bit_png_is_written_with_1_bit(tmp_path):
    Image.fromarray(OBJECT).save(tmp_path / "m.png")
    mask, target = written_again(tmp_path / "m.png", tmp_path)
    assert (mask.codes == OBJECT).all()
    with Image.open(target) as image:
        assert image.mode == "1"
        assert (np.asarray(image) == OBJECT).all()


@pytest.mark.parametrize("white", [0, 1])
def test_fax_compressed_mask_is_read_and_written_as_it_is_shown(white, tmp_path):
    shown = Image.fromarray(OBJECT)
    shown.save(tmp_path / "m.tif", compression="group4", tiffinfo={262: white})
    mask, target = written_again(tmp_path / "m.tif", tmp_path)
    assert (mask.codes == OBJECT).all()
    with Image.open(target) as image, Image.open(tmp_path / "m.tif") as own:
        assert (np.asarray(image) == np.asarray(own)).all()
        assert image.tag_v2[262] == own.tag_v2[262] == white


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_mask_with_white_as_zero_has_the_shown_values(dtype, white, tmp_path):
    shown = OBJECT * dtype(white)
    tifffile.imwrite(tmp_path / "m.tif", dtype(white) - shown, photometric="miniswhite")
    mask, target = written_again(tmp_path / "m.tif", tmp_path)
    assert (mask.codes == shown).all()
    assert (tifffile.imread(target) == white - shown).all()
    with tifffile.TiffFile(target) as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    # Formats without this tag get the values that are shown.
    io.write_mask(tmp_path / "m.png", mask.codes, mask.encoding)
    assert (io.read(tmp_path / "m.png").array == shown).all()


@pytest.mark.parametrize(("name", "save"), [("m.tif", tifffile.imwrite), ("m.npy", np.save)])
def test_float_masks_stay_float(name, save, tmp_path):
    save(tmp_path / name, CLASSES.astype(np.float32))
    mask, target = written_again(tmp_path / name, tmp_path)
    assert (mask.codes == CLASSES).all()
    assert mask.codes.dtype.kind == "i"
    assert io.read(target).array.dtype == np.float32


@pytest.mark.parametrize(("name", "mode"), [("m.png", "RGBA"), ("m.tif", "RGBA"), ("m.png", "LA")])
def test_opacity_of_a_picture_of_one_color_is_the_mask(name, mode, tmp_path):
    picture = np.full((20, 30, len(mode)), 200, np.uint8)
    picture[..., -1] = OBJECT * 255
    Image.fromarray(picture).save(tmp_path / name)
    mask, target = written_again(tmp_path / name, tmp_path)
    assert mask.encoding.kind == "alpha"
    assert (mask.codes == OBJECT * 255).all()
    with Image.open(target) as image:
        assert (np.asarray(image.convert(mode)) == picture).all()


def test_opacity_is_not_the_mask_if_colors_differ_or_nothing_is_transparent(tmp_path):
    picture = np.zeros((20, 30, 4), np.uint8)
    picture[OBJECT] = (255, 0, 0, 255)
    Image.fromarray(picture).save(tmp_path / "colors.png")
    assert set(np.unique(io.read_mask(tmp_path / "colors.png").codes)) == {0, 0xFF0000}
    Image.fromarray(np.full((20, 30, 4), 255, np.uint8)).save(tmp_path / "white.png")
    assert io.read_mask(tmp_path / "white.png").encoding.kind == "values"


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_one_hot_array_is_the_number_of_the_channel(classes, axis, dtype, tmp_path):
    numbers = CLASSES % classes
    hot = np.moveaxis(np.eye(classes, dtype=dtype)[numbers], -1, axis)
    np.save(tmp_path / "m.npy", hot)
    mask = io.read_mask(tmp_path / "m.npy")
    assert (mask.codes == numbers).all()
    assert mask.encoding == MaskEncoding(kind="one_hot", suffix=".npy")


def test_one_hot_pages_and_volumes_are_read(tmp_path):
    hot = np.eye(4, dtype=np.uint8)[CLASSES]
    tifffile.imwrite(tmp_path / "m.tif", 255 * np.moveaxis(hot, -1, 0), photometric="minisblack")
    assert (io.read_mask(tmp_path / "m.tif").codes == CLASSES).all()
    volume = np.stack([CLASSES, CLASSES[::-1]] * 3)
    np.save(tmp_path / "m.npy", np.moveaxis(np.eye(4, dtype=np.uint8)[volume], -1, 0))
    assert (io.read_mask(tmp_path / "m.npy").codes == volume).all()


def test_red_green_blue_pictures_are_colors(tmp_path):
    picture = 255 * np.eye(3, dtype=np.uint8)[CLASSES % 3]
    Image.fromarray(picture).save(tmp_path / "m.png")
    mask = io.read_mask(tmp_path / "m.png")
    assert mask.encoding.kind == "colors"
    assert set(np.unique(mask.codes)) == {0xFF0000, 0x00FF00, 0x0000FF}


@pytest.mark.parametrize("layers", [2, 3])
def test_overlapping_layers_are_refused_not_read_as_colors(layers, tmp_path):
    stack = np.stack([number < CLASSES for number in range(layers)], axis=-1).astype(np.uint8)
    np.save(tmp_path / "m.npy", stack)
    with raises_code(DataError, "mask_channels") as error:
        io.read_mask(tmp_path / "m.npy")
    assert "labels.regions" in error.value.hint


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.uint64, 2**63),
        (np.uint64, 2**64 - 1),
        (np.float32, 2.0**60),
        (np.float64, 2.0**63),
        (np.float64, -1e300),
    ],
)
def test_values_beyond_64_bit_integers_are_refused_with_the_name_of_the_file(
    dtype, value, tmp_path
):
    np.save(tmp_path / "m.npy", OBJECT * dtype(value))
    with raises_code(DataError, "mask_value_too_large") as caught:
        io.read_mask(tmp_path / "m.npy")
    assert str(tmp_path / "m.npy") in caught.value.message
    assert f"{OBJECT.sum()} values" in caught.value.message


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.uint64, 2**63 - 1),
        (np.int64, 2**63 - 1),
        (np.int64, -(2**63)),
        (np.uint32, 2**32 - 1),
        (np.float64, 2.0**53),
        (np.float64, -(2.0**31) - 1),
        (np.float32, 3e9),
    ],
)
def test_large_values_that_64_bit_integers_hold_are_read_exactly(dtype, value, tmp_path):
    stored = np.where(OBJECT, dtype(value), dtype(0))
    np.save(tmp_path / "m.npy", stored)
    mask = io.read_mask(tmp_path / "m.npy")
    assert np.unique(mask.codes).tolist() == sorted([0, int(dtype(value))])
    assert mask.encoding.dtype == str(np.dtype(dtype))


def test_nan_around_labels_is_refused_with_the_way_to_replace_it(tmp_path):
    codes = np.array([[np.nan, 1, 2], [np.nan, np.nan, 2]], np.float32)
    np.save(tmp_path / "m.npy", codes)
    tifffile.imwrite(tmp_path / "m.tif", codes)
    image = SimpleITK.GetImageFromArray(codes)
    for suffix in (".nrrd", ".nii.gz"):
        SimpleITK.WriteImage(image, str(tmp_path / f"m{suffix}"))
    # ITK reads NaN in NIfTI files as 0.
    assert io.read_mask(tmp_path / "m.nii.gz").codes.tolist() == [[0, 1, 2], [0, 0, 2]]
    for suffix in (".npy", ".tif", ".nrrd"):
        path = tmp_path / f"m{suffix}"
        with pytest.raises(DataError) as caught:
            io.read_mask(path)
        assert caught.value.code == "mask_not_integer"
        assert "3 values" in caught.value.message
        assert "nan_to_num" in caught.value.hint
    np.save(tmp_path / "half.npy", np.where(codes == 1, 0.5, codes))
    with pytest.raises(DataError) as caught:
        io.read_mask(tmp_path / "half.npy")
    assert "nan_to_num" not in caught.value.hint
