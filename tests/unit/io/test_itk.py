import gzip

import numpy as np
import pytest
import SimpleITK

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.types import MaskEncoding

VOLUME = np.arange(4 * 6 * 8, dtype=np.int16).reshape(4, 6, 8)
SPACING = (2.5, 0.75, 0.5)
# Turned by a quarter around z, and upside down.
DIRECTION = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
ORIGIN = (10.0, -20.0, 30.0)


def save(path, array, is_vector=False):
    image = SimpleITK.GetImageFromArray(array, isVector=is_vector)
    if image.GetDimension() == 3:
        image.SetSpacing(SPACING[::-1])
        image.SetOrigin(ORIGIN)
        image.SetDirection(DIRECTION)
    SimpleITK.WriteImage(image, str(path))
    return image


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_itk_position_in_the_patient_is_kept(suffix, tmp_path):
    save(tmp_path / f"x{suffix}", VOLUME)
    pixels = io.read(tmp_path / f"x{suffix}")
    assert (pixels.array == VOLUME[None]).all()
    assert pixels.spacing_mm == pytest.approx(SPACING)
    assert pixels.grid.origin_mm == pytest.approx(ORIGIN)
    assert pixels.grid.direction == pytest.approx(DIRECTION)


@pytest.mark.parametrize("of_image", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("of_mask", io.itk.WRITABLE)
def test_itk_mask_gets_the_position_of_its_image(of_image, of_mask, tmp_path):
    image = save(tmp_path / f"image{of_image}", VOLUME)
    codes = (VOLUME % 3).astype(np.int64)
    path = tmp_path / f"mask{of_mask}"
    io.write_mask(path, codes, MaskEncoding(), like=tmp_path / f"image{of_image}")
    mask = SimpleITK.ReadImage(str(path))
    assert mask.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert mask.GetOrigin() == pytest.approx(image.GetOrigin())
    assert mask.GetSpacing() == pytest.approx(image.GetSpacing())
    assert mask.GetDirection() == pytest.approx(image.GetDirection())
    assert (SimpleITK.GetArrayFromImage(mask) == codes).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"image{of_image}", path.name])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_itk_single_slice_is_flat_and_its_mask_is_a_slice(axis, tmp_path):
    flat = VOLUME.take([1], axis)
    image = save(tmp_path / "x.nii.gz", flat)
    pixels = io.read(tmp_path / "x.nii.gz")
    assert pixels.array.shape == (1, *flat.squeeze().shape)
    assert pixels.spacing_mm == pytest.approx(SPACING[:axis] + SPACING[axis + 1 :])
    codes = (pixels.array[0] % 2).astype(np.uint8)
    io.write_mask(tmp_path / "m.nii.gz", codes, MaskEncoding(), like=tmp_path / "x.nii.gz")
    mask = SimpleITK.ReadImage(str(tmp_path / "m.nii.gz"))
    assert mask.GetSize() == image.GetSize()
    assert mask.GetDirection() == pytest.approx(DIRECTION)
    assert (io.read_mask(tmp_path / "m.nii.gz").codes == codes).all()


def test_itk_components_and_a_fourth_axis_are_channels(tmp_path):
    several = np.stack([VOLUME, VOLUME + 1], axis=-1).astype(np.float32)
    save(tmp_path / "vector.nrrd", several, is_vector=True)
    save(tmp_path / "times.nii.gz", np.moveaxis(several, -1, 0))
    for name in ("vector.nrrd", "times.nii.gz"):
        pixels = io.read(tmp_path / name)
        assert (pixels.array == np.moveaxis(several, -1, 0)).all()
        assert len(pixels.spacing_mm) == 3


def test_itk_flat_images_have_two_axes(tmp_path):
    save(tmp_path / "x.mha", VOLUME[0])
    pixels = io.read(tmp_path / "x.mha")
    assert (pixels.array == VOLUME[:1]).all()
    assert pixels.spacing_mm == (1.0, 1.0)


def test_nifti_intensities_are_scaled_by_the_header(tmp_path):
    save(tmp_path / "x.nii", VOLUME)
    content = bytearray((tmp_path / "x.nii").read_bytes())
    content[112:120] = np.array([0.5, -3], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "x.nii").write_bytes(content)
    assert io.read(tmp_path / "x.nii").array[0] == pytest.approx(VOLUME * 0.5 - 3)


def test_nifti_gzip_in_several_members_is_read(tmp_path):
    save(tmp_path / "x.nii", VOLUME)
    content = (tmp_path / "x.nii").read_bytes()
    parts = gzip.compress(content[:400]) + gzip.compress(content[400:])
    (tmp_path / "y.nii.gz").write_bytes(parts)
    assert (io.read(tmp_path / "y.nii.gz").array == VOLUME[None]).all()
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(content[:-1]))
    with raises_code(DataError, "damaged_file"):
        io.read(tmp_path / "cut.nii.gz")


def test_itk_masks_keep_their_format(tmp_path):
    save(tmp_path / "m.nii.gz", (VOLUME % 5).astype(np.float32))
    mask = io.read_mask(tmp_path / "m.nii.gz")
    assert (mask.codes == VOLUME % 5).all()
    assert mask.encoding == MaskEncoding(dtype="float32", suffix=".nii.gz")
    save(tmp_path / "m.mhd", (VOLUME % 5).astype(np.uint8))
    assert io.read_mask(tmp_path / "m.mhd").encoding.suffix == ".mha"


def test_itk_mask_of_another_shape_is_refused(tmp_path):
    save(tmp_path / "x.nrrd", VOLUME)
    with raises_code(DataError, "mask_size_mismatch"):
        io.write_mask(
            *(tmp_path / "m.nrrd", VOLUME[..., 1:], MaskEncoding()), like=tmp_path / "x.nrrd"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x.nrrd"]


def test_itk_damaged_packed_pixels_are_refused(tmp_path):
    path = tmp_path / "x.mha"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path), True)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # Of the checksum.
    path.write_bytes(content)
    with raises_code(DataError, "damaged_file"):
        io.read(path)


@pytest.mark.parametrize(
    ("suffix", "field", "zero"),
    [
        (".mha", b"ElementSpacing = 1 1 1\n", b"ElementSpacing = 0 1 1\n"),
        (
            ".nrrd",
            b"space directions: (1,0,0) (0,1,0) (0,0,1)\n",
            b"space directions: (0,0,0) (0,1,0) (0,0,1)\n",
        ),
    ],
)
def test_itk_missing_spacing_is_unknown_and_zero_is_refused(suffix, field, zero, tmp_path):
    path = tmp_path / f"x{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path))
    assert io.read_grid(path).remarks == ()
    content = path.read_bytes()
    assert field in content
    path.write_bytes(content.replace(field, b""))
    assert io.read(path).spacing_mm is None
    assert io.read_grid(path).spacing_mm == (1, 1, 1)
    assert io.read_grid(path).remarks == ("no_spacing",)
    path.write_bytes(content.replace(field, zero))
    with raises_code(DataError, "invalid_spacing"):
        io.read(path)


@pytest.mark.parametrize("is_vector", [True, False])
def test_nifti_values_in_a_fifth_axis_are_channels(is_vector, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    array = np.random.default_rng(0).random((4, 3, 2, 1, 5)).astype(np.float32)
    image = nibabel.Nifti1Image(array, np.diag([0.7, 0.7, 5, 1]))
    if is_vector:
        image.header.set_intent("vector")
    nibabel.save(image, tmp_path / "x.nii.gz")
    pixels = io.read(tmp_path / "x.nii.gz")
    assert (pixels.array == array[:, :, :, 0].transpose(3, 2, 1, 0)).all()
    assert pixels.spacing_mm == pytest.approx((5, 0.7, 0.7))


def test_nifti_values_of_several_times_are_refused(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2, 2, 5), np.float32), np.eye(4))
    nibabel.save(image, tmp_path / "x.nii.gz")
    with raises_code(DataError, "several_time_points"):
        io.read(tmp_path / "x.nii.gz")


def affine_of(codes, degrees):
    """An affine of NIfTI: axes in the order and direction of `codes`, turned around two axes."""
    nibabel = pytest.importorskip("nibabel")
    order = nibabel.orientations.axcodes2ornt(codes)
    shape = np.zeros((3, 3))
    for axis, (to, sign) in enumerate(order):
        shape[int(to), axis] = sign
    turn, tilt = (np.radians(degrees) * factor for factor in (1.0, 0.4))
    around_z = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    around_x = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    matrix = np.array(around_z) @ np.array(around_x) @ shape @ np.diag([0.7, 0.8, 5.0])
    return nibabel.affines.from_matvec(matrix, [11.0, -22.0, 33.0])


@pytest.mark.parametrize("degrees", [0, 20], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SRA", "ASL"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_written_mask_lies_on_its_image_for_other_readers(codes, degrees, suffix, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = affine_of(codes, degrees)
    array = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "image.nii.gz")
    image = io.read(tmp_path / "image.nii.gz")
    path = tmp_path / f"mask{suffix}"
    io.write_mask(path, (image.array[0] > 0.5).astype(np.uint8), MaskEncoding(), like=image)
    if suffix == ".nii.gz":
        mask = nibabel.load(path)
        assert mask.affine == pytest.approx(affine, abs=1e-4)
        assert (np.asarray(mask.dataobj) == (array > 0.5)).all()
        assert "".join(nibabel.aff2axcodes(mask.affine)) == codes
    found = SimpleITK.ReadImage(str(path))
    for index in ((0, 0, 0), (3, 1, 5), (2, 4, 0)):
        # NIfTI counts x to the right and y to the front, ITK to the left and to the back.
        expected = nibabel.affines.apply_affine(affine, index) * [-1, -1, 1]
        assert found.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-3)
        assert found[index] == (array[index] > 0.5)
