import math

import numpy as np
import pytest
from scipy import ndimage

from codes import raises_code
from ushape.errors import ConfigError, DataError
from ushape.labels import IGNORE
from ushape.transforms.border_weights import border_weights, find_objects, separate_touching


def by_definition(objects, w0, sigma):
    """One distance transform per object over the whole image."""
    ids = [i for i in np.unique(objects) if i]
    if len(ids) < 2:
        return np.zeros(objects.shape)
    distances = np.sort([ndimage.distance_transform_edt(objects != i) for i in ids], axis=0)
    weights = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return np.where(objects == 0, weights, 0)


def scattered(count, shape, seed=0):
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, dtype=bool)
    seeds[tuple(rng.integers(size, size=count) for size in shape)] = True
    ids, _ = ndimage.label(seeds)
    grown = ndimage.grey_dilation(ids, size=(3,) * len(shape))
    return separate_touching(grown)


def test_border_weights_of_two_pixels_by_hand():
    objects = np.zeros((1, 6), dtype=int)
    objects[0, 0], objects[0, 5] = 1, 2
    found = border_weights(objects, w0=10, sigma=5)
    between = 10 * math.exp(-(5**2) / 50)  # Everywhere d1 + d2 is 5.
    np.testing.assert_allclose(found, [[0, between, between, between, between, 0]], rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1])
def test_border_weights_are_0_without_a_second_object(count):
    objects = np.zeros((20, 30), dtype=np.int32)
    objects[3:6, 4:9] = count
    assert not border_weights(objects, w0=10, sigma=5).any()
    assert not border_weights(np.ones((4, 4), int), w0=10, sigma=5).any()


@pytest.mark.parametrize(
    ("count", "shape", "sigma"),
    [
        (2, (40, 60), 5),
        (2, (7, 90), 5),
        (30, (90, 41), 2.5),
        (300, (160, 160), 0.5),
        (500, (256, 256), 5),
        (12, (20, 24, 30), 3),
    ],
)
def test_border_weights_equal_the_definition(count, shape, sigma):
    objects = scattered(count, shape)
    found = border_weights(objects, w0=10, sigma=sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(objects, 10, sigma), atol=1e-5)
    assert count < 3 or sigma < 1 or found.max() > 1


def test_border_weights_are_independent_of_orientation_and_ids():
    objects = scattered(30, (50, 70))
    found = border_weights(objects, w0=10, sigma=4)
    flipped = border_weights(objects[::-1].T, w0=10, sigma=4)
    np.testing.assert_allclose(flipped, found[::-1].T, atol=1e-6)
    renamed = np.where(objects > 0, 70_000 - 7 * objects, 0)
    np.testing.assert_allclose(border_weights(renamed, w0=10, sigma=4), found, atol=1e-6)


@pytest.mark.parametrize("distance", [7, 8, 9, 15, 16, 17, 18, 27])
def test_border_weights_equal_the_definition_where_small_windows_end(distance):
    objects = np.zeros((33, 80), dtype=int)
    objects[16, 20], objects[16, 20 + distance] = 1, 2
    found = border_weights(objects, w0=10, sigma=5)
    np.testing.assert_allclose(found, by_definition(objects, 10, 5), atol=1e-5)


def test_border_weights_are_0_on_objects():
    objects = scattered(30, (50, 70))
    found = border_weights(objects, w0=10, sigma=5)
    assert not found[objects > 0].any()
    assert (found[objects == 0] >= 0).all()
    assert found.max() <= 10
    assert not border_weights(objects, w0=0, sigma=5).any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"])
def test_border_weights_accept_every_integer_type(dtype):
    objects = scattered(20, (40, 50))
    expected = border_weights(objects, w0=10, sigma=5)
    largest = objects.astype(dtype)
    largest[objects == objects.max()] = np.iinfo(dtype).max
    assert (border_weights(largest, w0=10, sigma=5) == expected).all()
    apart = separate_touching(largest)
    assert apart.dtype == dtype
    assert (apart == largest).all()  # The highest id has no higher one to stand for background.


def test_border_weights_accept_negative_ids():
    objects = scattered(20, (40, 50))
    mixed = np.where(objects % 2 == 1, -objects, objects)
    assert (border_weights(mixed, w0=10, sigma=5) == border_weights(objects, w0=10, sigma=5)).all()
    touching = np.array([[-4, -4, 5, 5]])
    assert separate_touching(touching).tolist() == [[-4, 0, 0, 5]]


def test_border_weights_refuse_masks():
    for function in (separate_touching, lambda ids: border_weights(ids, w0=10, sigma=5)):
        with raises_code(DataError, "unsupported_values") as caught:
            function(np.ones((3, 3), dtype=bool))
        assert "find_objects" in caught.value.hint


@pytest.mark.parametrize(
    ("w0", "sigma"), [(-1, 5), (math.nan, 5), (10, 0), (10, -5), (10, math.inf)]
)
def test_border_weights_refuse_impossible_parameters(w0, sigma):
    with raises_code(ConfigError, "value_out_of_range"):
        border_weights(np.zeros((4, 4), dtype=int), w0=w0, sigma=sigma)


def test_find_objects_connects_sides_not_corners():
    classes = np.array([[1, 0, 0], [0, 1, 1], [IGNORE, 0, 2]], dtype=np.uint8)
    assert find_objects(classes).tolist() == [[1, 0, 0], [0, 2, 2], [0, 0, 2]]


def test_find_objects_separates_at_a_diagonal_line():
    parted = ~np.eye(6, dtype=bool)
    assert find_objects(parted.astype(np.uint8)).max() == 2
    edges = np.zeros((2, 2, 2), dtype=np.uint8)
    edges[0, 0, 0] = edges[0, 1, 1] = 1  # They share an edge, not a face.
    assert find_objects(edges).max() == 2


def test_separate_touching_inserts_a_line():
    objects = np.zeros((5, 8), dtype=int)
    objects[:, :4], objects[:, 4:] = 3, 9
    apart = separate_touching(objects)
    assert apart.tolist() == [[3, 3, 3, 0, 0, 9, 9, 9]] * 5
    assert (separate_touching(apart) == apart).all()
    corner = np.array([[1, 0], [0, 2]])
    assert not separate_touching(corner).any()


@pytest.mark.parametrize("sigma", [1.5, 5])
def test_border_weights_follow_the_length_of_pixels(sigma):
    objects = scattered(5, (9, 20, 21))
    lengths = (4.0, 1.0, 1.3)
    numbers = np.unique(objects[objects > 0])
    distances = [
        ndimage.distance_transform_edt(objects != number, sampling=lengths) for number in numbers
    ]
    near, second = np.sort(distances, axis=0)[:2]
    expected = np.where(objects == 0, 10 * np.exp(-((near + second) ** 2) / (2 * sigma**2)), 0)
    found = border_weights(objects, w0=10, sigma=sigma, lengths=lengths)
    assert found == pytest.approx(expected, abs=1e-5)


def test_border_weights_of_equal_lengths_have_the_same_bytes():
    objects = scattered(5, (9, 20, 21))
    expected = border_weights(objects, w0=10, sigma=4)
    found = border_weights(objects, w0=10, sigma=4, lengths=(1.0, 1.0, 1.0))
    assert found.tobytes() == expected.tobytes()
