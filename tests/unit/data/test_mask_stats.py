import numpy as np
import pytest

from ushape.data.mask_stats import count_values, measure_objects


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
