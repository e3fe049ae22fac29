"""Volumes whose header states two positions (qform and sform), compared with other readers."""

import numpy as np
import pytest
import SimpleITK

from codes import raises_code
from ushape import io
from ushape.data.reading import read_classes
from ushape.errors import DataError
from ushape.io.streaming import open_band_writer, open_bands
from ushape.labels import LabelSpace
from ushape.types import Case, MaskEncoding

nibabel = pytest.importorskip("nibabel")

SHAPE = (7, 6, 5)
SCANNER = np.array([[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])


def turned(degrees, zooms, origin):
    angle = np.radians(degrees)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    return nibabel.affines.from_matvec(np.array(turn) * zooms, origin)


OTHERS = {
    "shifted": turned(0, (1, 1, 2), (9, 6, 7)),
    "turned": turned(30, (1, 1, 2), (5, -6, 7)),
    "nearly turned around": turned(179.9, (1, 1, 2), (5, 6, 7)),
    "mirrored": turned(0, (-1, 1, 2), (11, 6, 7)),
    "other zooms": turned(10, (2, 2, 3), (1, 2, 3)),
}


def save(path, array, sform, codes=(1, 2), qform=SCANNER):
    image = nibabel.Nifti1Image(array, None)
    image.header.set_qform(qform, codes[0])
    image.header.set_sform(sform, codes[1])
    nibabel.save(nibabel.Nifti1Image(array, None, image.header), path)
    return path


def position_of(path):
    """The affine that ushape reads, in the notation of nibabel: to the right and to the front."""
    matrix = io.read_grid(path).matrix  # Columns z, y, x.
    affine = np.vstack([matrix[:, [2, 1, 0, 3]], [0, 0, 0, 1]])
    return np.diag([-1, -1, 1, 1]) @ affine


def assert_overlays(path, affine, codes):
    """Check a written mask with two independent readers."""
    mask = nibabel.load(path)
    assert mask.affine == pytest.approx(affine, abs=1e-4)
    assert (codes == np.asarray(mask.dataobj).T).all()
    found = SimpleITK.ReadImage(str(path))
    for index in ((0, 0, 0), (6, 5, 4), (3, 0, 2)):
        expected = nibabel.affines.apply_affine(affine, index) * [-1, -1, 1]
        assert found.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (1, 4), (2, 1), (4, 3), (0, 2)])
@pytest.mark.parametrize("name", OTHERS)
def test_sform_is_the_position_as_in_nibabel(name, codes, tmp_path):
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    for suffix in (".nii", ".nii.gz"):
        path = save(tmp_path / f"x{suffix}", array, OTHERS[name], codes)
        affine = nibabel.load(path).affine
        assert affine == pytest.approx(OTHERS[name], abs=1e-5)
        assert position_of(path) == pytest.approx(affine, abs=1e-4)
        pixels = io.read(path)
        assert (pixels.array[0] == array.T).all()
        assert pixels.grid == io.read_grid(path)
        zooms = nibabel.affines.voxel_sizes(affine)
        assert pixels.spacing_mm == pytest.approx(zooms[::-1], abs=1e-5)


def test_qform_is_the_position_without_sform(tmp_path):
    array = np.zeros(SHAPE, np.int16)
    path = save(tmp_path / "x.nii", array, OTHERS["turned"], codes=(1, 0))
    assert position_of(path) == pytest.approx(SCANNER, abs=1e-5)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", OTHERS)
def test_mask_written_whole_or_in_bands_overlays_its_image(name, suffix, tmp_path):
    array = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    path = save(tmp_path / "image.nii", array, OTHERS[name])
    affine, codes = nibabel.load(path).affine, (array.T > 0.5).astype(np.uint8)
    whole, bands = tmp_path / f"whole{suffix}", tmp_path / f"bands{suffix}"
    io.write_mask(whole, codes, MaskEncoding(), like=path)
    with (
        open_bands(path) as image,
        open_band_writer(bands, codes.shape, MaskEncoding(suffix=suffix), image) as writer,
    ):
        assert image.spacing_mm == pytest.approx(io.read(path).spacing_mm)
        for first, last in ((0, 2), (2, 5)):
            assert (image.read(first, last)[0] == array.T[first:last]).all()
            writer.write(codes[first:last])
    assert_overlays(whole, affine, codes)
    assert_overlays(bands, affine, codes)
    assert io.read_grid(whole).matrix == pytest.approx(io.read_grid(bands).matrix, abs=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_mask_saved_with_the_affine_of_its_image_lies_on_it(name, tmp_path):
    array = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    image = save(tmp_path / "image.nii.gz", array, OTHERS[name])
    mask = tmp_path / "mask.nii.gz"
    truth = (array > 0.5).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(truth, nibabel.load(image).affine), mask)
    read = io.read_mask(mask)
    assert position_of(mask) == pytest.approx(position_of(image), abs=1e-4)
    assert read.grid.remarks == ()
    case = Case(id="x", image=image, mask=mask, group="x")
    space = LabelSpace(values=(0, 1), names=("background", "organ"))
    assert (read_classes(case, space) == truth.T).all()


def test_spacing_is_that_of_sform_although_qform_has_another(tmp_path):
    path = save(
        tmp_path / "x.nii", np.zeros(SHAPE, np.int16), OTHERS["other zooms"], qform=np.eye(4)
    )
    assert nibabel.load(path).header["pixdim"][1:4].tolist() == [1, 1, 1]
    assert io.read(path).spacing_mm == pytest.approx((3, 2, 2))


@pytest.mark.parametrize(("shear", "is_read"), [(0.004, True), (0.3, False)])
def test_sheared_sform_is_not_hidden_by_qform(shear, is_read, tmp_path):
    sheared = SCANNER.copy()
    sheared[0, 1] = shear
    path = save(tmp_path / "x.nii", np.zeros(SHAPE, np.uint8), sheared)
    if not is_read:
        with raises_code(DataError, "sheared_grid"):
            io.read(path)
        with (
            raises_code(DataError, "sheared_grid"),
            open_band_writer(tmp_path / "m.nii", SHAPE[::-1], MaskEncoding(), path),
        ):
            pass
        return
    assert io.read(path).grid.remarks == ("sheared",)
    assert position_of(path) == pytest.approx(sheared, abs=0.01)


def test_volumes_with_two_equal_positions_are_read_without_a_copy(tmp_path, monkeypatch):
    path = save(tmp_path / "x.nii", np.zeros(SHAPE, np.int16), SCANNER)
    monkeypatch.setattr(io.nifti.tempfile, "TemporaryDirectory", None)
    assert position_of(path) == pytest.approx(SCANNER)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("places", [np.s_[:], np.s_[3], np.s_[0]])
def test_qform_is_the_position_if_sform_is_not_finite(number, places, tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.header.set_qform(OTHERS["turned"], 1)
    image.header.set_sform(OTHERS["turned"], 2)
    for row in "xyz":
        image.header[f"srow_{row}"][places] = number
    path = tmp_path / "x.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), None, image.header), path)
    assert position_of(path) == pytest.approx(OTHERS["turned"], abs=1e-4)
