"""Layouts of annotation tools that store shapes: what is found, named, left out and refused."""

import json

import numpy as np
import pytest
from PIL import Image

from ushape.data.discovery import discover
from ushape.errors import DataError
from ushape.io.annotations import read_annotation

SQUARE = [[2, 2], [6, 2], [6, 5], [2, 5]]


@pytest.fixture
def put(tmp_path):
    """Writes an image of 8 × 8 pixels, text or JSON below tmp_path."""

    def write(name, content=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))

    return write


def labelme(image, *shapes):
    entries = [{"label": label, "shape_type": kind, "points": p} for label, kind, p in shapes]
    return {"shapes": entries, "imagePath": image, "imageHeight": 8, "imageWidth": 8}


def areas(found):
    return {case.id: int((read_annotation(case.mask).codes > 0).sum()) for case in found.cases}


def test_labelme_files_beside_images_and_elsewhere(put, tmp_path):
    put("a.png")
    put("a.json", labelme("a.png", ("debris", "polygon", SQUARE)))
    put("images/b.png")
    put("labels/b.json", labelme("..\\images\\b.png", ("cell", "polygon", SQUARE)))
    found = discover(tmp_path)
    assert areas(found) == {"a": 12, "b": 12}
    assert found.classes.names == ("background", "cell", "debris")
    assert [read_annotation(case.mask).codes.max() for case in found.cases] == [2, 1]


def test_labelme_image_with_a_line_is_left_out(put, tmp_path):
    for name, kind in (("a", "polygon"), ("b", "line")):
        put(f"{name}.png")
        put(f"{name}.json", labelme(f"{name}.png", ("cell", kind, SQUARE)))
    found = discover(tmp_path)
    assert areas(found) == {"a": 12}
    assert len(found.notes) == 1
    assert "b.json" in found.notes[0]


def test_labelme_file_without_its_image_is_left_out(put, tmp_path):
    put("a.png")
    put("a.json", labelme("a.png", ("cell", "polygon", SQUARE)))
    put("b.json", labelme("b.png", ("cell", "polygon", SQUARE)))
    found = discover(tmp_path)
    assert areas(found) == {"a": 12}
    assert "b.json" in found.notes[0]


def test_labelme_file_that_is_damaged_is_kept_for_the_check(put, tmp_path):
    put("a.png")
    put("a.json", '{"shapes": [')
    (case,) = discover(tmp_path).cases
    with pytest.raises(DataError) as caught:
        read_annotation(case.mask)
    assert caught.value.code == "json_invalid"


def test_labelme_labels_for_background_and_ignored_areas(put, tmp_path):
    put("a.png")
    part = [[2, 2], [4, 2], [4, 5], [2, 5]]
    shapes = [("cell", "polygon", SQUARE), ("_background_", "polygon", part)]
    put("a.json", labelme("a.png", *shapes, ("__ignore__", "rectangle", [[0, 0], [8, 1]])))
    found = discover(tmp_path)
    codes = read_annotation(found.cases[0].mask).codes
    assert found.classes.names == ("background", "cell")
    assert found.classes.ignore == 255
    assert [int((codes == code).sum()) for code in (1, 255)] == [6, 8]


def test_labelme_export_with_one_list_of_labels(put, tmp_path):
    for name in ("a_json", "b_json"):
        put(f"{name}/img.png")
        put(f"{name}/label.png")
        put(f"{name}/label_viz.png")
        put(f"{name}/label_names.txt", "_background_\ncell")
    found = discover(tmp_path)
    assert [case.id for case in found.cases] == ["a", "b"]
    assert found.classes.names == ("_background_", "cell")
    put("b_json/label_names.txt", "_background_\ndebris")
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "conflicting_class_names"


@pytest.mark.parametrize(
    ("images", "labels"), [("images/{}", "labels/{}"), ("{}/images", "{}/labels"), ("{}", "{}")]
)
def test_yolo_states_split_and_classes(put, tmp_path, images, labels):
    for part in ("train", "val"):
        put(f"{images.format(part)}/{part}.png")
        put(f"{labels.format(part)}/{part}.txt", "1 0.25 0.25 0.75 0.25 0.75 0.625 0.25 0.625")
    put("data.yaml", "names: [debris, cell]\n")
    found = discover(tmp_path)
    assert areas(found) == {"train/train": 12, "val/val": 12}
    assert {case.split for case in found.cases} == {"train", "validation"}
    assert found.classes.names == ("background", "cell")


@pytest.mark.parametrize("files", [{}, {"data.yaml": "names: [a]\nkpt_shape: [17, 3]\n"}])
def test_yolo_boxes_and_keypoints_are_refused(put, tmp_path, files):
    put("images/a.png")
    put("labels/a.txt", "0 0.5 0.5 0.1 0.1")
    for name, text in files.items():
        put(name, text)
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "shapes_without_area"


def test_cvat_polygons(put, tmp_path):
    put("images/s/a.png")
    polygon = '<polygon label="cell" points="2,2;6,2;6,5;2,5"/>'
    image = '<image id="0" name="{}" width="8" height="8">{}</image>'
    inside = image.format("s/a.png", polygon) + image.format("gone.png", polygon)
    put("annotations.xml", f"<annotations>{inside}</annotations>")
    found = discover(tmp_path)
    assert areas(found) == {"s/a": 12}
    assert "gone.png" in found.notes[0]


def test_run_lengths_of_images_in_folders(put, tmp_path):
    put("train/a.png")
    put("test/a.png")
    put("train.csv", "ImageId,EncodedPixels\na,1 3\ngone,1 3\n")
    put("sample_submission.csv", "ImageId,EncodedPixels\na,1 1\n")
    found = discover(tmp_path)
    assert areas(found) == {"train/a": 3}
    assert read_annotation(found.cases[0].mask).codes[:3, 0].tolist() == [1, 1, 1]
    assert discover(tmp_path / "train.csv").cases == found.cases


def test_name_that_fits_two_images_is_refused(put, tmp_path):
    put("one/a.png")
    put("two/a.png")
    put("masks.csv", "ImageId,EncodedPixels\na,1 3\n")
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "ambiguous_image"
