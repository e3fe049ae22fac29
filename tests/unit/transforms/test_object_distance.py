import numpy as np
import pytest

from ushape.transforms.object_distance import border_distance


def test_border_distance_counted_by_hand():
    # Distances within object 1: 1 2 3 3 2 1, divided by the largest one; object 7 touches it.
    row = np.array([0, 1, 1, 1, 1, 1, 1, 7, 7, 7, 0])
    found = border_distance(row, reach_px=10)
    expected = np.array([0, 1, 2, 3, 3, 2, 1, 1.5, 3, 1.5, 0]) / 3
    assert found == pytest.approx(expected)
    assert found.dtype == np.float32


def test_border_distance_is_one_from_its_reach_on():
    row = np.array([0, 1, 1, 1, 1, 1, 1, 0])
    assert border_distance(row, reach_px=2) == pytest.approx([0, 0.5, 1, 1, 1, 1, 0.5, 0])


def test_border_distance_does_not_count_the_edge_of_the_array():
    row = np.array([3, 3, 3, 0])
    assert border_distance(row, reach_px=10) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert (border_distance(np.full((4, 4), 2), reach_px=3) == 1).all()
    assert (border_distance(np.zeros((4, 4), int), reach_px=3) == 0).all()


def test_border_distance_of_volumes_and_disconnected_objects():
    volume = np.zeros((5, 5, 12), int)
    volume[1:4, 1:4, 1:4] = volume[1:4, 1:4, 8:11] = 5
    found = border_distance(volume, reach_px=10)
    assert found[2, 2, 2] == found[2, 2, 9] == 1
    assert found[1, 1, 1] == pytest.approx(0.5)
