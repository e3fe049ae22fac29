"""Outlines, patches and run lengths, drawn on small grids that are counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ushape.io.annotations.shapes import (
    IGNORE_LABEL,
    Outline,
    PixelPatch,
    Runs,
    Shape,
    draw_shapes,
    winding_numbers,
)
from ushape.io.rle import encode_runs

SIZE = (6, 8)


def outline(*points, **changes):
    return Outline(points=np.array(points, dtype=np.float64).reshape(-1, 2), **changes)


def shape(area, label="cell", place="shape 1"):
    return Shape(label=label, place=place, area=area)


def draw(*shapes, size=SIZE, **codes):
    drawn = draw_shapes(shapes, size, codes or {"cell": 1})
    return drawn.codes, list(drawn.shape_remarks)


def test_outline_holds_the_pixels_whose_centers_are_inside():
    codes, remarks = draw(shape(outline((1, 2), (4, 2), (4, 5), (1, 5))))
    expected = np.zeros(SIZE, int)
    expected[2:5, 1:4] = 1
    assert codes.tolist() == expected.tolist()
    assert remarks == []


def test_outline_in_fractions_of_the_image():
    codes, _ = draw(shape(outline((0, 0), (0.5, 0), (0.5, 1), (0, 1), unit="fraction")))
    assert codes.sum(axis=1).tolist() == [4] * 6


def test_outline_is_cut_at_the_border_of_the_image():
    codes, _ = draw(shape(outline((-1, -1), (2, -1), (2, 2), (-1, 2))))
    assert codes.sum() == 4


def test_outline_that_reaches_far_beyond_the_image_is_an_error():
    with pytest.raises(ValueError, match=r"shape 1 .*outside"):
        draw(shape(outline((0, 0), (80, 0), (80, 6))))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outline_with_a_coordinate_that_is_not_finite_is_an_error(value):
    with pytest.raises(ValueError, match="finite"):
        draw(shape(outline((0, 0), (value, 0), (3, 3))))


def test_outline_of_two_points_draws_nothing_and_says_so():
    codes, remarks = draw(shape(outline((0, 0), (3, 3))))
    assert not codes.any()
    assert len(remarks) == 1


def test_outline_that_runs_twice_around_an_area_says_so():
    square = [(1, 1), (7, 1), (7, 5), (1, 5)]
    inner = [(1, 1), (4, 1), (4, 4), (1, 4)]
    codes, remarks = draw(shape(outline(*square, *inner)))
    assert codes.sum() == 24 - 9  # The area that is enclosed twice is outside.
    assert "9 pixels" in remarks[0]


def test_outline_with_a_hole_in_the_other_direction_is_no_overlap():
    hole = [(1, 1), (1, 4), (4, 4), (4, 1)]
    codes, remarks = draw(shape(outline((1, 1), (7, 1), (7, 5), (1, 5), *hole)))
    assert codes.sum() == 24 - 9
    assert remarks == []


@given(arrays(np.float64, (5, 2), elements=st.floats(-3, 11, width=32)))
def test_winding_number_is_that_of_each_center(points):
    def turns(y, x):
        total = 0
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                total += 1 if y1 > y0 else -1
        return total

    top, left, found = winding_numbers(points, SIZE)
    whole = np.zeros(SIZE, int)
    whole[top : top + found.shape[0], left : left + found.shape[1]] = found
    expected = [[turns(y + 0.5, x + 0.5) for x in range(SIZE[1])] for y in range(SIZE[0])]
    assert whole.tolist() == expected


def test_later_shapes_cover_earlier_ones():
    whole = outline((0, 0), (8, 0), (8, 6), (0, 6))
    part = PixelPatch(top=1, left=2, inside=np.array([[True, False], [True, True]]))
    codes, _ = draw(shape(whole), shape(part, "debris"), cell=1, debris=2)
    assert codes[1:3, 2:4].tolist() == [[2, 1], [2, 2]]


def test_patch_beyond_the_image_is_an_error():
    patch = PixelPatch(top=5, left=0, inside=np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="rows 5 to 6"):
        draw(shape(patch))


@given(arrays(bool, SIZE), st.sampled_from(["row", "column"]))
def test_runs_are_those_of_a_submission(inside, order):
    (_, _, found), _ = Runs(text=encode_runs(inside, order), order=order).fill(SIZE)
    assert (found == inside).all()


@pytest.mark.parametrize("text", ["1", "0 3", "47 3", "5 2 1 2", "1 0", "a b"])
def test_runs_that_do_not_fit_the_image_are_an_error(text):
    with pytest.raises(ValueError, match="shape 1"):
        draw(shape(Runs(text=text, order="row")))


def test_shapes_without_area_or_with_an_unknown_label_are_an_error():
    for one in (shape(None), shape(outline((0, 0), (3, 0), (3, 3)), label="new")):
        with pytest.raises(ValueError, match="shape 1"):
            draw(one)


def test_shapes_are_objects_and_those_of_one_group_are_one_object():
    left, right = outline((0, 0), (2, 0), (2, 6), (0, 6)), outline((2, 0), (4, 0), (4, 6), (2, 6))
    far = Shape(label="cell", place="shape 3", area=outline((6, 0), (8, 0), (8, 6)), group="7")
    parts = [shape(left), Shape(label="cell", place="shape 2", area=right, group="7"), far]
    found = draw_shapes(parts, SIZE, {"cell": 1}).instances
    assert found.numbers[0].tolist() == [1, 1, 2, 2, 0, 0, 2, 2]
    assert (found.stated, found.overlap_px) == (2, 0)


def test_shapes_that_overlap_are_counted_and_background_belongs_to_no_object():
    whole = outline((0, 0), (8, 0), (8, 6), (0, 6))
    part = outline((0, 0), (2, 0), (2, 6), (0, 6))
    found = draw_shapes([shape(whole), shape(part)], SIZE, {"cell": 1}).instances
    assert (found.numbers[0, 1], found.numbers[0, 2], found.overlap_px) == (2, 1, 12)
    codes = {"cell": 1, "background": 0}
    found = draw_shapes([shape(whole), shape(part, "background")], SIZE, codes).instances
    assert (found.numbers[0, 1], found.stated, found.overlap_px) == (0, 1, 0)


def column(first, last, label="cell", group=None):
    area = outline((first, 0), (last, 0), (last, 6), (first, 6))
    return Shape(label=label, place="shape 1", area=area, group=group)


def test_shapes_are_numbered_without_gaps():
    shapes = [
        column(0, 1, group="7"),
        column(1, 2, "background"),
        column(2, 3, group="7"),
        column(3, 4),
        column(4, 5, IGNORE_LABEL),
        column(5, 6),
    ]
    codes = {"cell": 1, "background": 0, IGNORE_LABEL: 255}
    found = draw_shapes(shapes, SIZE, codes)
    assert found.codes[0].tolist() == [1, 0, 1, 1, 255, 1, 0, 0]
    assert found.instances.numbers[0].tolist() == [1, 0, 1, 2, 0, 3, 0, 0]
    assert (found.instances.stated, found.instances.overlap_px) == (3, 0)
