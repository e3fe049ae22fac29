import numpy as np
import pytest

from codes import raises_code
from dicoms import SLICES, STUDY, save_frames, save_series
from ushape import io
from ushape.errors import DataError
from ushape.io.dicom_seg_writer import load_highdicom, write_segmentation

NAMES, COLORS = ("background", "liver", "tumor"), ((0, 0, 0), (230, 159, 0), (86, 180, 233))


@pytest.fixture
def series(tmp_path):
    pytest.importorskip("highdicom")
    save_series(tmp_path / "p1", **STUDY)
    return tmp_path / "p1"


def write(path, classes, source):
    write_segmentation(path, classes.astype(np.uint8), source, NAMES, COLORS)


def classes_of_three():
    return np.random.default_rng(1).integers(0, 3, SLICES.shape)


def test_segmentation_is_read_as_it_was_written(tmp_path, series):
    classes = classes_of_three()
    write(tmp_path / "seg.dcm", classes, series)
    image, mask = io.read(series), io.read_mask(tmp_path / "seg.dcm")
    assert (mask.codes == classes).all()
    assert np.allclose(mask.grid.matrix, image.grid.matrix, atol=1e-4)
    assert io.dicom.segment_names(tmp_path / "seg.dcm") == {1: "liver", 2: "tumor"}


def test_segmentation_lies_on_its_image_for_highdicom(tmp_path, series):
    classes = classes_of_three()
    write(tmp_path / "seg.dcm", classes, series)
    found = load_highdicom("A test").seg.segread(tmp_path / "seg.dcm")
    volume = found.get_volume(combine_segments=True)
    places = volume.map_indices_to_reference(np.argwhere(volume.array > 0))
    matrix = io.read_grid(series).matrix
    indices = (places - matrix[:, 3]) @ np.linalg.inv(matrix[:, :3]).T
    z, y, x = np.rint(indices).astype(int).T
    assert np.abs(indices - np.rint(indices)).max() < 0.01
    assert (classes[z, y, x] == volume.array[volume.array > 0]).all()
    assert len(x) == np.count_nonzero(classes)


def test_segmentation_without_foreground_has_all_slices(tmp_path, series):
    write(tmp_path / "seg.dcm", np.zeros(SLICES.shape), series)
    mask = io.read_mask(tmp_path / "seg.dcm")
    assert mask.codes.shape == SLICES.shape
    assert not mask.codes.any()


def test_single_slice_gets_a_segmentation(tmp_path, series):
    source = next(series.glob("*.dcm"))
    classes = classes_of_three()[0]
    write(tmp_path / "seg.dcm", classes, source)
    assert (io.read_mask(tmp_path / "seg.dcm").codes == classes).all()


def test_frames_out_of_order_get_their_own_segmentation(tmp_path):
    pytest.importorskip("highdicom")
    places = (3, 0, 4, 1, 2)
    save_frames(tmp_path / "ct.dcm", places, **STUDY)
    assert io.read(tmp_path / "ct.dcm").array[0, 3].tolist() == SLICES[0].tolist()
    classes = classes_of_three()
    write(tmp_path / "seg.dcm", classes, tmp_path / "ct.dcm")
    assert (io.read_mask(tmp_path / "seg.dcm").codes == classes).all()
    image, mask = io.read_grid(tmp_path / "ct.dcm"), io.read_mask(tmp_path / "seg.dcm")
    assert np.allclose(mask.grid.matrix, image.matrix, atol=1e-4)


def test_image_without_study_is_refused(tmp_path):
    pytest.importorskip("highdicom")
    save_series(tmp_path / "p1")
    with raises_code(DataError, "segmentation_unsupported"):
        write(tmp_path / "seg.dcm", classes_of_three(), tmp_path / "p1")
    assert not (tmp_path / "seg.dcm").exists()


def test_image_in_another_format_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", SLICES)
    with raises_code(DataError, "segmentation_unsupported"):
        write(tmp_path / "seg.dcm", classes_of_three(), tmp_path / "a.npy")
