import sys

import pytest

from ushape.data.discovery import discover
from ushape.errors import DataError


def pairs(discovery):
    return {case.id: (case.image.name, case.mask.name) for case in discovery.cases}


@pytest.mark.parametrize(
    ("images", "masks"), [("images", "masks"), ("Images", "labels"), ("train", "train_masks")]
)
def test_discover_two_folders(make, images, masks):
    folder = make(f"{images}/a.jpg", f"{images}/b.jpg", f"{masks}/a.png", f"{masks}/b_mask.gif")
    assert pairs(discover(folder)) == {"a": ("a.jpg", "a.png"), "b": ("b.jpg", "b_mask.gif")}


def test_discover_patients_in_subfolders(make):
    folder = make("images/p1/s1.tif", "images/p2/s1.tif", "masks/p1/s1.tif", "masks/p2/s1.tif")
    assert list(pairs(discover(folder))) == ["p1/s1", "p2/s1"]


def test_discover_one_tree_with_a_suffix(make):
    folder = make("p1/x.tif", "p1/x_mask.tif", "p2/y.tif", "p2/y_mask.tif", "data.csv")
    found = discover(folder)
    assert pairs(found) == {"p1/x": ("x.tif", "x_mask.tif"), "p2/y": ("y.tif", "y_mask.tif")}
    assert found.notes == []


def test_discover_one_folder_with_a_prefix(make):
    assert list(pairs(discover(make("a.png", "mask_a.png", "b.png", "mask_b.png")))) == ["a", "b"]


def test_discover_masks_named_by_the_user(make):
    folder = make("cars/a_01.jpg", "outlines/a_01_mask.gif")
    found = discover(folder / "cars", folder / "outlines")
    assert pairs(found) == {"a_01": ("a_01.jpg", "a_01_mask.gif")}


def test_discover_names_files_without_a_partner(make):
    folder = make("images/cell1.png", "images/cell2.png", "masks/cell1.png", "masks/cel2.png")
    found = discover(folder)
    assert list(pairs(found)) == ["cell1"]
    assert "1 image has no mask, e.g. cell2.png; the most similar mask is c" in found.notes[0]
    assert "1 mask has no image, e.g. cel2.png" in found.notes[1]


def test_discover_suggests_no_mask_that_has_its_image(make):
    (note,) = discover(make("images/x01.png", "images/x11.png", "masks/x11.png")).notes
    assert "x01.png" in note
    assert "most similar" not in note


def test_note_on_a_missing_mask_names_the_folder_of_files_with_equal_names(make):
    folder = make("a/image.png", "a/mask.png", "b/image.png", "b/mask.png", "c/image.png")
    (note,) = discover(folder).notes
    assert "e.g. c/image.png" in note


def test_discover_skips_hidden_and_foreign_files(make):
    folder = make("images/a.png", "images/.b.png", "images/Thumbs.db", ".git/x.png", "masks/a.png")
    assert list(pairs(discover(folder))) == ["a"]


def test_discover_describes_a_folder_without_pairs(make):
    folder = make("images/a.png", "masks/zebra.png", "masks/notes.docx")
    with pytest.raises(DataError) as caught:
        discover(folder)
    for part in ("No pairs", "images/: 1 × .png, e.g. a.png", "zebra.png", ".docx", "(unsupported"):
        assert part in caught.value.message
    assert "--masks" in caught.value.hint


def test_discover_refuses_several_candidates(make):
    folder = make("images/a.png", "train/a.png", "masks/a.png")
    with pytest.raises(DataError) as caught:
        discover(folder)
    assert caught.value.code == "ambiguous_folders"
    assert "--masks" in caught.value.hint


def test_discover_refuses_two_images_of_one_name(make):
    with pytest.raises(DataError) as error:
        discover(make("images/a.jpg", "images/a.png", "masks/a.png"))
    assert error.value.code == "ambiguous_image"


def test_discover_refuses_two_masks_of_one_image(make):
    with pytest.raises(DataError) as error:
        discover(make("images/a.jpg", "masks/a.png", "masks/a_mask.png"))
    assert error.value.code == "ambiguous_mask"


def test_discover_refuses_empty_and_missing_folders(make, tmp_path):
    folder = make("images/a.png")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError) as error:
        discover(tmp_path / "none")
    assert error.value.code == "no_pairs"
    with pytest.raises(DataError) as error:
        discover(tmp_path / "nowhere")
    assert error.value.code == "not_a_folder"
    with pytest.raises(DataError) as error:
        discover(folder / "images" / "a.png")
    assert error.value.code == "not_a_folder"
    with pytest.raises(DataError) as error:
        discover(folder / "images", tmp_path / "nowhere")
    assert error.value.code == "not_a_folder"
    assert "--masks" in error.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_discover_names_that_are_not_utf8(make, tmp_path):
    folder = make("images/plain.png", "masks/plain.png")
    for place in ("images", "masks"):
        path = folder / place / "plain.png"
        path.rename(path.with_name(b"M\xfcller.png".decode(errors="surrogateescape")))
    (case,) = discover(folder).cases
    assert case.id == "M\\udcfcller"
    assert case.image.exists()


def test_discover_does_not_call_volumes_unsupported(make):
    folder = make("scans/a.nii.gz", "notes/b.docx")
    with pytest.raises(DataError) as error:
        discover(folder)
    lines = error.value.message.splitlines()
    assert any(line.endswith("1 × .nii.gz, e.g. a.nii.gz") for line in lines)
    assert any(line.endswith("b.docx (unsupported format)") for line in lines)
