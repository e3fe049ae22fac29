import numpy as np

from codes import raises_code
from dicoms import save_segmentation, save_series
from ushape import io
from ushape.data.discovery import discover
from ushape.errors import DataError
from ushape.io.annotations import read_annotation

LIVER, TUMOR = np.zeros((6, 8), bool), np.zeros((6, 8), bool)
LIVER[1:5, 1:7] = True
TUMOR[0, 0] = True


def test_frames_lie_where_they_state(tmp_path):
    # Slices are 2.5 mm apart: slice 3 and 1, in reverse order, and none between.
    save_segmentation(tmp_path / "s.dcm", [(7.5, 1, LIVER), (2.5, 1, TUMOR)], ["liver"])
    pixels = io.read(tmp_path / "s.dcm")
    assert pixels.array.shape == (1, 3, 6, 8)
    assert (pixels.array[0] == [TUMOR, np.zeros_like(TUMOR), LIVER]).all()
    assert pixels.spacing_mm == (2.5, 1, 1)
    assert io.read_grid(tmp_path / "s.dcm") == pixels.grid


def test_segments_are_classes_of_one_mask(tmp_path):
    frames = [(0, 2, TUMOR), (0, 1, LIVER), (2.5, 2, TUMOR)]
    save_segmentation(tmp_path / "s.dcm", frames, ["liver", "tumor"])
    codes = io.read_mask(tmp_path / "s.dcm").codes
    assert (codes == [LIVER + 2 * TUMOR, 2 * TUMOR]).all()
    assert io.dicom.segment_names(tmp_path / "s.dcm") == {1: "liver", 2: "tumor"}


def test_sparse_segmentation_is_placed_on_its_series(tmp_path):
    save_series(tmp_path / "p1", PixelSpacing=[1, 1])
    frames = [(7.5, 1, LIVER), (2.5, 1, TUMOR)]
    save_segmentation(tmp_path / "p1_seg.dcm", frames, ["liver"], start=(5, 6, 7))
    placed = read_annotation(tmp_path / "p1_seg.dcm", tmp_path / "p1")
    nothing = np.zeros_like(LIVER)
    assert (placed.codes == [nothing, TUMOR, nothing, LIVER, nothing]).all()
    assert placed.remarks == {"cropped"}


def test_segmentation_of_another_patient_is_refused(tmp_path):
    save_series(tmp_path / "p1", PixelSpacing=[1, 1])
    save_segmentation(tmp_path / "p1_seg.dcm", [(0, 1, LIVER)], ["liver"], start=(90, 0, 0))
    with raises_code(DataError, "mask_outside_image"):
        read_annotation(tmp_path / "p1_seg.dcm", tmp_path / "p1")


def test_segments_name_the_classes(tmp_path):
    for name in ("p1", "p2"):
        save_series(tmp_path / name, PixelSpacing=[1, 1])
        frames = [(2.5, 2, LIVER), (2.5, 1, TUMOR)]
        save_segmentation(tmp_path / f"{name}_seg.dcm", frames, ["tumor", "liver"])
    assert discover(tmp_path).class_names == ("background", "tumor", "liver")
    save_segmentation(tmp_path / "p2_seg.dcm", frames, ["liver", "tumor"])
    with raises_code(DataError, "conflicting_class_names"):
        discover(tmp_path)


def test_overlapping_segments_are_refused(tmp_path):
    save_segmentation(tmp_path / "s.dcm", [(0, 1, LIVER), (0, 2, LIVER)], ["liver", "tumor"])
    with raises_code(DataError, "overlapping_segments"):
        io.read(tmp_path / "s.dcm")


def test_frames_without_a_common_distance_are_refused(tmp_path):
    frames = [(0, 1, LIVER), (2.5, 1, LIVER), (3.9, 1, LIVER)]
    save_segmentation(tmp_path / "s.dcm", frames, ["liver"])
    with raises_code(DataError, "dicom_series_uneven"):
        io.read(tmp_path / "s.dcm")
