"""Structure sets, by the series that they refer to."""

import numpy as np
import pytest

from codes import raises_code
from dicoms import (
    SLICES,
    box,
    contour,
    on_series,
    save_segmentation,
    save_series,
    save_structures,
)
from ushape import io
from ushape.data.discovery import discover, find_masks
from ushape.errors import DataError
from ushape.io.annotations import read_annotation
from ushape.io.dicom_seg import SEGMENTATION
from ushape.types import MaskEncoding, ShapesMask

LIVER = ("Liver", [box(1, 2, 5, 4)])
SPLEEN = ("spleen", [box(5, 0, 8, 3)])


def patient(folder, number, rois=(LIVER,), sets="rs", **elements):
    """Saves a series in p1/ct and its structure set in p1/rs."""
    place = folder / f"p{number}"
    place.mkdir(parents=True, exist_ok=True)
    uid = f"1.2.3.{number}"
    stated = {"PatientID": f"p{number}", "SeriesInstanceUID": uid, "FrameOfReferenceUID": uid}
    save_series(place / "ct", **{**stated, **elements})
    save_structures(place / sets / "set.dcm", rois, series=[uid], frame=uid)


@pytest.mark.parametrize("sets", ["rs", "ct", "."])
def test_structure_sets_belong_to_the_series_that_they_name(sets, tmp_path):
    for number in (1, 2):
        patient(tmp_path, number, sets=sets)
    found = discover(tmp_path)
    assert "RTSTRUCT" in found.layout
    assert [case.id for case in found.cases] == ["p1/ct", "p2/ct"]
    assert [case.image for case in found.cases] == [tmp_path / f"p{n}" / "ct" for n in (1, 2)]
    assert found.classes.names == ("background", "Liver")
    for case in found.cases:
        assert read_annotation(case.mask, case.image).codes.sum() == 8
        assert io.read(case.image).array.shape == (1, 5, 6, 8)
    assert found.notes == []


def test_structure_sets_in_a_folder_of_their_own(tmp_path):
    for number in (1, 2):
        patient(tmp_path / "images", number, sets="../../masks")
        (tmp_path / "masks" / "set.dcm").rename(tmp_path / "masks" / f"set{number}.dcm")
    for found in (discover(tmp_path), discover(tmp_path / "images", tmp_path / "masks")):
        assert [case.mask.path.name for case in found.cases] == ["set1.dcm", "set2.dcm"]
        assert [case.mask.format for case in found.cases] == ["rtstruct"] * 2


def test_structure_sets_in_a_table(tmp_path):
    patient(tmp_path, 1)
    (tmp_path / "list.csv").write_text("image,mask\np1/ct,p1/rs/set.dcm\n")
    [case] = discover(tmp_path / "list.csv").cases
    assert isinstance(case.mask, ShapesMask)
    assert read_annotation(case.mask, case.image).codes.sum() == 8


def test_a_folder_that_is_a_series_is_a_case(tmp_path):
    patient(tmp_path, 1, sets="ct")
    [case] = discover(tmp_path / "p1" / "ct").cases
    assert (case.id, case.image) == ("ct", tmp_path / "p1" / "ct")


def test_regions_are_classes_by_name(tmp_path):
    center = ("isocenter", [contour(on_series([(3, 3)], 1), "POINT")])
    patient(tmp_path, 1, [LIVER, SPLEEN, center])
    patient(tmp_path, 2, [SPLEEN, ("LIVER ", LIVER[1]), ("empty", [])])
    patient(tmp_path, 3, [LIVER, ("Background", [box(0, 0, 8, 6)])])
    found = discover(tmp_path)
    assert found.classes.names == ("background", "Liver", "spleen")
    codes = [read_annotation(case.mask, case.image).codes for case in found.cases]
    assert [(mask == 1).sum() for mask in codes] == [8, 8, 8]
    assert [(mask == 2).sum() for mask in codes] == [9, 9, 0]
    notes = "\n".join(found.notes)
    assert "not all 3 structure sets have spleen (2)" in notes
    assert "name is background: Background (1), empty (1), isocenter (1)" in notes
    assert "labels.names=[background, Liver]" in notes


def test_regions_of_points_only_are_refused(tmp_path):
    patient(tmp_path, 1, [("isocenter", [contour(on_series([(3, 3)], 1), "POINT")])])
    with raises_code(DataError, "shapes_without_area"):
        discover(tmp_path)


def test_of_several_series_in_a_folder_the_one_with_contours_is_read(tmp_path):
    patient(tmp_path, 1, sets="ct")
    save_series(tmp_path / "other", slices=0 * SLICES, SeriesInstanceUID="1.2.3.9")
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / "p1" / "ct" / f"other-{path.name}")
    [case] = discover(tmp_path).cases
    image = io.read(case.image)
    assert image.array.shape == (1, 5, 6, 8)
    assert image.array.std() > 0
    assert read_annotation(case.mask, case.image).codes.sum() == 8
    (tmp_path / "p1" / "ct" / "set.dcm").rename(tmp_path / "p1" / "set.dcm")
    with raises_code(DataError, "several_dicom_series"):
        io.read(case.image)


def test_a_series_that_is_missing_is_found_by_its_frame_of_reference(tmp_path):
    patient(tmp_path, 1, SeriesInstanceUID="9.9")
    found = discover(tmp_path)
    assert [case.id for case in found.cases] == ["p1/ct"]
    assert "same frame of reference" in found.notes[0]


def test_several_series_of_a_frame_of_reference_are_refused(tmp_path):
    patient(tmp_path, 1, SeriesInstanceUID="9.9")
    save_series(tmp_path / "p1" / "pet", SeriesInstanceUID="9.8", FrameOfReferenceUID="1.2.3.1")
    with raises_code(DataError, "ambiguous_image"):
        discover(tmp_path)


def test_two_structure_sets_of_a_series_are_refused(tmp_path):
    patient(tmp_path, 1)
    save_structures(tmp_path / "p1" / "rs2" / "2.dcm", [LIVER], series=["1.2.3.1"])
    with raises_code(DataError, "ambiguous_mask"):
        discover(tmp_path)


def test_sets_without_series_and_damaged_ones_are_left_out(tmp_path):
    for number in (1, 2, 3):
        patient(tmp_path, number)
    for path in (tmp_path / "p2" / "ct").iterdir():
        path.unlink()
    damaged = tmp_path / "p3" / "rs" / "set.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    found = discover(tmp_path)
    assert [case.id for case in found.cases] == ["p1/ct"]
    assert "1 structure set that cannot be read" in found.notes[0]
    assert "1 structure set whose series is not in" in found.notes[1]
    (tmp_path / "p1" / "rs" / "set.dcm").unlink()
    with raises_code(DataError, "damaged_file"):
        discover(tmp_path)


def test_masks_of_other_kinds_have_precedence(tmp_path):
    for number in (1, 2):
        patient(tmp_path / "images", number)
        place = tmp_path / "images" / f"p{number}" / "ct"
        codes = 0 * io.read(place).array[0].astype("uint8")
        codes[1, 2:4, number : number + 3] = 1
        io.write_mask(tmp_path / "masks" / f"p{number}.nii.gz", codes, MaskEncoding(), like=place)
    (tmp_path / "images" / "p1" / "rs" / "set.dcm").unlink()
    found = discover(tmp_path)
    assert [str(case.mask.name) for case in found.cases] == ["p1.nii.gz", "p2.nii.gz"]


def test_structure_sets_are_no_images_to_predict(tmp_path):
    patient(tmp_path, 1)
    assert find_masks(tmp_path)[0] == {tmp_path / "p1" / "rs" / "set.dcm"}


def test_series_without_contours_are_named(tmp_path):
    patient(tmp_path, 1)
    save_series(tmp_path / "p2.ct", SeriesInstanceUID="9.8")
    save_series(tmp_path / "p2.mr", SeriesInstanceUID="9.9")
    found = discover(tmp_path)
    assert found.notes == [
        f"Left out: 2 DICOM series without a structure set, e.g. {tmp_path / 'p2.ct'}."
    ]


def test_folders_whose_names_have_dots_are_cases(tmp_path):
    for name in ("p.ct", "p.mr"):
        save_series(tmp_path / name, SeriesInstanceUID=f"1.{len(name)}.{ord(name[2])}")
        save_structures(tmp_path / f"{name}.dcm", [LIVER], series=[f"1.{len(name)}.{ord(name[2])}"])
    assert [case.id for case in discover(tmp_path).cases] == ["p.ct", "p.mr"]


def test_doses_and_segmentations_are_no_series_of_contours(tmp_path):
    patient(tmp_path, 1, SeriesInstanceUID="9.9")
    for name, kind in (("dose", "1.2.840.10008.5.1.4.1.1.481.2"), ("seg", SEGMENTATION)):
        save_series(tmp_path / name, places=[0], SOPClassUID=kind, FrameOfReferenceUID="1.2.3.1")
    assert [case.id for case in discover(tmp_path).cases] == ["p1/ct"]


def segmented(folder, number, name="p{}"):
    """Saves a series in images/p1, its segments in masks/p1.dcm and its contours in contours."""
    uid = f"1.2.3.{number}"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    save_series(folder / "images" / f"p{number}", SeriesInstanceUID=uid, FrameOfReferenceUID=uid)
    frame = np.zeros((6, 8), bool)
    frame[2:4, 1:5] = True
    save_segmentation(folder / "masks" / f"{name.format(number)}.dcm", [(2.5, 1, frame)], ["liver"])
    save_structures(folder / "contours" / f"c{number}.dcm", [SPLEEN], series=[uid], frame=uid)


def test_segmentations_and_structure_sets_of_as_many_series_are_refused(tmp_path):
    for number in (1, 2):
        segmented(tmp_path, number)
    with raises_code(DataError, "ambiguous_mask"):
        discover(tmp_path)
    found = discover(tmp_path / "images", tmp_path / "masks")
    assert [case.mask.name for case in found.cases] == ["p1.dcm", "p2.dcm"]
    found = discover(tmp_path / "images", tmp_path / "contours")
    assert [case.mask.format for case in found.cases] == ["rtstruct"] * 2


@pytest.mark.parametrize("removed", ["contours", "masks"])
def test_of_segmentations_and_structure_sets_those_of_more_series_are_used(removed, tmp_path):
    for number in (1, 2):
        segmented(tmp_path, number)
    next((tmp_path / removed).iterdir()).unlink()
    found = discover(tmp_path)
    assert len(found.cases) == 2
    assert any("Not used" in note for note in found.notes)
    assert isinstance(found.cases[0].mask, ShapesMask) == (removed == "masks")


def test_segmentations_that_no_name_pairs_are_named(tmp_path):
    for number in (1, 2):
        segmented(tmp_path, number, name="other{}")
    found = discover(tmp_path)
    assert [case.mask.format for case in found.cases] == ["rtstruct"] * 2
    assert any("2 DICOM segmentations" in note for note in found.notes)


def test_damaged_structure_sets_do_not_stop_the_reading_of_other_masks(tmp_path):
    for number in (1, 2):
        segmented(tmp_path, number)
    for path in (tmp_path / "contours").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    found = discover(tmp_path)
    assert [case.mask.name for case in found.cases] == ["p1.dcm", "p2.dcm"]
    assert any("Not used: structure sets" in note for note in found.notes)


def test_structure_sets_beside_masks_that_are_named(tmp_path):
    for number in (1, 2):
        segmented(tmp_path, number)
        place = tmp_path / "images" / f"p{number}"
        codes = 0 * io.read(place).array[0].astype("uint8")
        io.write_mask(
            tmp_path / "contours" / f"p{number}.nii.gz", codes, MaskEncoding(), like=place
        )
    given = tmp_path / "images", tmp_path / "contours"
    with raises_code(DataError, "ambiguous_mask"):
        discover(*given)
    (tmp_path / "contours" / "c2.dcm").unlink()
    found = discover(*given)
    assert [case.mask.name for case in found.cases] == ["p1.nii.gz", "p2.nii.gz"]
    assert any("Not used" in note for note in found.notes)
