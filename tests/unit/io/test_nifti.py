import gzip
import struct

import numpy as np
import pytest
import SimpleITK

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io.placement import place_on
from ushape.io.streaming import open_band_writer, read_spacing
from ushape.types import MaskEncoding

VOLUME = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.fixture
def save(tmp_path):
    """Saves VOLUME as NIfTI 1 with other bytes at some positions; returns the path."""

    def write(changes, name="x.nii", array=VOLUME):
        path = tmp_path / name
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
        content = bytearray(path.read_bytes())
        for place, replaced in changes.items():
            content[place : place + len(replaced)] = replaced
        path.write_bytes(content)
        return path

    return write


def sform(*rows):
    return {252: struct.pack("<hh", 0, 2), 280: struct.pack("<12f", *rows)}


def test_slightly_sheared_axes_are_set_at_right_angles(save):
    path = save(sform(-1, 0.004, 0, 24, 0, -1, 0, 24, 0.003, 0, 3, -10))
    pixels = io.read(path)
    assert (pixels.array[0] == VOLUME).all()
    assert pixels.grid.remarks == ("sheared",)
    assert pixels.grid.origin_mm == pytest.approx((-24, -24, -10))
    assert pixels.spacing_mm == pytest.approx((3, 1, 1), abs=1e-4)
    direction = np.reshape(pixels.grid.direction, (3, 3))
    assert direction.T @ direction == pytest.approx(np.eye(3), abs=1e-6)
    # The cosine of 0.004 between x and y is shared by both axes.
    assert abs(direction[0, 1]) == pytest.approx(0.002, abs=1e-4)
    assert io.read_grid(path) == pixels.grid


def test_spacing_is_that_of_the_matrix(save):
    # As in nibabel and FSL; pixdim states 1.
    pixels = io.read(save(sform(-2, 0, 0, 24, 0, -2, 0, 24, 0, 0, 3, -10)))
    assert pixels.spacing_mm == pytest.approx((3, 2, 2))
    assert pixels.grid.remarks == ()


def test_prediction_on_a_sheared_grid_can_be_written(save, tmp_path):
    path = save(sform(-1, 0.004, 0, 24, 0, -1, 0, 24, 0.003, 0, 3, -10))
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        io.write_mask(tmp_path / f"m{suffix}", VOLUME % 2, MaskEncoding(), like=path)
        written = io.read_grid(tmp_path / f"m{suffix}")
        assert written.direction == pytest.approx(io.read_grid(path).direction, abs=1e-5)


def test_strongly_sheared_axes_are_refused(save):
    path = save(sform(-1, 0.3, 0, 24, 0, -1, 0, 24, 0, 0, 3, -10))
    with raises_code(DataError, "sheared_grid"):
        io.read(path)


def test_sform_of_zeros_gives_way_to_the_spacing(save):
    path = save({**sform(*[0] * 12), 76: struct.pack("<4f", 1, 2, 3, 4)})
    assert io.read(path).spacing_mm == (4, 3, 2)


@pytest.mark.parametrize(
    ("spacing", "remark"),
    [
        ((0, 0, 0), "no_spacing"),
        ((np.nan, 0, np.inf), "no_spacing"),
        ((np.nan, 1, 1), "no_spacing_x"),
    ],
)
def test_missing_spacing_is_unknown_and_one_on_the_grid(save, spacing, remark):
    path = save({252: struct.pack("<hh", 0, 0), 76: struct.pack("<4f", 1, *spacing)})
    pixels = io.read(path)
    assert pixels.spacing_mm is None
    assert read_spacing(path) is None
    assert pixels.grid.spacing_mm == (1, 1, 1)
    assert pixels.grid.remarks == (remark,)


def test_suffix_does_not_decide_whether_a_file_is_packed(save, tmp_path):
    content = save({}).read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(content))
    (tmp_path / "plain.nii.gz").write_bytes(content)
    for name in ("packed.nii", "plain.nii.gz"):
        assert (io.read(tmp_path / name).array[0] == VOLUME).all()
        assert io.read_grid(tmp_path / name).shape == VOLUME.shape


@pytest.mark.parametrize("is_packed", [False, True])
def test_nifti_2_is_read(tmp_path, is_packed):
    head = bytearray(544)
    struct.pack_into("<i8s", head, 0, 540, b"n+2\0\r\n\x1a\n")
    struct.pack_into("<hh8q", head, 12, 4, 16, 3, 4, 3, 2, 1, 1, 1, 1)
    struct.pack_into("<8d", head, 104, 1, 0.5, 1, 3, 0, 0, 0, 0)
    struct.pack_into("<q3d", head, 168, 544, 1, 0, 0)
    struct.pack_into("<2i", head, 344, 0, 2)
    struct.pack_into("<12d", head, 400, -0.5, 0, 0, 7, 0, -1, 0, 8, 0, 0, 3, 9)
    content = bytes(head) + VOLUME.tobytes()
    path = tmp_path / ("x.nii.gz" if is_packed else "x.nii")
    path.write_bytes(gzip.compress(content) if is_packed else content)
    pixels = io.read(path)
    assert (pixels.array[0] == VOLUME).all()
    assert pixels.spacing_mm == (3, 1, 0.5)
    assert pixels.grid.origin_mm == (-7, -8, 9)


def test_labels_scaled_by_a_slope_are_rounded(save):
    stored = np.array([[[0, 16384, 32767]] * 2], np.int16)
    step = 2.00006 / 32767
    path = save({112: struct.pack("<ff", step, 0)}, array=stored)
    assert io.read_mask(path).codes.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_labels_between_whole_numbers_are_refused(save):
    path = save({112: struct.pack("<ff", 0.98, 0)}, array=np.ones((2, 3, 4), np.int16))
    with raises_code(DataError, "mask_not_integer"):
        io.read_mask(path)


def test_fourth_axis_of_length_one_is_a_single_channel(tmp_path):
    image = SimpleITK.GetImageFromArray(VOLUME[None], isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / "x.nii.gz"))
    assert io.read(tmp_path / "x.nii.gz").array.shape == (1, 2, 3, 4)
    assert io.read_mask(tmp_path / "x.nii.gz").codes.shape == (2, 3, 4)
    io.write_mask(tmp_path / "m.nii.gz", VOLUME, MaskEncoding(), like=tmp_path / "x.nii.gz")
    assert io.read_grid(tmp_path / "m.nii.gz").shape == (2, 3, 4)


def test_missing_spacing_along_an_axis_of_length_one_does_not_matter(save):
    plane = {40: struct.pack("<4h", 3, 4, 6, 1), 252: struct.pack("<hh", 0, 0)}
    pixels = io.read(save({**plane, 76: struct.pack("<4f", 1, 0.5, 0.75, 0)}))
    assert pixels.array.shape == (1, 6, 4)
    assert pixels.spacing_mm == (0.75, 0.5)
    assert pixels.grid.remarks == ()


@pytest.mark.parametrize("mirror", [1, -1])
def test_negative_spacing_beside_a_quaternion_has_no_sign_as_in_nibabel(save, mirror):
    nibabel = pytest.importorskip("nibabel")
    turned = {252: struct.pack("<hh", 1, 0), 256: struct.pack("<6f", 0, 0, 0, 7, 8, 9)}
    path = save({**turned, 76: struct.pack("<4f", mirror, 0.5, 0.75, -3)})
    pixels = io.read(path)
    assert pixels.spacing_mm == (3, 0.75, 0.5)
    assert pixels.grid.remarks == ("negative_spacing",)
    expected = nibabel.load(path).affine
    direction = np.reshape(pixels.grid.direction, (3, 3)) * pixels.grid.spacing_mm[::-1]
    turn = np.diag([-1, -1, 1])  # NIfTI points to right and anterior, ITK to left and posterior.
    np.testing.assert_allclose(turn @ direction, expected[:3, :3], atol=1e-6)
    np.testing.assert_allclose(turn @ pixels.grid.origin_mm, expected[:3, 3], atol=1e-6)


def test_negative_spacing_beside_a_matrix_gives_way_to_it(save):
    path = save(
        {**sform(-2, 0, 0, 24, 0, -2, 0, 24, 0, 0, 3, -10), 76: struct.pack("<4f", 1, 2, 2, -3)}
    )
    assert io.read(path).spacing_mm == pytest.approx((3, 2, 2))
    assert io.read(path).grid.remarks == ()


UNIT_AFFINE = np.array([[-500.0, 0, 0, 7000], [0, 500, 0, -20], [0, 0, 2000, 30], [0, 0, 0, 1]])


def save_in_unit(path, array, affine, unit):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit, "sec")
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("unit", "length_mm"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1)])
def test_written_masks_have_the_unit_of_their_image(unit, length_mm, suffix, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = save_in_unit(tmp_path / "image.nii", VOLUME.T, UNIT_AFFINE, unit)
    spacing_mm = np.array([2000, 500, 500]) * length_mm
    assert io.read(path).spacing_mm == pytest.approx(spacing_mm)
    codes = (VOLUME % 2).astype(np.uint8)
    whole, bands = tmp_path / f"whole{suffix}", tmp_path / f"bands{suffix}"
    io.write_mask(whole, codes, MaskEncoding(), like=path)
    with open_band_writer(bands, codes.shape, MaskEncoding(suffix=suffix), path) as writer:
        writer.write(codes)
    for written in (whole, bands):
        mask = nibabel.load(written)
        assert mask.affine == pytest.approx(UNIT_AFFINE, rel=1e-6)
        assert mask.header.get_xyzt_units()[0] == unit
        assert mask.header.get_zooms() == pytest.approx((500, 500, 2000))
        assert (codes == np.asarray(mask.dataobj).T).all()
        found = SimpleITK.ReadImage(str(written))
        assert found.GetSpacing() == pytest.approx(spacing_mm[::-1])
        assert found.GetOrigin() == pytest.approx(np.array([-7000, 20, 30]) * length_mm)
    io.write_mask(tmp_path / "m.nrrd", codes, MaskEncoding(), like=path)  # Always in mm.
    found = SimpleITK.ReadImage(str(tmp_path / "m.nrrd"))
    assert found.GetSpacing() == pytest.approx(spacing_mm[::-1])


@pytest.mark.parametrize("units", [("micron", "unknown"), ("unknown", "micron"), ("mm", "unknown")])
def test_mask_without_a_unit_has_that_of_its_image(units, tmp_path):
    """As saved by `nibabel.Nifti1Image(mask, image.affine)`."""
    truth = (VOLUME % 2).astype(np.uint8)
    image = save_in_unit(tmp_path / "image.nii.gz", VOLUME.T, UNIT_AFFINE, units[0])
    mirrored = UNIT_AFFINE.copy()
    mirrored[:, 3] += (VOLUME.shape[2] - 1) * mirrored[:, 0]
    mirrored[:, 0] *= -1
    for affine, stored in ((UNIT_AFFINE, truth), (mirrored, truth[..., ::-1])):
        mask = save_in_unit(tmp_path / "mask.nii.gz", stored.T, affine, units[1])
        placed = place_on(io.read_grid(image), io.read_mask(mask), mask)
        assert (placed.codes == truth).all()
    assert placed.remarks == {"reoriented"}
