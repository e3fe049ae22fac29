import json

import numpy as np
import pytest
from PIL import Image

from ushape.data.discovery import discover
from ushape.data.other_labels import find_other_labels


@pytest.fixture
def data(tmp_path):
    """Folder of four images with masks of nine squares."""
    for number in range(4):
        ids = np.kron(np.arange(9, dtype=np.uint8).reshape(3, 3), np.ones((8, 8), np.uint8))
        ids = ids * (np.indices((24, 24)) % 8 > 1).all(axis=0).astype(np.uint8)
        write(tmp_path, "images", number, ids * 20 + number)
        write(tmp_path, "masks", number, (ids > 0) * np.uint8(255))
    return tmp_path


def write(folder, kind, number, array):
    (folder / kind).mkdir(exist_ok=True)
    Image.fromarray(array).save(folder / kind / f"n{number}.png")


def found(data):
    return find_other_labels(data, discover(data).cases)


def test_folder_without_other_labels(data):
    (data / "notes.json").write_text("{}")
    assert found(data) == ()


def test_numbers_of_objects_are_mentioned_with_their_use(data):
    for number in range(4):
        mask = np.asarray(Image.open(data / "images" / f"n{number}.png")) // 20
        write(data, "instances", number, mask)
    (other,) = found(data)
    assert other.text == "instances/ contains numbers of the individual objects of 4 images."
    assert f"--masks {data / 'instances'}" in other.use


def test_masks_of_a_second_annotator_are_mentioned(data):
    for number in range(4):
        mask = np.asarray(Image.open(data / "masks" / f"n{number}.png"))
        write(data, "second", number, mask)
    (other,) = found(data)
    assert other.text == "second/ contains other masks of 4 images."


def test_folders_of_images_or_of_other_names_are_not_mentioned(data):
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 255, (24, 24), dtype=np.uint8)
        write(data, "raw_copies", number, noise)
        write(data, "other", number + 10, np.eye(24, dtype=np.uint8))
    assert found(data) == ()


def test_coco_files_are_mentioned(data):
    content = {"images": [], "categories": [], "annotations": [{"segmentation": []}]}
    (data / "objects.json").write_text(json.dumps(content))
    (other,) = found(data)
    assert f"--masks {data / 'objects.json'}" in other.use
