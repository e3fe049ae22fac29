from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.types import MaskEncoding


def save_palette(path, indices, colors):
    image = Image.fromarray(indices, mode="P")
    image.putpalette([level for color in colors for level in color])
    image.save(path)


def test_read_returns_channels_first(tmp_path):
    rgb = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "x.png")
    assert (io.read(tmp_path / "x.png").array == rgb.transpose(2, 0, 1)).all()


def test_read_drops_transparency(tmp_path):
    rgba = np.random.default_rng(0).integers(256, size=(5, 7, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("x.png", "x.tif"):
        assert (io.read(tmp_path / name).array == rgba[..., :3].transpose(2, 0, 1)).all()


def test_read_converts_palettes_of_images_but_not_of_masks(tmp_path):
    indices = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    save_palette(tmp_path / "x.png", indices, [(0, 0, 0), (255, 0, 0), (0, 0, 9)])
    assert io.read(tmp_path / "x.png").array[:, 0].T.tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 9]]
    mask = io.read_mask(tmp_path / "x.png")
    assert (mask.codes == indices).all()
    assert mask.encoding.kind == "palette"


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int16"])
def test_read_keeps_16_bit_values(tmp_path, dtype):
    array = (np.random.default_rng(0).random((6, 8)) * 1000).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", array)
    assert (io.read(tmp_path / "x.tif").array[0] == array).all()
    assert io.read(tmp_path / "x.tif").array.dtype == dtype


def test_read_treats_tiff_pages_as_planes(tmp_path):
    volume = np.random.default_rng(0).integers(999, size=(4, 6, 8), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", volume, photometric="minisblack")
    assert io.read(tmp_path / "x.tif").array.shape == (1, 4, 6, 8)


def test_read_applies_the_exif_orientation(tmp_path):
    image = Image.fromarray(np.zeros((4, 9, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # Turned by a quarter.
    image.save(tmp_path / "x.jpg", exif=exif)
    assert io.read(tmp_path / "x.jpg").array.shape == (3, 9, 4)


def test_read_mask_takes_gray_rgb_as_gray(tmp_path):
    gray = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    Image.fromarray(np.stack([gray] * 3, axis=-1)).save(tmp_path / "m.png")
    assert (io.read_mask(tmp_path / "m.png").codes == gray).all()


def test_read_mask_accepts_only_whole_floats(tmp_path):
    tifffile.imwrite(tmp_path / "whole.tif", np.array([[0.0, 2.0]], np.float32))
    assert io.read_mask(tmp_path / "whole.tif").codes.tolist() == [[0, 2]]
    tifffile.imwrite(tmp_path / "odd.tif", np.array([[0.0, 0.25]], np.float32))
    with raises_code(DataError, "mask_not_integer"):
        io.read_mask(tmp_path / "odd.tif")


def test_read_mask_encoding_of_lossy_formats_is_png(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "m.jpg")
    assert io.read_mask(tmp_path / "m.jpg").encoding.suffix == ".png"


def test_write_probabilities_stores_class_names(tmp_path):
    io.write_probabilities(tmp_path / "p.npz", np.full((1, 2, 2), 0.5, np.float32), ["a", "b"])
    stored = np.load(tmp_path / "p.npz")
    assert stored["probabilities"].tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    assert stored["names"].tolist() == ["a", "b"]


def test_write_mask_failure_leaves_the_former_file(tmp_path):
    target = tmp_path / "m.png"
    io.write_mask(target, np.zeros((4, 4), np.uint8), MaskEncoding())
    before = target.read_bytes()
    with pytest.raises(ValueError, match="invalid literal"):
        io.write_mask(target, np.array([["x"]]), MaskEncoding())
    with pytest.raises(TypeError):
        io.write_mask(target, np.zeros((2, 2, 2, 7), np.uint8), MaskEncoding())
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_read_refuses_unknown_formats_and_missing_files(tmp_path):
    with raises_code(DataError, "unknown_format"):
        io.read(tmp_path / "a.xyz")
    with raises_code(DataError, "file_not_found"):
        io.read(tmp_path / "a.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with raises_code(DataError, "not_a_file"):
        io.read(tmp_path / "zero.png")


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a.1.nii.gz", "a.1", ".nii.gz"),
        ("A.OME.TIF", "A", ".ome.tif"),
        ("x.ome.zarr", "x", ".ome.zarr"),
        ("x.Png", "x", ".png"),
        ("case.12.mha", "case.12", ".mha"),
        ("some.thing", "some", ".thing"),
        ("plain", "plain", ""),
    ],
)
def test_suffix_of_takes_double_suffixes_as_one(name, stem, suffix):
    assert io.stem_of(Path("folder.d", name)) == stem
    assert io.suffix_of(Path("folder.d", name)) == suffix


def test_is_image_by_name():
    names = ["x.nii.gz", "x.zarr", "x.PNG", "x.ome.tiff", "x.dcm"]
    assert all(io.is_image(Path("a", name)) for name in names)
    assert not any(io.is_image(Path(name)) for name in ("x.gz", ".x.png", "x", "x.csv", "zarr"))


def test_read_mask_encoding_names_a_writable_format(tmp_path):
    np.savez(tmp_path / "m.npz", np.zeros((2, 3, 5), np.uint8))
    assert io.read_mask(tmp_path / "m.npz").encoding.suffix == ".npy"
    tifffile.imwrite(tmp_path / "m.ome.tif", np.zeros((4, 6), np.uint8))
    assert io.read_mask(tmp_path / "m.ome.tif").encoding.suffix == ".tif"
    with raises_code(DataError, "unwritable_format"):
        io.write_mask(tmp_path / "m.zarr", np.zeros((4, 6), np.uint8), MaskEncoding())


def test_content_suffix_follows_a_file_that_is_replaced(tmp_path):
    path = tmp_path / "x.npy"
    Image.new("L", (4, 4)).save(path, format="PNG")
    assert [io.content_suffix(path) for _ in range(2)] == [".png", ".png"]
    path.unlink()
    np.save(path, np.zeros((4, 4), np.uint8))
    assert io.content_suffix(path) == ".npy"
