"""XML files of CVAT."""

import numpy as np
import pytest

from ushape.errors import DataError
from ushape.io.annotations.cvat import read_cvat
from ushape.io.annotations.shapes import draw_shapes

IMAGE = '<image id="0" name="sub\\a.png" width="20" height="10">{}</image>'


def save(tmp_path, inside, start="<?xml version='1.0'?>"):
    path = tmp_path / "annotations.xml"
    path.write_text(f"{start}<annotations>{inside}</annotations>")
    return path


@pytest.mark.parametrize(
    ("element", "area"),
    [
        ('<polygon label="cell" points="2.0,2.0;6.0,2.0;6.0,5.0;2.0,5.0"/>', 12),
        # 1 off, 2 on, 1 off, 1 on; the last run, 1 off, is left out.
        ('<mask label="cell" rle="1, 2, 1, 1" left="3" top="2" width="3" height="2"/>', 3),
        (
            '<ellipse label="cell" cx="10" cy="5" rx="6" ry="3"/>',
            56,
        ),  # Rows of 12, 10 and 6 pixels, twice.
        ('<ellipse label="cell" cx="10" cy="5" rx="3" ry="6" rotation="90"/>', 56),
    ],
)
def test_cvat_shapes_by_hand(tmp_path, element, area):
    found = read_cvat(save(tmp_path, IMAGE.format(element)))
    shapes = found["sub/a.png"]
    assert shapes.size == (10, 20)
    codes = draw_shapes(shapes.shapes, shapes.size, {"cell": 1}).codes
    assert codes.sum() == area


def test_cvat_mask_is_placed_by_its_box(tmp_path):
    element = '<mask label="cell" rle="1, 2, 1, 1" left="3" top="2" width="3" height="2"/>'
    shapes = read_cvat(save(tmp_path, IMAGE.format(element)))["sub/a.png"]
    codes = draw_shapes(shapes.shapes, shapes.size, {"cell": 1}).codes
    assert np.argwhere(codes).tolist() == [[2, 4], [2, 5], [3, 4]]


def test_cvat_shapes_are_ordered_by_z_order(tmp_path):
    element = '<polygon label="{}" z_order="{}" points="1,1;2,1;2,2"/>'
    inside = element.format("over", 1) + element.format("under", 0)
    shapes = read_cvat(save(tmp_path, IMAGE.format(inside)))["sub/a.png"]
    assert [one.label for one in shapes.shapes] == ["under", "over"]


def test_cvat_boxes_have_no_area(tmp_path):
    box = '<box label="cell" xtl="1" ytl="1" xbr="3" ybr="3"/>'
    (one,) = read_cvat(save(tmp_path, IMAGE.format(box)))["sub/a.png"].shapes
    assert one.area is None


@pytest.mark.parametrize(
    ("inside", "start", "code"),
    [
        ("<track/>", "", "unsupported_annotations"),
        ("<image>", "", "shapes_invalid"),
        (IMAGE.format("") * 2, "", "shapes_invalid"),
        (IMAGE.replace("20", "0").format(""), "", "shapes_invalid"),
        (IMAGE.format('<polygon label="a" points="1,2;3"/>'), "", "shapes_invalid"),
        (IMAGE.format('<polygon label="a" points="1;2;3"/>'), "", "shapes_invalid"),
        (IMAGE.format(f'<mask label="a" rle="{10**30}" left="0" top="0" width="2" height="2"/>'),
         "", "shapes_invalid"),
        (IMAGE.format('<mask label="a" rle="9" left="0" top="0" width="2" height="2"/>'), "",
         "shapes_invalid"),
        ("", '<!DOCTYPE a [<!ENTITY b "b">]>', "shapes_invalid"),
    ],
)  # fmt: skip
def test_cvat_file_with_mistakes_is_refused(tmp_path, inside, start, code):
    with pytest.raises(DataError) as caught:
        read_cvat(save(tmp_path, inside, start))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("", None),
        ('group_id=""', None),
        ('group_id="0"', None),
        ('group_id="4"', "4"),
        ('group_id="left"', "left"),
    ],
)
def test_cvat_group_is_a_number_or_text(tmp_path, stated, expected):
    element = f'<polygon label="cell" points="1,1;2,1;2,2" {stated}/>'
    (one,) = read_cvat(save(tmp_path, IMAGE.format(element)))["sub/a.png"].shapes
    assert one.group == expected
