"""Images and masks next to each other."""

import numpy as np
import pytest

from ushape.data.discovery import discover
from ushape.errors import DataError


def pairs(found):
    return {case.image.name: case.mask.name for case in found.cases}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x{}.png", "x{}_P.png"),
        ("cells {}.tif", "Mask of cells {}.tif"),
        ("field{}.tif", "field{}_Simple Segmentation.tif"),
        ("t [x={},y=0].jpg", "t [x={},y=0]-labelled.png"),
        ("{}_img.png", "{}_cp_masks.png"),
        ("{}.jpg", "{}.png"),
        ("{}.jpg", "{}.jpg.png"),
        ("{}_sat.jpg", "{}_drawn.png"),
        ("raw{}.png", "dots{}.png"),
        ("p1/{}_A.png", "p1/{}_B.png"),
        ("{}_B.png", "{}_A.png"),
    ],
)
def test_one_tree_finds_the_kinds_of_file(draw, tmp_path, image, mask):
    for number in range(8, 12):
        draw(image.format(number))
        draw(mask.format(number), number)
    found = discover(tmp_path)
    names = {path.format(n).rpartition("/")[2] for n in range(8, 12) for path in (image,)}
    assert set(pairs(found)) == names
    for number in range(8, 12):
        name = image.format(number).rpartition("/")[2]
        assert pairs(found)[name] == mask.format(number).rpartition("/")[2]
    assert found.notes == []


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize(
    ("image", "mask"), [("image.png", "mask.png"), ("imaging.tif", "segmentation.tif")]
)
def test_one_tree_with_a_folder_for_each_image(draw, tmp_path, image, mask, count):
    for number in range(count):
        draw(f"sample_{number:02d}/{image}")
        draw(f"sample_{number:02d}/{mask}", number)
    cases = discover(tmp_path).cases
    assert [case.image.parent for case in cases] == [case.mask.parent for case in cases]
    assert {case.image.name for case in cases} == {image}
    if count > 1:
        assert [case.id for case in cases] == [f"sample_{number:02d}" for number in range(count)]


def test_one_tree_with_folders_of_images_and_masks_in_each_folder(draw, tmp_path):
    for patient in range(3):
        for number in range(2):
            draw(f"p{patient}/images/{number}.png")
            draw(f"p{patient}/masks/{number}.png", number)
    cases = discover(tmp_path).cases
    assert [case.id for case in cases] == [f"p{k}/images/{n}" for k in range(3) for n in range(2)]
    assert {case.mask.parent.name for case in cases} == {"masks"}


@pytest.mark.parametrize("is_damaged", [False, True])
@pytest.mark.parametrize("end", ["", "_cp_masks"])
def test_one_tree_does_not_distinguish_files_within_a_folder(draw, tmp_path, end, is_damaged):
    for subject in range(5):
        for side in ("left", "right", "right1"):
            draw(f"scans/{subject}_{side}.tif")
            path = draw(f"outlines/{subject}_{side}{end}.png", subject)
    if is_damaged:
        path.write_bytes(b"")
    cases = discover(tmp_path).cases
    assert len(cases) == 15
    assert {(case.image.parent.name, case.mask.parent.name) for case in cases} == {
        ("scans", "outlines")
    }


def test_one_tree_with_equal_names_in_two_folders(draw, tmp_path):
    for site in ("hospital_a", "hospital_b"):
        for number in range(4):
            draw(f"{site}/{number}.tif")
            draw(f"{site}/{number}_P.tif", number)
    assert pairs(discover(tmp_path)) == {f"{n}.tif": f"{n}_P.tif" for n in range(4)}
    assert len(discover(tmp_path).cases) == 8


def test_one_tree_states_the_difference(draw, tmp_path):
    for number in range(3):
        draw(f"x{number}.png")
        draw(f"x{number}_P.png", number)
    assert discover(tmp_path).layout == "one folder tree; the mask of x0 is x0_P"


def test_one_tree_of_photographs_has_no_masks(draw, tmp_path):
    for number in range(12):
        draw(f"control_{number}.png")
        draw(f"treated_{number}.png")
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "no_pairs"


def test_one_tree_of_masks_has_no_images(draw, tmp_path):
    for number in range(12):
        draw(f"a_{number}.png", number)
        draw(f"b_{number}.png", number)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "no_pairs"


def test_one_tree_leaves_out_pictures_of_the_masks(draw, tmp_path):
    for number in range(4):
        draw(f"x{number}.png")
        draw(f"x{number}_drawn.png", number)
        draw(f"x{number}_overlay.png")
    assert pairs(discover(tmp_path)) == {f"x{n}.png": f"x{n}_drawn.png" for n in range(4)}


def test_one_tree_asks_which_annotator_to_use(draw, tmp_path):
    for number in range(4):
        draw(f"Image_{number}L.jpg")
        draw(f"Image_{number}L_1stHO.png", number)
        draw(f"Image_{number}L_2ndHO.png", number + 1)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "ambiguous_folders"
    for kind in ("1stHO", "2ndHO"):
        pattern = tmp_path / f"*L_{kind}.png"
        assert f"--masks '{pattern}'" in error.value.hint
        found = discover(tmp_path, pattern)
        assert pairs(found) == {f"Image_{n}L.jpg": f"Image_{n}L_{kind}.png" for n in range(4)}


def test_one_tree_leaves_out_the_field_of_view(draw, draw_view, tmp_path):
    for number in range(21, 26):
        draw(f"{number}_training.tif")
        draw(f"{number}_manual1.gif", number)
        draw_view(f"{number}_training_mask.gif", number - 21)
    found = discover(tmp_path)
    assert pairs(found) == {f"{n}_training.tif": f"{n}_manual1.gif" for n in range(21, 26)}
    assert "field of view" in " ".join(found.notes)


def test_one_tree_asks_for_the_image_among_several_modalities(draw, tmp_path):
    for number in range(4):
        for kind in ("t1", "t1ce", "t2"):
            draw(f"P{number}/P{number}_{kind}.png")
        draw(f"P{number}/P{number}_seg.png", number)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "ambiguous_folders"
    assert "t1ce" in error.value.message


def test_one_tree_skips_results_of_cellpose(draw, tmp_path):
    for number in range(3):
        draw(f"x{number}.png")
        np.save(tmp_path / f"x{number}_seg.npy", np.array({"masks": 1}, dtype=object))
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert "Cellpose" in error.value.hint
    for number in range(3):
        draw(f"x{number}_cp_masks.png", number)
    assert pairs(discover(tmp_path)) == {f"x{n}.png": f"x{n}_cp_masks.png" for n in range(3)}
