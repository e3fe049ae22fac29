from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from probabilities import BINARY
from ushape.inference import band_separation
from ushape.inference.band_separation import separate_bands, separate_streamed
from ushape.inference.separation import SEPARATED, separate
from ushape.instances.label import _number, label_prediction
from ushape.instances.stored import number_stored
from ushape.types import Prediction

SPACES = {
    "connected": replace(BINARY, has_distance=True),
    "numbered": replace(BINARY, has_distance=True, threshold=1),
}


def random_field(seed, shape, classes=2):
    """Random classes and distance, with parts of all sizes."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, *[2] * len(shape)))
    own = np.where(noise[0] > 0, 1 + (noise[0] > 0.15) * (classes - 1), 0).astype(np.uint8)
    return own, np.clip(0.5 + 3 * noise[1], 0, 1).astype(np.float32)


def cut(array, heights):
    ends = np.cumsum(heights)
    return np.split(array, ends[ends < len(array)])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("shape", [(90, 70), (24, 20, 18)])
@pytest.mark.parametrize("seed", range(4))
def test_bands_equal_the_whole_image(name, shape, seed):
    space, how = SPACES[name], replace(SEPARATED, min_size_px=9, corners_connect=seed == 3)
    classes, distance = random_field(seed, shape, classes=1 + seed % 2)
    whole, labels = separate(classes, distance, space, how)
    heights = np.random.default_rng(seed).integers(1, 9, shape[0])
    bands = zip(cut(classes, heights), cut(distance, heights), strict=True)
    cuts = []
    pairs = separate_bands(bands, space, how, cuts.append)
    found, numbers = map(np.concatenate, zip(*pairs, strict=True))
    assert not cuts
    np.testing.assert_array_equal(found, whole)
    ordered = _number(numbers, found, 0)
    np.testing.assert_array_equal(ordered.labels, _number(labels, whole, 0).labels)
    ready, owners = number_stored(found, numbers)
    np.testing.assert_array_equal(np.concatenate(list(ready)), ordered.labels)
    np.testing.assert_array_equal(owners, ordered.classes)
    if name == "connected":  # Lines are drawn between objects.
        assert (whole != classes).any()


@pytest.mark.parametrize("shape", [(70, 60), (16, 14, 12)])
@pytest.mark.parametrize("corners_connect", [False, True])
def test_bands_equal_the_whole_image_where_many_distances_are_equal(shape, corners_connect):
    how = replace(SEPARATED, corners_connect=corners_connect)
    for seed in range(25):
        rng = np.random.default_rng(seed)
        noise = ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, *[1] * len(shape)))
        classes = (noise[0] > 0).astype(np.uint8)
        distance = np.clip(0.5 + 2 * noise[1], 0, 1).round(1).astype(np.float32)
        heights = rng.integers(1, 9, shape[0])
        assert_bands_equal_whole(classes, distance, SPACES["numbered"], how, heights)


def assert_bands_equal_whole(classes, distance, space, how, heights):
    """Compare classes and numbered objects of bands with those of the whole image."""
    whole, labels = separate(classes, distance, space, how)
    prediction = Prediction(probabilities=distance[None], classes=whole, labels=labels)
    expected = label_prediction(prediction, space)
    bands, cuts = zip(cut(classes, heights), cut(distance, heights), strict=True), []
    pairs = separate_bands(bands, space, how, cuts.append)
    found, numbers = map(np.concatenate, zip(*pairs, strict=True))
    assert not cuts
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_array_equal(numbers > 0, labels > 0)
    ready, owners = number_stored(found, numbers)
    np.testing.assert_array_equal(np.concatenate(list(ready)), expected.labels)
    np.testing.assert_array_equal(owners, expected.classes)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("corners_connect", [False, True])
@pytest.mark.parametrize("inner", [1, 2])
@pytest.mark.parametrize("max_hole_size_px", [1, 15, 16, 24, 25, 99])
def test_bands_fill_the_holes_around_objects_as_the_whole_image(
    name, corners_connect, inner, max_hole_size_px
):
    # A ring with a hole of 5 x 5 pixels, in which an object of 3 x 3 pixels lies: the gap has 16.
    classes = np.zeros((12, 12), np.uint8)
    classes[1:10, 1:10] = 1
    classes[3:8, 3:8] = 0
    classes[4:7, 4:7] = inner
    classes[5, 5] = 0  # A hole of one pixel in the inner object.
    distance = np.where(classes > 0, 0.5, 0.1).astype(np.float32)
    how = replace(SEPARATED, max_hole_size_px=max_hole_size_px, corners_connect=corners_connect)
    for height in (1, 2, 3, 5, 12):
        assert_bands_equal_whole(classes, distance, SPACES[name], how, [height] * 12)
    _, labels = separate(classes, distance, SPACES[name], how)
    is_filled = (labels[3:8, 3:8] > 0) & (classes[3:8, 3:8] == 0)
    assert is_filled[2, 2]
    assert (is_filled.sum() > 1) == (inner == 1 and max_hole_size_px >= 16)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("shape", [(60, 50), (18, 16, 14)])
@pytest.mark.parametrize("corners_connect", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_bands_fill_the_holes_of_random_fields_as_the_whole_image(
    name, shape, corners_connect, seed
):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, *[2] * len(shape)))
    levels = np.floor(noise[0] / noise[0].std() * 2.5)
    classes = (levels % 2).astype(np.uint8)  # Rings within rings.
    classes[(classes > 0) & (levels > 1)] = 1 + seed % 2
    classes[rng.random(shape) < 0.02] = 0
    distance = (1 / (1 + np.exp(-20 * noise[1]))).round(2).astype(np.float32)
    heights = rng.integers(1, 7, shape[0])
    for largest in (4, 40, 400):
        how = replace(SEPARATED, max_hole_size_px=largest, corners_connect=corners_connect)
        assert_bands_equal_whole(classes, distance, SPACES[name], how, heights)


def test_streamed_probabilities_are_given_once():
    classes, distance = random_field(0, (40, 30))
    bands = [
        (own[None].astype(np.float32), own, far)
        for own, far in zip(cut(classes, [7] * 6), cut(distance, [7] * 6), strict=True)
    ]
    pairs = list(separate_streamed(bands, SPACES["connected"], SEPARATED, [].append))
    given = np.concatenate([probabilities for probabilities, _ in pairs], axis=1)
    np.testing.assert_array_equal(given[0], classes)
    assert sum(len(own) for _, own in pairs) == 40


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(band_separation, "MAX_OPEN_PX", 100)
    monkeypatch.setattr(band_separation, "free_memory_bytes", lambda: 0)


def test_bands_end_open_parts_if_too_many_pixels_wait(little_memory):
    classes, distance = np.ones((50, 10), np.uint8), np.ones((50, 10), np.float32)
    bands, cuts = zip(cut(classes, [6] * 9), cut(distance, [6] * 9), strict=True), []
    pairs = separate_bands(bands, SPACES["numbered"], SEPARATED, cuts.append)
    sizes = [len(own) for own, _ in pairs]
    assert sum(sizes) == 50
    assert max(sizes) <= 16
    assert cuts == [1, 1, 1, 1]  # 12 rows each.


def test_bands_cut_only_objects_longer_than_half_of_the_rows_that_may_wait(little_memory):
    classes = np.zeros((60, 10), np.uint8)
    classes[:, 0] = 1  # Longer than the 10 rows that may wait.
    for first in range(0, 60, 7):
        classes[first : first + 4, 5:9] = 1
    distance, cuts = classes.astype(np.float32), []
    bands = zip(cut(classes, [3] * 20), cut(distance, [3] * 20), strict=True)
    pairs = separate_bands(bands, SPACES["numbered"], SEPARATED, cuts.append)
    found, numbers = map(np.concatenate, zip(*pairs, strict=True))
    np.testing.assert_array_equal(found, classes)
    assert cuts
    assert len(np.unique(numbers[:, 0])) == sum(cuts) + 1
    parts, count = ndimage.label(classes[:, 5:])
    for part in range(1, count + 1):
        assert len(np.unique(numbers[:, 5:][parts == part])) == 1


def test_bands_that_cut_objects_leave_open_holes(little_memory):
    classes = np.zeros((30, 12), np.uint8)
    classes[:, 2:9] = 1
    classes[::3, 5] = 0  # Holes of one pixel, some of them in the last row before a cut.
    distance, how = np.full(classes.shape, 0.5, np.float32), replace(SEPARATED, max_hole_size_px=9)
    bands, cuts = zip(cut(classes, [2] * 15), cut(distance, [2] * 15), strict=True), []
    pairs = separate_bands(bands, SPACES["numbered"], how, cuts.append)
    found, numbers = map(np.concatenate, zip(*pairs, strict=True))
    assert cuts
    np.testing.assert_array_equal(found, classes)
    assert (numbers[classes > 0] > 0).all()
    assert not numbers[:, :2].any()
    assert 0 < (numbers[::3, 5] > 0).sum() < 9  # The one in the first row is no hole.


def test_bands_wait_for_as_many_pixels_as_fit_into_half_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(band_separation, "MAX_OPEN_PX", 100)
    wanted = 2 * 500 * band_separation.OPEN_PX_BYTES
    monkeypatch.setattr(band_separation, "free_memory_bytes", lambda: wanted)
    classes, distance = np.ones((50, 10), np.uint8), np.ones((50, 10), np.float32)
    bands, cuts = zip(cut(classes, [6] * 9), cut(distance, [6] * 9), strict=True), []
    pairs = separate_bands(bands, SPACES["numbered"], SEPARATED, cuts.append)
    _, numbers = map(np.concatenate, zip(*pairs, strict=True))
    assert not cuts
    assert (numbers == 1).all()


def test_bands_that_are_large_themselves_do_not_cut_objects(little_memory):
    classes = np.zeros((24, 10), np.uint8)
    classes[10:14, 2:5] = 1  # 12 pixels, half of them in each band of 120 pixels.
    distance, how = classes.astype(np.float32), replace(SEPARATED, min_size_px=10)
    bands = zip(cut(classes, [12, 12]), cut(distance, [12, 12]), strict=True)
    cuts = []
    found = np.concatenate(
        [own for own, _ in separate_bands(bands, SPACES["numbered"], how, cuts.append)]
    )
    np.testing.assert_array_equal(found, classes)
    assert not cuts


def test_bands_may_end_with_rows_of_background():
    classes = np.zeros((12, 10), np.uint8)
    classes[2:5, 2:5] = 1
    distance = classes.astype(np.float32)
    bands = zip(cut(classes, [4, 4, 4]), cut(distance, [4, 4, 4]), strict=True)
    pairs = separate_bands(bands, SPACES["numbered"], SEPARATED, [].append)
    found = np.concatenate([own for own, _ in pairs])
    np.testing.assert_array_equal(found, classes)
