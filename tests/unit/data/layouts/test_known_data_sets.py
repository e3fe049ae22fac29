"""Layouts of widely used data sets, on tiny files: what is found, named, left out and refused."""

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from ushape.data.discovery import discover
from ushape.data.layouts.volumes import find_modalities
from ushape.data.reading import read_image
from ushape.errors import DataError
from ushape.io.annotations import read_annotation

PHOTO = np.arange(64, dtype=np.uint8).reshape(8, 8)
CELL = np.zeros((8, 8), np.uint8)
CELL[2:5, 2:5] = 255
OTHER = np.roll(CELL, 2, axis=1)
VOLUME = np.arange(4 * 8 * 8, dtype=np.int16).reshape(4, 8, 8)


@pytest.fixture
def put(tmp_path):
    """Writes a picture, a volume or text below tmp_path."""

    def write(name, content=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif path.name.endswith(".nii.gz"):
            array = VOLUME if content is None else content
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
        else:
            Image.fromarray(PHOTO if content is None else content).save(path)

    return write


def ids(found):
    return [case.id for case in found.cases]


def values(case):
    return np.unique(read_annotation(case.mask).codes).tolist()


# Several modalities, and files for each class ------------------------------------------------


@pytest.mark.parametrize("name", ["{0}/{0}_{1}", "{0}_{1}", "sub/{0}/{1}"])
def test_modalities_are_channels(put, tmp_path, name):
    for case in ("p1", "p2"):
        for number, part in enumerate(("t1", "flair", "seg")):
            content = (VOLUME > 9).astype(np.uint8) if part == "seg" else VOLUME + number
            put(name.format(case, part) + ".nii.gz", content)
    found = discover(tmp_path)
    assert [one.rpartition("/")[2] for one in ids(found)] == ["p1", "p2"]
    image = read_image(found.cases[0])  # The alphabetical order: flair, t1.
    assert image[:, 0, 0, 0].tolist() == [1, 0]
    assert values(found.cases[0]) == [0, 1]


def test_case_without_a_usual_modality_is_left_out(put, tmp_path):
    for case in ("p1", "p2", "p3"):
        for part in ("t1", "t2", "seg"):
            if (case, part) != ("p3", "t2"):
                put(f"{case}/{case}_{part}.nii.gz")
    found = discover(tmp_path)
    assert ids(found) == ["p1", "p2"]
    assert "p3" in found.notes[0]


def test_numbered_volumes_are_no_modalities(put, tmp_path):
    for case in ("p1", "p2"):
        for part in ("01", "02", "seg"):
            put(f"{case}/{case}_{part}.nii.gz")
    assert find_modalities(tmp_path) is None


def test_files_of_each_class_are_drawn_by_the_order_of_their_names(put, tmp_path):
    for case in ("s1", "s2"):
        put(f"{case}/ct.nii.gz")
        for place, name in enumerate(("liver", "spleen")):
            part = np.zeros(VOLUME.shape, np.uint8)
            part[:, place] = 1
            put(f"{case}/segmentations/{name}.nii.gz", part)
    put("s3/ct.nii.gz")
    put("s3/segmentations/spleen.nii.gz", np.zeros(VOLUME.shape, np.uint8))
    found = discover(tmp_path)
    assert ids(found) == ["s1", "s2", "s3"]
    assert found.classes.names == ("background", "liver", "spleen")
    assert read_annotation(found.cases[0].mask).codes[0, :3, 0].tolist() == [1, 2, 0]
    assert values(found.cases[2]) == [0]


# Several masks beside an image ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["x_class_{}.png", "x_mask_{}.png", "x-{}-mask.png"])
def test_mask_files_of_classes_beside_the_image(put, tmp_path, name):
    put("x.jpg")
    put(name.format("cell"), CELL)
    put(name.format("debris"), OTHER)
    put("y.jpg")
    put(name.format("debris").replace("x", "y", 1), OTHER)
    found = discover(tmp_path)
    assert found.classes.names == ("background", "cell", "debris")
    assert [values(case) for case in found.cases] == [[0, 1, 2], [0, 2]]
    assert read_annotation(found.cases[0].mask).codes[2, 2:8].tolist() == [1, 1, 2, 2, 2, 0]


def test_numbered_mask_files_are_united(put, tmp_path):
    put("benign/benign (1).png")
    put("benign/benign (1)_mask.png", CELL)
    put("benign/benign (1)_mask_1.png", OTHER)
    put("normal/normal (1).png")
    put("normal/normal (1)_mask.png", CELL * 0)
    found = discover(tmp_path)
    assert ids(found) == ["benign/benign (1)", "normal/normal (1)"]
    assert [values(case) for case in found.cases] == [[0, 255], [0]]
    mask = read_annotation(found.cases[0].mask)
    assert (mask.codes > 0).sum() == 15
    assert np.unique(mask.instances.numbers).tolist() == [0, 1, 2]
    assert not found.notes


def put_masks(put, **masks):
    for name, own in masks.items():
        put(f"{name}.jpg")
        for mask in own:
            put(f"{name}_mask_{mask}.png", CELL if mask == "cell_1" else OTHER)


def test_numbered_mask_files_of_classes_are_objects(put, tmp_path):
    cells = [f"cell_{number}" for number in range(1, 7)]
    put_masks(put, x=[*cells, "debris_7"], y=["cell_1"])
    found = discover(tmp_path)
    assert found.classes.names == ("background", "cell", "debris")
    assert [mask.values for mask in (case.mask for case in found.cases)] == [(1,) * 6 + (2,), (1,)]
    assert all(case.mask.are_objects for case in found.cases)
    assert "as in cell1" in found.notes[0]


@pytest.mark.parametrize(
    "masks",
    [
        {"x": ["grade_1", "grade_2"], "y": ["grade_1"]},  # No grade 2 in the second image.
        {"x": ["type_1", "type_3", "type_9"], "y": ["type_9"]},  # Gaps.
        {name: [f"rib_{number}" for number in range(1, 9)] for name in "xy"},
    ],
)
def test_numbers_that_may_be_classes_are_parts_of_their_names(put, tmp_path, masks):
    put_masks(put, **masks)
    found = discover(tmp_path)
    assert found.classes.names == ("background", *masks["x"])
    assert not any(case.mask.are_objects for case in found.cases)
    assert "labels.instances=true" in found.notes[0]


def test_single_masks_beside_images_are_another_layout(put, tmp_path):
    for name in "xy":
        put(f"{name}.png")
        put(f"{name}_mask.png", CELL)
    assert [case.mask.name for case in discover(tmp_path).cases] == ["x_mask.png", "y_mask.png"]


# Cityscapes, Pascal VOC, Oxford pets ---------------------------------------------------------


@pytest.mark.parametrize("kinds", [("labelIds",), ("labelIds", "labelTrainIds")])
def test_cityscapes_prefers_train_ids(put, tmp_path, kinds):
    for part in ("train", "val"):
        name = f"{part}/ulm/ulm_000000_000019"
        put(f"leftImg8bit/{name}_leftImg8bit.png")
        for kind in (*kinds, "color", "instanceIds"):
            put(f"gtFine/{name}_gtFine_{kind}.png", CELL)
    found = discover(tmp_path)
    assert {case.mask.name.rpartition("_")[2] for case in found.cases} == {f"{kinds[-1]}.png"}
    assert {case.split for case in found.cases} == {"train", "validation"}
    has_void = kinds[-1] == "labelTrainIds"
    assert (found.classes.ignore if found.classes else None) == (255 if has_void else None)
    assert bool(found.notes) != has_void


@pytest.mark.parametrize("place", ["", "VOCdevkit/VOC2012/"])
def test_voc_masks_of_classes_with_lists(put, tmp_path, place):
    for name in ("a", "b"):
        put(f"{place}JPEGImages/{name}.jpg")
        put(f"{place}SegmentationClass/{name}.png", CELL)
        put(f"{place}SegmentationObject/{name}.png", CELL)
    put(f"{place}JPEGImages/c.jpg")
    for part, name in (("train", "a"), ("val", "b"), ("trainval", "a\nb")):
        put(f"{place}ImageSets/Segmentation/{part}.txt", name)
    found = discover(tmp_path)
    assert {case.id: case.split for case in found.cases} == {"a": "train", "b": "validation"}
    assert {case.mask.parent.name for case in found.cases} == {"SegmentationClass"}


def test_trimaps_state_their_background(put, tmp_path):
    trimap = np.full((8, 8), 2, np.uint8)
    trimap[1:6, 1:6], trimap[2:5, 2:5] = 3, 1
    put("images/a.jpg")
    put("annotations/trimaps/a.png", trimap)
    put("annotations/xmls/a.xml", "<annotation/>")
    found = discover(tmp_path)
    assert ids(found) == ["a"]
    assert dict(zip(found.classes.values, found.classes.names, strict=True)) == {
        2: "background",
        1: "foreground",
        3: "border",
    }
    assert "labels.ignore=3" in found.notes[0]


# BIDS ----------------------------------------------------------------------------------------


def test_bids_masks_in_derivatives(put, tmp_path):
    for subject in ("sub-01", "sub-02"):
        for part in ("T1w", "FLAIR"):
            put(f"{subject}/anat/{subject}_{part}.nii.gz")
        put(f"derivatives/manual/{subject}/anat/{subject}_FLAIR_lesion_mask.nii.gz")
    found = discover(tmp_path)
    assert [case.image.name for case in found.cases] == [
        "sub-01_FLAIR.nii.gz",
        "sub-02_FLAIR.nii.gz",
    ]
    assert [case.group for case in found.cases] == ["sub-01", "sub-02"]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("sub-01_T1w_mask", "sub-01_T1w_dseg"), "ambiguous_masks"),
        (("sub-01_label-lesion_mask",), "ambiguous_image"),
    ],
)
def test_bids_masks_that_are_not_unique_are_refused(put, tmp_path, names, code):
    for part in ("T1w", "FLAIR"):
        put(f"sub-01/anat/sub-01_{part}.nii.gz")
    for name in names:
        put(f"derivatives/manual/sub-01/anat/{name}.nii.gz")
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == code
