"""Folders of images and masks, and the choice among several."""

import shlex

import pytest

from ushape.data.discovery import discover
from ushape.errors import DataError

NUMBERS = range(5)


def folder_of(found):
    (folder,) = {case.mask.parent.name for case in found.cases}
    return folder


@pytest.mark.parametrize(("masks", "view"), [("1st_manual", "mask"), ("vessels", "mask")])
def test_folders_leave_out_the_field_of_view(draw, draw_view, tmp_path, masks, view):
    for number in NUMBERS:
        draw(f"images/{number}_training.png")
        draw(f"{masks}/{number}_manual1.png", number)
        draw_view(f"{view}/{number}_training_mask.png", number)
    found = discover(tmp_path)
    assert folder_of(found) == masks
    assert f"Not used: {view}/" in found.notes[0]
    assert "field of view" in found.notes[0]


def test_folders_use_constant_masks_if_there_are_no_others(draw, draw_view, tmp_path):
    for number in NUMBERS:
        draw(f"images/{number}.png")
        draw_view(f"masks/{number}.png", number)
    assert folder_of(discover(tmp_path)) == "masks"


def test_folders_ask_which_annotator_to_use(draw, tmp_path):
    for number in NUMBERS:
        draw(f"my images/{number}.png")
        draw(f"my 1st_manual/{number}.png", number)
        draw(f"my 2nd_manual/{number}.png", number + 1)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "ambiguous_folders"
    for name in ("my 1st_manual", "my 2nd_manual"):
        assert f"--masks {shlex.quote(str(tmp_path / name))}" in error.value.hint
    assert "field of view" in error.value.hint
    assert folder_of(discover(tmp_path / "my images", tmp_path / "my 2nd_manual"))


def test_folders_of_a_test_part_are_those_of_the_training_part(draw, tmp_path):
    for part in ("training", "test"):
        for number in NUMBERS:
            draw(f"{part}/images/{number}_{part}.png")
            draw(f"{part}/1st_manual/{number}_manual1.png", number)
            if part == "test":
                draw(f"{part}/2nd_manual/{number}_manual2.png", number + 1)
    found = discover(tmp_path)
    assert folder_of(found) == "1st_manual"
    assert {case.split for case in found.cases} == {"train", "test"}


@pytest.mark.parametrize(("masks", "objects"), [("masks", "instances"), ("masks", "labels")])
def test_folders_with_labels_of_objects_state_how_to_use_them(draw, tmp_path, masks, objects):
    for number in NUMBERS:
        draw(f"images/{number}.png")
        draw(f"{masks}/{number}.png", number)
        draw(f"{objects}/{number}.png", number, value=number + 1)
    found = discover(tmp_path)
    assert folder_of(found) == masks
    command = f"ushape train {tmp_path / 'images'} --masks {tmp_path / objects}"
    assert f"{objects}/, which marks the same pixels. To use it: {command}" in found.notes[0]


def test_folders_prefer_a_usual_name_and_state_the_other(draw, tmp_path):
    for number in NUMBERS:
        draw(f"images/{number}.png")
        draw(f"masks/{number}.png", number)
        draw(f"vegetation/{number}.png", number + 1)
        draw(f"overlays/{number}.png")
    found = discover(tmp_path)
    assert folder_of(found) == "masks"
    assert len(found.notes) == 1
    assert "vegetation/, which is another mask for each image" in found.notes[0]


def test_folders_with_one_usual_name(draw, tmp_path):
    for number in NUMBERS:
        draw(f"one/photos/{number}.png")
        draw(f"one/masks/{number}_P.png", number)
        draw(f"two/images/{number}.png")
        draw(f"two/outlines/{number}.png", number)
    assert folder_of(discover(tmp_path / "one")) == "masks"
    assert folder_of(discover(tmp_path / "two")) == "outlines"


@pytest.mark.parametrize("depth", [1, 2])
def test_nested_folders_are_entered(draw, tmp_path, depth):
    inner = "/".join(["cells"] * depth)
    for number in NUMBERS:
        draw(f"{inner}/images/{number}.png")
        draw(f"{inner}/masks/{number}.png", number)
    (tmp_path / "__MACOSX" / inner / "images").mkdir(parents=True)
    draw(f"__MACOSX/{inner}/images/0.png")
    draw(f"{inner}/images/._0.png")
    (tmp_path / inner / "images" / "Thumbs.db").write_bytes(b"x")
    found = discover(tmp_path)
    assert [case.id for case in found.cases] == list("01234")
    assert found.layout.startswith("cells/: ")
    assert found.notes == []


def test_single_folder_of_masks_with_several_values_is_no_class(draw, tmp_path):
    for number in NUMBERS:
        draw(f"images/{number}.png")
        draw(f"annotations/trimaps/{number}.png", number, value=number + 1)
        (tmp_path / "annotations/xmls").mkdir(exist_ok=True)
    found = discover(tmp_path)
    assert folder_of(found) == "trimaps"
    assert found.class_names is None


@pytest.mark.parametrize("place", ["", "train/", "archive/train/"])
@pytest.mark.parametrize("affix", ["", "_mask"])
def test_folder_of_masks_among_the_images_is_found(draw, tmp_path, place, affix):
    for number in NUMBERS:
        draw(f"{place}x{number:02d}.png")
        draw(f"{place}masks/x{number:02d}{affix}.png", number)
    found = discover(tmp_path)
    assert [case.id for case in found.cases] == [f"x{number:02d}" for number in NUMBERS]
    assert folder_of(found) == "masks"


def test_parts_of_a_split_may_hold_their_masks_in_a_subfolder(draw, tmp_path):
    for part in ("train", "test"):
        for number in NUMBERS:
            draw(f"{part}/x{number:02d}.png")
            draw(f"{part}/masks/x{number:02d}.png", number)
    found = discover(tmp_path)
    assert [case.split for case in found.cases] == ["test"] * 5 + ["train"] * 5
