"""Tools as functions of arrays, with results worked out by hand."""

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.studio import edits


def picture(text):
    """Return an array of the digits of a text, one line for each row."""
    return np.array([[int(digit) for digit in row] for row in text.split()], dtype=np.uint8)


def points(*pairs):
    return np.array(pairs, dtype=float)


def test_stroke_of_one_point_contains_the_pixels_whose_center_is_near():
    # The centers of the four neighbors are 1 pixel away, those at the corners 1.41.
    found = edits.stroke_mask((5, 5), points((2.5, 2.5)), 1.0)
    assert (found == (picture("00000 00100 01110 00100 00000") > 0)).all()


def test_stroke_of_radius_0_contains_the_pixel_under_each_point():
    found = edits.stroke_mask((3, 4), points((0.1, 0.9), (2.9, 3.1)), 0.0)
    assert found[0, 0]
    assert found[2, 3]


def test_stroke_follows_a_line_between_its_points():
    found = edits.stroke_mask((3, 6), points((1.5, 1.5), (1.5, 4.5)), 0.4)
    assert (found == (picture("000000 011110 000000") > 0)).all()


def test_long_segment_equals_its_definition():
    first, last, radius = np.array([3.0, 5.0]), np.array([150.0, 290.0]), 4.5
    rows, columns = np.indices((200, 300)) + 0.5
    along = last - first
    share = ((rows - first[0]) * along[0] + (columns - first[1]) * along[1]) / (along @ along)
    share = np.clip(share, 0, 1)
    distance = np.hypot(rows - first[0] - share * along[0], columns - first[1] - share * along[1])
    found = edits.stroke_mask((200, 300), np.stack([first, last]), radius)
    assert (found == (distance <= radius)).mean() > 0.9999


def test_stroke_outside_of_the_array_is_empty():
    assert not edits.stroke_mask((3, 3), points((50, 50), (60, 60)), 2.0).any()


def test_stroke_with_a_huge_radius_covers_everything():
    assert edits.stroke_mask((4, 4), points((2, 2)), 1e6).all()


def test_polygon_contains_the_pixels_whose_center_is_inside():
    found = edits.polygon_mask((4, 5), points((1, 1), (1, 4), (3, 4), (3, 1)))
    assert (found == (picture("00000 01110 01110 00000") > 0)).all()


def test_polygon_beyond_the_edge_is_cut_off():
    assert edits.polygon_mask((2, 2), points((-9, -9), (-9, 9), (9, 9), (9, -9))).all()


def test_polygon_of_two_corners_is_refused():
    with raises_code(DataError, "edit_incomplete"):
        edits.polygon_mask((2, 2), points((0, 0), (1, 1)))


def test_region_is_connected_by_sides_only():
    labels = picture("1100 1100 0011 0011")
    assert (edits.region_at(labels, (0, 0)) == (picture("1100 1100 0000 0000") > 0)).all()
    assert (edits.region_at(labels, (0, 2)) == (picture("0011 0011 0000 0000") > 0)).all()


def test_component_is_connected_at_corners_too():
    mask = picture("110 110 001") > 0
    assert (edits.component_at(mask, (0, 0)) == mask).all()


def test_fill_of_a_hole_gets_the_number_of_the_object_around_it():
    numbers = picture("44400 40400 44400").astype(np.uint32)
    assert edits.fill_number(numbers, edits.region_at(numbers, (1, 1)), 9) == 4
    assert edits.fill_number(numbers, edits.region_at(numbers, (0, 4)), 9) == 4


@pytest.mark.parametrize("drawn", [0, 4], ids=["background", "object"])
def test_fill_beside_pixels_without_annotation_makes_or_keeps_an_object(drawn):
    numbers = np.full((5, 5), np.iinfo(np.uint32).max, np.uint32)
    numbers[1:3, 1:3] = drawn
    expected = 4 if drawn else 9
    assert edits.fill_number(numbers, edits.region_at(numbers, (1, 1)), 9) == expected


def test_fill_of_pixels_without_annotation_in_an_object_belongs_to_it():
    numbers = picture("444 404 444").astype(np.uint32)
    numbers[1, 1] = np.iinfo(np.uint32).max
    assert edits.fill_number(numbers, edits.region_at(numbers, (1, 1)), 9) == 4


def test_fill_of_an_object_that_touches_another_one_keeps_its_number():
    numbers = picture("4455 4455").astype(np.uint32)
    assert edits.fill_number(numbers, edits.region_at(numbers, (0, 0)), 9) == 4


def test_fill_between_two_objects_gets_a_new_number():
    numbers = picture("404").repeat(3, axis=0)
    numbers[:, 2] = 5
    assert edits.fill_number(numbers, edits.region_at(numbers, (1, 1)), 9) == 9


def test_cut_of_a_class_turns_the_line_into_background():
    labels = picture("111 111 111")
    line = edits.stroke_mask((3, 3), points((0, 1.5), (3, 1.5)), edits.CUT_RADIUS_PX)
    assert (edits.cut_class(labels, line, 0) == picture("101 101 101")).all()
    assert (labels == 1).all()


def test_cut_leaves_background_and_missing_pixels():
    labels = np.array([[0, 255, 2]], dtype=np.uint8)
    assert (edits.cut_class(labels, np.ones((1, 3), bool), 0) == [[0, 255, 0]]).all()


def test_cut_that_crosses_nothing_is_refused():
    with raises_code(DataError, "edit_without_effect"):
        edits.cut_class(np.zeros((2, 2), np.uint8), np.ones((2, 2), bool), 0)


def split(numbers, first, last, new):
    line = edits.stroke_mask(numbers.shape, points(first, last), edits.CUT_RADIUS_PX)
    return edits.split_object(numbers, line, new)


def test_split_keeps_the_number_of_the_larger_part_and_loses_no_pixel():
    numbers = np.full((3, 7), 5, dtype=np.uint32)
    found = split(numbers, (0, 2.5), (3, 2.5), 8)
    # Columns 0 and 1 are the smaller part; the line itself, column 2, is at distance 1 of both.
    assert (found[:, :2] == 8).all()
    assert (found[:, 3:] == 5).all()
    assert np.isin(found[:, 2], (5, 8)).all()


def test_split_of_one_object_leaves_its_neighbors():
    numbers = np.zeros((3, 9), dtype=np.uint32)
    numbers[:, :5], numbers[:, 6:] = 1, 2
    found = split(numbers, (0, 2.5), (3, 2.5), 3)
    assert (found[:, 6:] == 2).all()
    assert set(np.unique(found[:, :5])) == {1, 3}


def test_split_by_a_line_that_ends_inside_is_refused():
    with raises_code(DataError, "edit_without_effect"):
        split(np.full((5, 5), 1, dtype=np.uint32), (0, 2.5), (2, 2.5), 2)


def test_merge_gives_all_objects_the_first_number():
    numbers = picture("1203").astype(np.uint32)
    assert (edits.merge_objects(numbers, np.array([2, 3])) == picture("1202")).all()


def test_merge_of_one_object_is_refused():
    with raises_code(DataError, "edit_without_effect"):
        edits.merge_objects(np.zeros((1, 1), np.uint32), np.array([2]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_touched_objects_are_listed_in_the_order_of_their_pixels(dtype):
    numbers = np.array([[7, 0, np.iinfo(dtype).max, 3, 7]], dtype=dtype)
    assert edits.touched(numbers, np.ones((1, 5), bool)).tolist() == [7, 3]
