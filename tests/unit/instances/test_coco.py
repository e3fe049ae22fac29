"""COCO files, read by pycocotools and by ushape."""

import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco
from scipy import ndimage

from ushape.instances.coco import write_coco
from ushape.instances.contours import ClassStyle, trace_outlines
from ushape.instances.label import Objects, label_objects
from ushape.instances.properties import measure_table
from ushape.io.annotations.coco import draw_coco
from ushape.types import CocoMask

NAMES = ("background", "cell", "debris")
STYLES = [ClassStyle(name, (0, 0, 0)) for name in NAMES]


def written(objects, probabilities=None):
    file, table = io.BytesIO(), measure_table(objects, NAMES, probabilities=probabilities)
    outlines = trace_outlines(objects)
    write_coco(file, objects, outlines, STYLES, table=table, image_name='a "b"/é.png')
    return file.getvalue().decode()


def drawn(segmentation, shape):
    runs = coco.frPyObjects(segmentation, *shape)
    return coco.decode(coco.merge(runs) if isinstance(runs, list) else runs).astype(bool)


def test_write_coco_by_hand():
    labels = np.zeros((6, 9), np.int32)
    labels[1:4, 1:4], labels[2, 2] = 1, 0  # A ring.
    labels[1:3, 4:6] = 2  # Touches the ring.
    objects = Objects(labels=labels, classes=np.array([1, 2], np.uint8))
    shares = {1: np.full(labels.shape, 0.75), 2: np.full(labels.shape, 0.5)}
    found = json.loads(written(objects, shares))
    assert found["images"] == [{"id": 1, "file_name": 'a "b"/é.png', "height": 6, "width": 9}]
    assert found["categories"] == [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}]
    ring, square = found["annotations"]
    # Down the columns of 6 pixels: 7 before the ring, 3, 3 to the next column, 1, hole, 1, ...
    assert ring["segmentation"] == {"size": [6, 9], "counts": [7, 3, 3, 1, 1, 1, 3, 3, 32]}
    assert square["segmentation"] == [[4, 1, 6, 1, 6, 3, 4, 3]]
    assert (ring["area"], ring["bbox"], ring["category_id"], ring["score"]) == (
        8,
        [1, 1, 3, 3],
        1,
        0.75,
    )
    assert (square["id"], square["image_id"], square["iscrowd"]) == (2, 1, 0)
    assert "score" not in json.loads(written(objects))["annotations"][0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_write_coco_keeps_each_pixel_of_touching_objects(tmp_path):
    rng = np.random.default_rng(0)
    for smooth in (0, 1, 3):
        noise = rng.normal(size=(3, 50, 40))
        fields = ndimage.gaussian_filter(noise, (0, smooth, smooth))
        objects = label_objects(fields.argmax(axis=0).astype(np.uint8))
        text = written(objects)
        for entry in json.loads(text)["annotations"]:
            mask = objects.labels == entry["id"]
            assert np.array_equal(drawn(entry["segmentation"], mask.shape), mask)
            assert entry["area"] == mask.sum()
            assert entry["bbox"] == coco.toBbox(coco.encode(np.asfortranarray(mask))).tolist()
        path = tmp_path / f"{smooth}.json"
        path.write_text(text)
        found = draw_coco(CocoMask(path, 1))
        assert np.array_equal(found.codes, np.append(0, objects.classes)[objects.labels])
        assert np.array_equal(found.instances.numbers, objects.labels)


def test_write_coco_of_nothing_and_of_an_object_that_fills_the_image():
    assert json.loads(written(label_objects(np.zeros((4, 5), np.uint8))))["annotations"] == []
    (entry,) = json.loads(written(label_objects(np.ones((4, 5), np.uint8))))["annotations"]
    assert entry["segmentation"] == [[0, 0, 5, 0, 5, 4, 0, 4]]
