import numpy as np
import pytest

from ushape.data.mask_stats import (
    centers_of_values,
    count_values,
    measure_instances,
    measure_objects,
    parts_per_value,
)
from ushape.types import Instances


@pytest.mark.parametrize("values", [(0, 7), (-3, 7), (0, 70_000)])
def test_count_values_returns_ascending_values_with_their_pixels(values):
    low, high = values
    found, counts = count_values(np.array([[high, low, low], [low, high, low]]))
    assert (found.tolist(), counts.tolist()) == ([low, high], [4, 2])


def test_measure_objects_by_hand():
    codes = np.zeros((20, 20), np.uint8)
    codes[1:4, 1:9] = 1  # 24 pixels, 8 long.
    codes[1:4, 9:11] = 2  # Touches it, another value: 6 pixels, 3 long.
    codes[10:12, 10:12] = 1  # 4 pixels, 2 long.
    found = measure_objects(codes, 0)
    assert found.summary == (3, 8.0)
    assert found.by_value == {1: (2, 8.0), 2: (1, 3.0)}
    empty = measure_objects(np.full((4, 4), 7), 7)
    assert empty.summary == (0, 0.0)
    assert empty.by_value == {}


def test_parts_per_value_of_70_000_objects_of_one_pixel():
    codes = np.zeros((530, 530), np.uint32)
    codes[::2, ::2] = 1 + np.arange(265 * 265).reshape(265, 265)
    assert parts_per_value(codes, np.unique(codes)) == 1
    codes[::2, 1::2] = codes[::2, ::2][::-1]  # Each number again, elsewhere but in the middle row.
    assert parts_per_value(codes, np.unique(codes)) > 1.8


def test_instances_are_measured_by_number_and_class():
    numbers = np.zeros((6, 12), np.int32)
    numbers[1:4, 1:4], numbers[1:4, 4:8], numbers[1:4, 8:10] = 5, 9, 2
    numbers[5, 0] = numbers[5, 11] = 7  # One object of two parts.
    codes = np.where(numbers == 2, 2, np.minimum(numbers, 1))
    found = measure_instances(codes, Instances(numbers=numbers, stated=6, overlap_px=3))
    assert (found.stated, found.visible, found.parts, found.overlap_px) == (6, 4, 5, 3)
    # 5 and 9 touch within class 1; 2 touches 9, but is the only one of its class.
    assert (found.recurring, found.joined, found.size) == (3, 2, 3)


def test_an_instance_that_fills_the_image_and_none():
    whole = np.ones((4, 5), np.int32)
    found = measure_instances(whole, Instances(numbers=whole, stated=1))
    assert (found.visible, found.parts, found.size, found.recurring) == (1, 1, 5, 0)
    found = measure_instances(whole * 0, Instances(numbers=whole * 0, stated=0))
    assert (found.visible, found.parts, found.size, found.joined) == (0, 0, 0, 0)


def test_a_negative_background_does_not_change_parts_and_centers():
    codes = np.array([[0, 5, 0, 9], [7, 0, 5, 9]], np.int8)
    moved = np.where(codes == 0, -1, codes)
    assert parts_per_value(moved, np.unique(moved)) == parts_per_value(codes, np.unique(codes))
    centers = centers_of_values(codes, np.unique(codes))
    assert centers_of_values(moved, np.unique(moved)) == centers
    with_zero = np.where(codes == 5, 0, moved)
    found = centers_of_values(with_zero, np.unique(with_zero))
    assert found == {0: centers[5], 7: centers[7], 9: centers[9]}


def test_parts_per_value_of_ids_above_a_million():
    codes = np.zeros((6, 12), np.uint32)
    codes[1:3, 1:3], codes[1:3, 6:8], codes[5, 0], codes[5, 11] = 7, 2_000_003, 2**32 - 1, 2**32 - 1
    assert parts_per_value(codes, np.unique(codes)) == pytest.approx(4 / 3)


def test_parts_per_value_of_sparse_ids():
    codes = np.zeros((40, 40), np.int64)
    codes[:4, :4], codes[10:14, 10:14], codes[30:34, 30:34] = 999_999, 17, 17
    assert parts_per_value(codes, np.unique(codes)) == 1.5
