import numpy as np
import pytest
from scipy import ndimage

from ushape.transforms.object_distance import border_distance


def test_border_distance_counted_by_hand():
    # Distances within object 1: 1 2 3 3 2 1, divided by the largest one; object 7 touches it.
    row = np.array([0, 1, 1, 1, 1, 1, 1, 7, 7, 7, 0])
    found = border_distance(row, max_distance_px=10)
    expected = np.array([0, 1, 2, 3, 3, 2, 1, 1.5, 3, 1.5, 0]) / 3
    assert found == pytest.approx(expected)
    assert found.dtype == np.float32


def test_border_distance_is_one_from_its_reach_on():
    row = np.array([0, 1, 1, 1, 1, 1, 1, 0])
    assert border_distance(row, max_distance_px=2) == pytest.approx([0, 0.5, 1, 1, 1, 1, 0.5, 0])


def test_border_distance_does_not_count_the_edge_of_the_array():
    row = np.array([3, 3, 3, 0])
    assert border_distance(row, max_distance_px=10) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert (border_distance(np.full((4, 4), 2), max_distance_px=3) == 1).all()
    assert (border_distance(np.zeros((4, 4), int), max_distance_px=3) == 0).all()


def test_border_distance_of_volumes_and_disconnected_objects():
    volume = np.zeros((5, 5, 12), int)
    volume[1:4, 1:4, 1:4] = volume[1:4, 1:4, 8:11] = 5
    found = border_distance(volume, max_distance_px=10)
    assert found[2, 2, 2] == found[2, 2, 9] == 1
    assert found[1, 1, 1] == pytest.approx(0.5)


@pytest.mark.parametrize("reach", [1, 2.5, 4, 100])
@pytest.mark.parametrize("shape", [(40,), (33, 41), (41, 1), (9, 14, 17)])
def test_border_distance_equals_that_of_each_object_alone(shape, reach):
    rng = np.random.default_rng([*shape, int(10 * reach)])
    for coarse in (1, 2, 5, 9):  # Size of the objects, which touch each other and the edges.
        small = rng.integers(0, 6, [-(-size // coarse) for size in shape]).astype(np.uint16)
        objects = small
        for axis in range(len(shape)):
            objects = objects.repeat(coarse, axis)
        objects = objects[tuple(slice(size) for size in shape)]
        expected = np.zeros(shape)
        for number in np.unique(objects[objects > 0]):
            inside = objects == number
            if inside.all():
                expected[:] = 1
                continue
            distance = ndimage.distance_transform_edt(inside)
            expected[inside] = (distance / min(reach, distance.max())).clip(0, 1)[inside]
        assert border_distance(objects, reach) == pytest.approx(expected, abs=1e-6)


def test_border_distance_does_not_depend_on_the_memory_layout():
    objects = np.random.default_rng(0).integers(0, 3, (20, 30)).repeat(3, axis=1)
    expected = border_distance(objects, max_distance_px=3)
    assert (border_distance(np.asfortranarray(objects), max_distance_px=3) == expected).all()
    turned = border_distance(objects.T, max_distance_px=3).T
    assert (turned == expected).all()


@pytest.mark.parametrize("reach", [1, 2.5, 6])
@pytest.mark.parametrize("lengths", [(5, 1, 1), (1, 2.2, 1.3), (1.0, 1.0, 1.0)])
def test_border_distance_follows_the_length_of_pixels(lengths, reach):
    objects = np.random.default_rng(1).integers(0, 4, (4, 5, 6))
    objects = objects.repeat(2, 0).repeat(4, 1).repeat(3, 2)
    expected = np.zeros(objects.shape)
    for number in (1, 2, 3):
        inside = objects == number
        distance = ndimage.distance_transform_edt(inside, sampling=lengths)
        expected[inside] = (distance / min(reach, distance.max())).clip(0, 1)[inside]
    assert border_distance(objects, reach, lengths) == pytest.approx(expected, abs=1e-5)


def test_border_distance_of_equal_lengths_has_the_same_bytes():
    objects = np.random.default_rng(2).integers(0, 3, (6, 7, 8)).repeat(3, axis=0)
    expected = border_distance(objects, 4)
    assert border_distance(objects, 4, (1.0, 1.0, 1.0)).tobytes() == expected.tobytes()
