import numpy as np
import pytest

from ushape.data.mask_stats import count_values, measure_objects, parts_per_value


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
