"""Each form of data folder on tiny files: what is found, how it is read, what is refused."""

import csv
import json
import sys

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from dicoms import save_series
from ushape.data.discovery import discover
from ushape.data.layouts import LAYOUTS, MASK_LAYOUTS, SHAPE_LAYOUTS
from ushape.data.reading import read_image
from ushape.errors import DataError
from ushape.io.annotations import read_annotation
from ushape.io.annotations.coco import _unpack_counts
from ushape.types import CocoMask, MaskParts


@pytest.fixture
def put(tmp_path):
    """Writes an array or text below tmp_path; returns the path."""

    def write(name, content=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, (dict, list)):
            path.write_text(json.dumps(content))
        elif path.suffix == ".tif":
            tifffile.imwrite(path, PHOTO if content is None else content, photometric="minisblack")
        else:
            Image.fromarray(PHOTO if content is None else content).save(path)
        return path

    return write


PHOTO = np.arange(64, dtype=np.uint8).reshape(8, 8)
BOX = np.zeros((8, 8), np.uint8)
BOX[2:5, 2:5] = 255
LOW = np.zeros((8, 8), np.uint8)
LOW[4:7, 4:7] = 255


def ids(found):
    return [case.id for case in found.cases]


def codes(case):
    return read_annotation(case.mask).codes


ALL_LAYOUTS = LAYOUTS | MASK_LAYOUTS | SHAPE_LAYOUTS


@pytest.mark.parametrize("find", ALL_LAYOUTS.values(), ids=ALL_LAYOUTS)
def test_layouts_do_not_match_an_empty_folder(find, tmp_path):
    assert find(tmp_path) is None


def test_layout_does_not_depend_on_the_order_on_disk(put, tmp_path):
    for root, order in (("one", "abc"), ("two", "cab")):
        for name in order:
            put(f"{root}/images/{name}.png")
            put(f"{root}/masks/dot/{name}.png", BOX)
            put(f"{root}/masks/box/{name}.png", LOW)
    one, two = discover(tmp_path / "one"), discover(tmp_path / "two")
    assert ids(one) == ids(two) == ["a", "b", "c"]
    assert one.class_names == two.class_names
    assert [case.mask.values for case in one.cases] == [case.mask.values for case in two.cases]


# Two folders of other names ----------------------------------------------------------------


def test_mirrored_trees_are_distinguished_by_their_values(put, tmp_path):
    for name in ("p1/a.png", "p1/b.png", "p2/a.png"):
        put(f"drawn/{name}", BOX)
        put(f"scans/{name}")
    put("notes/readme.txt", "hello")
    found = discover(tmp_path)
    assert ids(found) == ["p1/a", "p1/b", "p2/a"]
    assert found.cases[0].image == tmp_path / "scans/p1/a.png"
    assert found.cases[0].mask == tmp_path / "drawn/p1/a.png"
    assert "few values" in found.layout


def test_mirrored_trees_of_images_alone_are_not_pairs(put, tmp_path):
    for name in ("p1/1.png", "p2/1.png", "p3/1.png"):
        put(name)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "no_pairs"


def test_mirrored_trees_with_a_word_for_masks(put, tmp_path):
    for name in "ab":
        put(f"scans/{name}.png")
        put(f"drawn/{name}_seg.png", BOX)
    assert ids(discover(tmp_path)) == ["a", "b"]


def test_mirrored_trees_refuse_three_folders(put, tmp_path):
    for name in ("scans/a.png", "reader1/a.png", "reader2/a.png"):
        put(name, PHOTO if "scans" in name else BOX)
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "ambiguous_folders"
    assert "--masks" in caught.value.hint


def test_mirrored_trees_refuse_two_folders_of_masks(put, tmp_path):
    put("one/a.png", BOX)
    put("two/a.png", LOW)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "ambiguous_folders"


# Given splits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}/images/a.png", "{}/masks/a.png"),
        ("{}/a.png", "{}/a_mask.png"),
        ("{}/a.png", "{}_masks/a.png"),
        ("{}/a.png", "{}annot/a.png"),
        ("images/{}/a.png", "masks/{}/a.png"),
    ],
)
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_split_folders_state_the_split(put, tmp_path, image, mask, words):
    for word in words:
        put(image.format(word))
        put(mask.format(word), BOX)
    found = discover(tmp_path)
    assert {case.id: case.split for case in found.cases} == {
        f"{words[0]}/a": "train",
        f"{words[1]}/a": "validation",
        f"{words[2]}/a": "test",
    }


def test_split_folders_leave_out_a_part_without_masks(put, tmp_path):
    for name in ("train/images/a.png", "train/masks/a.png", "test/images/b.png"):
        put(name, BOX)
    found = discover(tmp_path)
    assert [case.split for case in found.cases] == ["train"]
    assert "test/ contains no pair" in " ".join(found.notes)


def test_split_folders_need_an_annotated_second_part(put, tmp_path):
    for name in ("train/a.png", "train_masks/a_mask.png", "test/b.png"):
        put(name, BOX)
    found = discover(tmp_path)
    assert ids(found) == ["a"]
    assert found.cases[0].split == ""


def test_split_folders_refuse_two_folders_for_one_part(put, tmp_path):
    for part in ("train", "val", "valid"):
        put(f"{part}/images/a.png")
        put(f"{part}/masks/a.png", BOX)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "ambiguous_folders"


# Tables ------------------------------------------------------------------------------------


def write_rows(path, rows, joint=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=joint).writerows(rows)


@pytest.mark.parametrize(("name", "joint"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t")])
def test_table_with_groups_and_splits(put, tmp_path, name, joint):
    for letter in "abc":
        put(f"x/{letter}.png")
        put(f"y/{letter}_drawn.png", BOX)
    rows = [["Image", "mask", "group", "split", "stain"]]
    rows += [
        ["x/a.png", "y/a_drawn.png", "p1", "train", "H&E"],
        ["x/b.png", "y/b_drawn.png", "p2", "val", ""],
        ["x/c.png", "", "p3", "test", "PAS"],
    ]
    write_rows(tmp_path / name, rows, joint)
    for data in (tmp_path, tmp_path / name):
        found = discover(data)
        assert ids(found) == ["x/a", "x/b"]
        first, second = found.cases
        assert (first.group, first.split, first.metadata) == ("p1", "train", {"stain": "H&E"})
        assert (second.group, second.split) == ("p2", "validation")
        assert found.layout == f"the table {name}"
        assert "1 image has no mask, e.g. c.png" in found.notes[0]


def test_table_of_other_columns_is_no_layout(put, tmp_path):
    put("images/a.png")
    put("masks/a.png", BOX)
    put("patients.csv", "patient,age\n1,40\n")
    assert discover(tmp_path).layout == "images/ next to masks/"
    with pytest.raises(DataError) as error:
        discover(tmp_path / "patients.csv")
    assert error.value.code == "missing_columns"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("image,mask\na.png,m.png\nz.png,m.png\n", "listed_files_missing"),
        ("image,mask\na.png,z.png\n", "listed_files_missing"),
        ("image,mask\n,m.png\n", "listed_files_missing"),
        ("image,mask\na.png,m.png\na.png,m.png\n", "ambiguous_image"),
        ("image,mask,group\na.png,m.png,p\nb.png,m.png,\n", "incomplete_column"),
        ("image,mask,split\na.png,m.png,train\nb.png,m.png,\n", "incomplete_column"),
        ("image,mask,split\na.png,m.png,dev\n", "unknown_split"),
        ("image,mask\na.png,m.png,more\n", "uneven_rows"),
        ("", "empty_table"),
        ("image,mask\n", "empty_table"),
    ],
)
def test_table_with_mistakes_is_refused(put, tmp_path, text, code):
    put("a.png")
    put("b.png")
    put("m.png", BOX)
    with pytest.raises(DataError) as caught:
        discover(put("t.csv", text))
    assert caught.value.code == code
    assert "t.csv" in caught.value.message or code == "ambiguous_image"
    assert caught.value.hint


def test_tables_beside_each_other_are_refused(put, tmp_path):
    put("a.png")
    put("one.csv", "image,mask\na.png,a.png\n")
    put("two.csv", "image,mask\na.png,a.png\n")
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "ambiguous_tables"


def test_table_without_any_mask_is_refused(put):
    put("a.png")
    with pytest.raises(DataError) as error:
        discover(put("t.csv", "image,mask\na.png,\n"))
    assert error.value.code == "no_pairs"


def test_table_of_images_elsewhere_keeps_ids_unique(put, tmp_path):
    for name in ("x/a.png", "y/a.png", "t/a.png"):
        put(name)
    (tmp_path / "t" / "link.png").symlink_to(tmp_path / "t" / "a.png")
    rows = "image,mask\na.png,a.png\nlink.png,a.png\n../x/a.png,a.png\n../y/../y/a.png,a.png\n"
    found = discover(put("t/t.csv", rows))
    root = tmp_path.as_posix().lstrip("/")
    assert ids(found) == sorted(["a", "link", f"{root}/x/a", f"{root}/y/a"])


def test_table_in_parquet_needs_a_package(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError) as caught:
        discover(put("t.parquet", "PAR1"))
    assert caught.value.code == "missing_package"
    assert "pip install pyarrow" in caught.value.hint


# nnU-Net -----------------------------------------------------------------------------------


@pytest.fixture
def nnunet(put, tmp_path):
    for name in ("k_001", "k_002"):
        put(f"imagesTr/{name}_0000.tif")
        put(f"imagesTr/{name}_0001.tif", PHOTO + 100)
        put(f"labelsTr/{name}.tif", BOX // 255)
    facts = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "tumour": 2, "liver": 1, "ignore": 3},
        "file_ending": ".tif",
    }
    put("dataset.json", facts)
    return facts


def test_nnunet_channels_and_classes(nnunet, tmp_path):
    found = discover(tmp_path)
    assert ids(found) == ["k_001", "k_002"]
    assert found.class_names == ("background", "liver", "tumour")
    assert (found.classes.values, found.classes.ignore) == ((0, 1, 2), 3)
    image = read_image(found.cases[0])
    assert image.shape == (2, 8, 8)
    assert image[1, 0, 0] == 100


def test_nnunet_test_images_with_labels_are_the_test_part(nnunet, put, tmp_path):
    for channel in ("0000", "0001"):
        put(f"imagesTs/k_003_{channel}.tif")
    put("labelsTs/k_003.tif", BOX)
    assert [case.split for case in discover(tmp_path).cases] == ["train", "train", "test"]


def test_nnunet_of_the_first_version(nnunet, put, tmp_path):
    put(
        "dataset.json", {"labels": {"0": "background", "1": "cell"}, "modality": {"0": "a", "1": 0}}
    )
    assert discover(tmp_path).class_names == ("background", "cell")


def test_nnunet_regions_the_largest_first(nnunet, put, tmp_path):
    put("dataset.json", nnunet | {"labels": {"background": 0, "core": 2, "whole": [1, 2]}})
    found = discover(tmp_path)
    assert found.class_names is None
    assert found.classes.regions == {"whole": (1, 2), "core": (2,)}


def test_nnunet_with_mistakes_is_refused(nnunet, put, tmp_path):
    (tmp_path / "imagesTr/k_002_0000.tif").unlink()
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "missing_channels"
    put("imagesTr/k_002_0000.tif", PHOTO[:4])
    with pytest.raises(DataError) as error:
        read_image(discover(tmp_path).cases[1])
    assert error.value.code == "channel_size_mismatch"
    put("dataset.json", nnunet | {"labels": {"background": 0, "x": "one"}})
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "invalid_dataset_json"
    put("dataset.json", "{")
    with pytest.raises(DataError, match=r"dataset\.json cannot be read"):
        discover(tmp_path)


# One folder per class ----------------------------------------------------------------------


def test_class_folders_by_hand(put, tmp_path):
    for name in "ab":
        put(f"images/{name}.png")
    put("masks/road/a.png", BOX)
    put("masks/car/a.png", LOW)
    put("masks/road/b.png", BOX)
    found = discover(tmp_path)
    assert found.class_names == ("background", "car", "road")
    first, second = found.cases
    # Boxes of 9 pixels share one, which the later class has.
    assert np.bincount(codes(first).ravel()).tolist() == [64 - 17, 8, 9]
    assert np.bincount(codes(second).ravel()).tolist() == [64 - 9, 0, 9]


def test_class_folders_within_given_parts(put, tmp_path):
    for part in ("train", "val"):
        put(f"images/{part}/a.png")
        put(f"masks/car/{part}/a.png", BOX)
    assert [case.split for case in discover(tmp_path).cases] == ["train", "validation"]


def test_class_folders_refuse_masks_of_several_values(put, tmp_path):
    put("images/a.png")
    path = put("masks/road/a.png", PHOTO)
    with pytest.raises(DataError, match=r"several values besides 0.* 1 and 63") as caught:
        codes(discover(tmp_path).cases[0])
    assert str(path) in caught.value.message


def test_class_folders_refuse_masks_of_different_sizes(put, tmp_path):
    put("images/a.png")
    put("masks/car/a.png", BOX)
    put("masks/road/a.png", BOX[:4])
    with pytest.raises(DataError) as error:
        codes(discover(tmp_path).cases[0])
    assert error.value.code == "mask_size_mismatch"
    assert "road/a.png has 4 × 8 pixels" in error.value.message


def test_class_folders_refuse_two_masks_of_one_class(put, tmp_path):
    put("images/a.png")
    put("masks/car/a.png", BOX)
    put("masks/car/a_mask.png", BOX)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "ambiguous_mask"


# One mask per object -----------------------------------------------------------------------


def test_object_folders_by_hand(put, tmp_path):
    for name, count in (("n1", 2), ("n2", 1), ("n3", 0)):
        put(f"{name}/images/{name}.png")
        for index in range(count):
            put(f"{name}/masks/{index}.png", [BOX, LOW][index])
    found = discover(tmp_path)
    assert ids(found) == ["n1", "n2"]
    assert found.classes.are_objects
    assert isinstance(found.cases[0].mask, MaskParts)
    assert np.bincount(codes(found.cases[0]).ravel()).tolist() == [64 - 17, 8, 9]
    assert "1 image has no mask, e.g. n3.png" in found.notes[0]


def test_object_folders_with_more_than_255_objects(put, tmp_path):
    path = put("x/images/x.png")
    masks = [put(f"m/{n}.png", BOX) for n in range(2)]
    mask = MaskParts((masks[0], masks[1]), (1, 300))
    assert path.exists()
    assert read_annotation(mask).codes.max() == 300
    assert read_annotation(mask).encoding.dtype == "uint16"


def test_object_folders_of_one_mask_are_ordinary_masks(put, tmp_path):
    for name in ("n1", "n2"):
        put(f"{name}/images/{name}.png")
        put(f"{name}/masks/drawn.png", BOX)
    found = discover(tmp_path)
    assert found.classes is None
    assert found.cases[0].mask == tmp_path / "n1/masks/drawn.png"


# Stacks ------------------------------------------------------------------------------------


def test_suffixed_masks_of_volumes(put, tmp_path):
    put("train-volume.tif", np.stack([PHOTO] * 3))
    put("train-labels.tif", np.stack([BOX] * 3))
    put("test-volume.tif", np.stack([PHOTO] * 3))
    found = discover(tmp_path)
    assert ids(found) == ["train-volume"]
    assert read_image(found.cases[0]).shape == (1, 3, 8, 8)
    assert codes(found.cases[0]).shape == (3, 8, 8)
    assert "1 image has no mask, e.g. test-volume.tif" in found.notes[0]


def test_suffixed_masks_beside_names_with_an_image_word(put, tmp_path):
    for name in ("a_image.png", "b_image.png"):
        put(name)
    for name in ("a_mask.png", "b_label.png"):
        put(name, BOX)
    assert ids(discover(tmp_path)) == ["a_image", "b_image"]


def test_suffixed_masks_ignore_an_ambiguous_image_word(put, tmp_path):
    for name in ("a_image.png", "a_raw.png"):
        put(name)
    put("a_mask.png", BOX)
    with pytest.raises(DataError) as error:
        discover(tmp_path)
    assert error.value.code == "no_pairs"


# COCO --------------------------------------------------------------------------------------

SQUARE = [[2, 2, 5, 2, 5, 5, 2, 5]]
"""Polygon (x, y) around rows and columns 2 to 4."""


def coco_file(**changes):
    rle = {"size": [8, 8], "counts": [0, 8, 56]}  # The first column.
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 8, "width": 8},
            {"id": 9, "file_name": "b.png", "height": 8, "width": 8},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 30, "segmentation": SQUARE},
            {"id": 2, "image_id": 7, "category_id": 10, "segmentation": rle, "iscrowd": 1},
        ],
        "categories": [
            {"id": 5, "name": "unused"},
            {"id": 30, "name": "nucleus"},
            {"id": 10, "name": "edge"},
        ],
    } | changes


def test_coco_polygons_and_run_lengths(put, tmp_path):
    path = put("labels.json", coco_file())
    for name in "abc":
        put(f"{name}.png")
    for found in (discover(tmp_path), discover(path), discover(tmp_path, path)):
        assert found.class_names == ("background", "nucleus", "edge")
        assert found.classes.values == (0, 2, 3)
        first, second = found.cases
        assert first.mask == CocoMask(path, 7)
        expected = np.zeros((8, 8), np.uint8)
        expected[2:5, 2:5], expected[:, 0] = 2, 3
        assert (codes(first) == expected).all()
        assert not codes(second).any()
        assert "1 image has no mask, e.g. c.png" in found.notes[0]


def test_coco_compressed_run_lengths(put):
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(BOX // 255))
    runs = {"size": runs["size"], "counts": runs["counts"].decode()}
    entry = {"id": 1, "image_id": 7, "category_id": 30, "segmentation": runs}
    path = put("labels.json", coco_file(annotations=[entry]))
    assert (read_annotation(CocoMask(path, 7)).codes == BOX // 255 * 2).all()


@given(arrays(np.uint8, (7, 5), elements=st.integers(0, 1)))
def test_coco_run_lengths_equal_pycocotools(drawn):
    from pycocotools import mask as coco

    text = coco.encode(np.asfortranarray(drawn))["counts"].decode()
    runs = np.repeat(np.arange(len(_unpack_counts(text))) % 2, _unpack_counts(text))
    assert (drawn == runs.reshape(5, 7).T).all()


def test_coco_image_that_is_no_longer_listed(put):
    with pytest.raises(DataError, match="image 99 is no longer listed"):
        read_annotation(CocoMask(put("labels.json", coco_file()), 99))


def test_coco_files_of_several_parts(put, tmp_path):
    for part in ("train", "val"):
        put(f"annotations/instances_{part}2017.json", coco_file())
        for name in "ab":
            put(f"{part}2017/{name}.png")
    found = discover(tmp_path)
    assert {case.id: case.split for case in found.cases} == {
        "train/a": "train",
        "train/b": "train",
        "validation/a": "validation",
        "validation/b": "validation",
    }
    assert found.class_names == ("background", "nucleus", "edge")


@pytest.mark.parametrize("name", ["s\\{}.png", "C:\\data\\s\\{}.png", "/data/images/s/{}.png"])
def test_coco_names_with_folders_of_another_machine(put, tmp_path, name):
    entries = coco_file()["images"]
    images = [one | {"file_name": name.format(one["file_name"][0])} for one in entries]
    put("annotations/instances_default.json", coco_file(images=images))
    for stem in "ab":
        put(f"images/s/{stem}.png")
        put(f"images/t/{stem}.png")
    assert [case.image.parent.name for case in discover(tmp_path).cases] == ["s", "s"]


def test_coco_images_that_are_missing_are_left_out_with_a_warning(put, tmp_path):
    put("labels.json", coco_file())
    put("b.png")
    found = discover(tmp_path)
    assert ids(found) == ["b"]
    assert "1 of the 2 images" in found.notes[0]


def test_coco_image_with_a_box_without_outline_is_left_out(put, tmp_path):
    boxes = [{"id": 3, "image_id": 9, "category_id": 30, "bbox": [1, 1, 2, 2], "segmentation": []}]
    path = put("labels.json", coco_file(annotations=coco_file()["annotations"] + boxes))
    put("a.png")
    put("b.png")
    found = discover(tmp_path)
    assert ids(found) == ["a"]
    assert len(found.notes) == 1
    everywhere = [one | {"image_id": key} for one in boxes for key in (7, 9)]
    put(path.name, coco_file(annotations=everywhere))
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "shapes_without_area"


def test_coco_files_of_different_images_are_joined(put, tmp_path):
    first, second = coco_file()["images"]
    put("one.json", coco_file(images=[first]))
    other = [one | {"image_id": 9} for one in coco_file()["annotations"]]
    put("two.json", coco_file(images=[second], annotations=other))
    for name in "abc":
        put(f"{name}.png")
    found = discover(tmp_path)
    assert ids(found) == ["a", "b"]
    assert "1 image has no mask" in found.notes[0]
    put("two.json", coco_file(images=[first]))
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "ambiguous_coco_files"


def test_coco_in_folders_that_state_the_split(put, tmp_path):
    for part in ("train", "valid"):
        put(f"{part}/_annotations.coco.json", coco_file())
        for name in "ab":
            put(f"{part}/{name}.png")
    assert [case.split for case in discover(tmp_path).cases] == ["train"] * 2 + ["validation"] * 2
    categories = coco_file()["categories"]
    put("valid/_annotations.coco.json", coco_file(categories=[*categories[1:], categories[0]]))
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "conflicting_class_names"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"categories": None}, None),
        ({"images": [{"id": 7, "file_name": "a.png"}], "annotations": []}, None),
        (
            {"images": [i | {"height": 10**9, "width": 10**9} for i in coco_file()["images"]]},
            None,
        ),
        ({"images": coco_file()["images"] + coco_file()["images"][:1]}, None),
        (
            {"images": [i | {"file_name": "a.png"} for i in coco_file()["images"]]},
            "ambiguous_image",
        ),
        (
            {"images": [i | {"file_name": f"{i['id']}.png"} for i in coco_file()["images"]]},
            "coco_images_missing",
        ),
        (
            {"images": [i | {"file_name": "/no/a.png"} for i in coco_file()["images"]]},
            "ambiguous_image",
        ),
        (
            {"annotations": [{"id": 3, "image_id": 8, "category_id": 30}]},
            None,
        ),
        (
            {"annotations": [{"id": 3, "image_id": 7, "category_id": 1}]},
            None,
        ),
        ({"annotations": []}, "coco_invalid"),
        ({"categories": [{"id": k, "name": "same"} for k in (30, 10)]}, "coco_invalid"),
    ],
)
def test_coco_file_with_mistakes_is_refused(put, tmp_path, changes, code):
    path = put("labels.json", coco_file(**changes))
    put("a.png")
    put("b.png")
    for data in (tmp_path, path):
        with pytest.raises(DataError) as caught:
            discover(data)
        assert code in (None, caught.value.code)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ([], "annotation 1 of image 7 has no segmentation"),
        ([[1, 2, 3, 4]], "cannot be drawn: a polygon has 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon has 7 numbers"),
        ([[1, 2, 3, 4, 5, 1e9]], r"a polygon reaches to 1e\+09"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon reaches to nan"),
        ("text", "cannot be drawn"),
        (
            {"size": [4, 4], "counts": [0, 16]},
            r"its size is \[4, 4\], but that of the image is \[8, 8\]",
        ),
        (
            {"size": [8, 8], "counts": [0, 16]},
            "its runs have 16 pixels in total, but the image has 64",
        ),
        ({"size": [8, 8], "counts": [70, -6]}, "a run has a negative length"),
        ({"size": [8, 8], "counts": "b0"}, "its runs have 18 pixels"),
        ({"size": [8, 8], "counts": "bo"}, "end in the middle"),
        ({"size": [8, 8], "counts": "b ~"}, "' ' cannot occur in run lengths"),
        ({"size": [8, 8]}, "cannot be drawn: 'counts'"),
    ],
)
def test_coco_annotations_that_cannot_be_drawn(put, drawn, message):
    entry = {"id": 1, "image_id": 7, "category_id": 30, "segmentation": drawn}
    path = put("labels.json", coco_file(annotations=[entry]))
    with pytest.raises(DataError, match=message) as caught:
        read_annotation(CocoMask(path, 7))
    assert str(path) in caught.value.message


def test_coco_without_its_package(put, monkeypatch):
    path = put("labels.json", coco_file())
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(DataError, match="needs the package pycocotools") as caught:
        read_annotation(CocoMask(path, 7))
    assert "ushape[coco]" in caught.value.hint


# Names of classes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "values"),
    [
        ("classes.txt", "background\ncell\n\n", None),
        ("classes.json", ["background", "cell"], None),
        ("classes.json", {"255": "cell", "0": "background"}, (0, 255)),
        ("classes.csv", "value,name\n255,cell\n0,background\n", (0, 255)),
    ],
)
def test_class_names_beside_the_data(put, tmp_path, name, content, values):
    put("images/a.png")
    put("masks/a.png", BOX)
    put(name, content)
    found = discover(tmp_path)
    assert found.class_names == ("background", "cell")
    assert found.classes.values == values


def test_class_names_are_optional(put, tmp_path):
    put("images/a.png")
    put("masks/a.png", BOX)
    assert discover(tmp_path).class_names is None


def test_dicom_folder_is_a_volume_if_a_mask_has_its_name(tmp_path):
    for name in ("p1", "p2"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        save_series(tmp_path / "scans" / name / "series")
        volume = np.ones((5, 6, 8), np.uint8)
        (tmp_path / "masks").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "masks" / f"{name}_mask.tif", volume)
    found = discover(tmp_path / "scans", tmp_path / "masks")
    assert [case.id for case in found.cases] == ["p1", "p2"]
    assert read_image(found.cases[0]).shape == (1, 5, 6, 8)
    assert found.notes == []


def test_dicom_slices_with_masks_remain_images(tmp_path):
    save_series(tmp_path / "images", places=(0, 1))
    (tmp_path / "masks").mkdir()
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(np.ones((6, 8), np.uint8)).save(tmp_path / "masks" / f"{path.stem}.png")
    assert [case.image.suffix for case in discover(tmp_path).cases] == [".dcm", ".dcm"]
