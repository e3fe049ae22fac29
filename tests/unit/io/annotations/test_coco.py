import json
import math
import tracemalloc

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.io.annotations import read_annotation
from ushape.io.annotations.coco import read_coco
from ushape.types import CocoMask


@pytest.fixture
def coco(tmp_path):
    """Writes a COCO file of an image of 2 x 3 pixels, and returns its path."""

    def write(*annotations, **changes):
        content = {
            "images": [{"id": 1, "file_name": "x.png", "height": 2, "width": 3}],
            "categories": [{"id": 5, "name": "cell"}, {"id": 3, "name": "nucleus"}],
            "annotations": [{"id": n, "image_id": 1, **a} for n, a in enumerate(annotations)],
        }
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(content | changes))
        return path

    return write


def runs(*counts):
    return {"segmentation": {"counts": list(counts), "size": [2, 3]}}


def test_read_annotation_decodes_coco_runs_down_the_columns(coco):
    # Columns: (0, 0), (1, 0), (0, 1), ...; one pixel off, three on, two off.
    path = coco({"category_id": 5, **runs(1, 3, 2)}, {"category_id": 3, **runs(3, 1, 2)})
    assert read_annotation(CocoMask(path, 1)).codes.tolist() == [[0, 1, 0], [1, 2, 0]]


def test_read_annotation_draws_coco_polygons(coco):
    pytest.importorskip("pycocotools")
    path = coco({"category_id": 5, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]})
    assert read_annotation(CocoMask(path, 1)).codes.tolist() == [[1, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    "annotation",
    [
        {"category_id": 9, **runs(6)},
        {"category_id": 5},
        {"category_id": 5, **runs(1, 2)},
        {"category_id": 5, "segmentation": [[0, 0, 1, 1]]},
        {"category_id": 5, "segmentation": {"counts": "\x00", "size": [2, 3]}},
    ],
    ids=["category", "no segmentation", "length", "two points", "text"],
)
def test_read_annotation_refuses_invalid_coco_annotations(annotation, coco):
    with raises_code(DataError, "coco_invalid"):
        read_annotation(CocoMask(coco(annotation), 1))


def test_read_coco_lists_categories_and_the_used_ones(coco):
    found = read_coco(coco({"category_id": 3, **runs(6)}))
    assert found.categories == {5: "cell", 3: "nucleus"}
    assert found.used == {3}


@pytest.mark.parametrize(
    "images",
    [
        None,
        [{"id": 1}],
        2 * [{"id": 1, "file_name": "x"}],
        [{"id": 1, "file_name": "x", "height": math.inf, "width": 3}],
    ],
)
def test_read_coco_refuses_incomplete_files(images, coco):
    with raises_code(DataError, "coco_invalid"):
        read_coco(coco(images=images))


def test_read_coco_refuses_more_annotations_than_pixels(coco):
    read_coco(coco(*6 * [{"category_id": 3, **runs(6)}]))
    with raises_code(DataError, "coco_invalid") as error:
        read_coco(coco(*7 * [{"category_id": 3, **runs(6)}]))
    assert "7 annotations" in error.value.message


def test_read_coco_refuses_missing_files_and_other_formats(tmp_path):
    with raises_code(DataError, "file_not_found"):
        read_coco(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with raises_code(DataError, "json_invalid"):
        read_coco(tmp_path / "x.json")


def test_read_annotation_numbers_coco_annotations_except_for_crowds(coco):
    path = coco(
        {"category_id": 5, **runs(0, 3, 3)},  # Three pixels, of which the next one covers one.
        {"category_id": 5, **runs(2, 2, 2)},
        {"category_id": 3, "iscrowd": 1, **runs(5, 1)},
    )
    found = read_annotation(CocoMask(path, 1))
    assert found.codes.tolist() == [[1, 1, 0], [1, 1, 2]]
    assert found.instances.numbers.tolist() == [[1, 2, 0], [1, 2, 0]]
    assert (found.instances.stated, found.instances.overlap_px) == (2, 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_coco_runs_of_random_pixels_are_drawn_where_they_are(share, coco):
    inside = np.random.default_rng(1).random((5, 7)) < share
    inside[:, :2] = inside[:, -1:] = False
    inside[1:3, 4] = True
    counts, was_on = [0], False
    for is_on in inside.T.ravel().tolist():
        counts += [0] * (is_on != was_on)
        counts[-1] += 1
        was_on = is_on
    counts[1:2] = [1, 0, counts[1] - 1]  # The first object pixels are two runs without a gap.
    image = {"id": 1, "file_name": "x.png", "height": 5, "width": 7}
    drawn = {"segmentation": {"counts": counts, "size": [5, 7]}}
    found = read_annotation(CocoMask(coco({"category_id": 5, **drawn}, images=[image]), 1))
    assert (found.codes > 0).tolist() == inside.tolist()
    assert found.instances.numbers.tolist() == inside.astype(int).tolist()


def test_drawing_a_large_coco_annotation_needs_little_memory(coco):
    image = {"id": 1, "file_name": "x.png", "height": 2000, "width": 2000}
    drawn = {"segmentation": {"counts": [2000, 4_000_000 - 2000], "size": [2000, 2000]}}
    path = coco({"category_id": 5, **drawn}, images=[image])
    read_coco(path)
    tracemalloc.start()
    read_annotation(CocoMask(path, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 4_000_000  # Codes and object numbers alone take five bytes per pixel.
