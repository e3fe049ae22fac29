"""Files of LabelMe."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from ushape.errors import DataError
from ushape.io.annotations.labelme import read_labelme
from ushape.io.annotations.shapes import draw_shapes


def save(path, *shapes, **changes):
    entries = [
        {"label": "cell", "shape_type": kind, "points": p, **more} for kind, p, more in shapes
    ]
    values = {"shapes": entries, "imagePath": "a.png", "imageHeight": 20, "imageWidth": 20}
    path.write_text(json.dumps(values | changes))
    return path


def png(inside):
    file = io.BytesIO()
    Image.fromarray(inside.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("kind", "points", "more", "area"),
    [
        ("polygon", [[2, 2], [6, 2], [6, 5], [2, 5]], {}, 12),
        ("rectangle", [[6, 5], [2, 2]], {}, 12),
        ("circle", [[10, 10], [10, 15]], {}, 80),  # Rows of 10, 10, 8, 8 and 4, twice.
        ("mask", [[3, 4], [5, 5]], {"mask": png(np.array([[1, 0, 1], [1, 1, 1]]))}, 5),
    ],
)
def test_labelme_shapes_by_hand(tmp_path, kind, points, more, area):
    found = read_labelme(save(tmp_path / "a.json", (kind, points, more)))
    codes = draw_shapes(found.shapes, found.size, {"cell": 1}).codes
    assert found.size == (20, 20)
    assert codes.sum() == area


@pytest.mark.parametrize("kind", ["point", "line", "linestrip", "points"])
def test_labelme_points_and_lines_have_no_area(tmp_path, kind):
    found = read_labelme(save(tmp_path / "a.json", (kind, [[1, 1], [3, 3]], {})))
    assert [one.area for one in found.shapes] == [None]


@pytest.mark.parametrize(
    "entry",
    [
        ("polygon", [[1, 2, 3]], {}),
        ("polygon", [[1], [2], [3], [4], [5], [6]], {}),
        ("polygon", [[1, 2], [3, 10**400], [5, 6]], {}),
        ("polygon", "points", {}),
        ("rectangle", [[1, 2]], {}),
        ("mask", [[3, 4], [9, 9]], {"mask": png(np.ones((2, 2)))}),
        ("mask", [[3, 4], [4, 5]], {"mask": "no base64"}),
    ],
)
def test_labelme_entry_that_cannot_be_read_is_named(tmp_path, entry):
    with pytest.raises(DataError, match="shape 1") as caught:
        read_labelme(save(tmp_path / "a.json", entry))
    assert caught.value.code == "shapes_invalid"


def test_labelme_size_that_is_impossible_is_an_error(tmp_path):
    with pytest.raises(DataError) as caught:
        read_labelme(save(tmp_path / "a.json", imageHeight=-1))
    assert caught.value.code == "shapes_invalid"


@pytest.mark.parametrize(
    ("group", "expected"), [(None, None), ("", None), (0, "0"), (3, "3"), ("left", "left")]
)
def test_labelme_group_is_a_number_or_text(tmp_path, group, expected):
    shape = ("rectangle", [[2, 2], [6, 5]], {"group_id": group})
    (found,) = read_labelme(save(tmp_path / "a.json", shape)).shapes
    assert found.group == expected
