from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage import measure, morphology, segmentation

from probabilities import BINARY
from standalone import import_program
from ushape.inference.separation import separate
from ushape.instances.label import ObjectConfig, _without_equal_seeds
from ushape.labels import Region
from ushape.transforms.morphology import Cleaning, clean_classes

objects = import_program("objects")


def random_masks(count, dims=(2, 3)):
    """Yield masks of random sizes, with a random reach of neighbors, and a generator."""
    generator = np.random.default_rng(1)
    for number in range(count):
        axes = dims[number % len(dims)]
        shape = tuple(generator.integers(1, 14, axes))
        yield generator.random(shape) < 0.6, int(generator.integers(1, axes + 1)), generator


def reliefs(mask, generator):
    """Yield a relief with many equal values, and one without."""
    yield (generator.integers(0, 6, mask.shape) / 5).astype(np.float32)
    yield generator.random(mask.shape, np.float32)


def test_components_have_the_numbers_of_scipy():
    for mask, reach, _ in random_masks(60):
        structure = ndimage.generate_binary_structure(mask.ndim, reach)
        expected = ndimage.label(mask, structure)[0]
        assert np.array_equal(objects.label_components(mask, reach), expected)


def test_components_of_values_are_those_of_scikit_image():
    for mask, reach, generator in random_masks(60):
        values = np.where(mask, generator.integers(1, 4, mask.shape), 0)
        expected = measure.label(values, background=0, connectivity=reach)
        found = objects.label_components(values, reach)
        assert np.array_equal(found, objects.number_objects(expected))


def test_component_that_winds_is_one():
    mask = np.ones((9, 9), bool)
    mask[1, :-1] = mask[3, 1:] = mask[5, :-1] = mask[7, 1:] = False
    assert objects.label_components(mask).max() == 1


@pytest.mark.parametrize("distinct", [True, False])
def test_flooding_equals_scikit_image_at_every_pixel(distinct):
    for mask, reach, generator in random_masks(60):
        ties, floats = reliefs(mask, generator)
        height = np.pad(np.where(mask, floats if distinct else ties, -1), 1, constant_values=-1)
        inside = np.pad(mask, 1)
        structure = ndimage.generate_binary_structure(mask.ndim, reach)
        tops = morphology.local_maxima(height, footprint=structure) & inside
        seeds = measure.label(tops, connectivity=reach)
        assert np.array_equal(objects.find_peaks(height, inside, reach), seeds)
        depth = -_without_equal_seeds(height, seeds)
        expected = segmentation.watershed(depth, seeds, connectivity=structure, mask=inside)
        assert np.array_equal(objects.flood(height, seeds, inside, reach), expected)


@pytest.mark.parametrize("threshold", [None, 1], ids=["connected", "numbered"])
@pytest.mark.parametrize("corners_connect", [False, True])
@pytest.mark.parametrize("min_size_px", [0, 4])
def test_separation_equals_that_of_ushape(threshold, corners_connect, min_size_px):
    space = replace(BINARY, has_distance=True, threshold=threshold)
    how = ObjectConfig(
        separation="learned_distance",
        h_distance=0.25,
        corners_connect=corners_connect,
        min_size_px=min_size_px,
    )
    own = objects.Separation(
        h=0.25,
        corners_connect=corners_connect,
        min_size_px=min_size_px,
        draws_lines=threshold is None,
        writes_numbers=threshold is not None,
    )
    for mask, _, generator in random_masks(12):
        for relief in reliefs(mask, generator):
            classes = np.where(mask, generator.integers(1, 3, mask.shape), 0).astype(np.uint8)
            expected_classes, expected = separate(classes, relief, space, how)
            found_classes, found = objects.separate(classes, relief, own)
            assert np.array_equal(found, expected)
            assert np.array_equal(found_classes, expected_classes)
            assert found_classes.dtype == np.uint8


@pytest.mark.parametrize(
    "cleaning",
    [
        Cleaning(),
        Cleaning(largest_only=True),
        Cleaning(min_size_px=4),
        Cleaning(largest_only=True, min_size_px=5, max_hole_size_px=3),
        Cleaning(max_hole_size_px="all"),
    ],
    ids=str,
)
@pytest.mark.parametrize("groups", [((1,), (2,)), ((1, 2), (2,))], ids=["classes", "regions"])
def test_cleaning_equals_that_of_ushape(cleaning, groups):
    regions = [Region(name=str(own), classes=own) for own in groups]
    own = objects.Cleaning(**vars(cleaning))
    for mask, _, generator in random_masks(20):
        classes = np.where(mask, generator.integers(0, 3, mask.shape), 0).astype(np.uint8)
        expected = clean_classes(classes, regions, [cleaning, cleaning])
        assert np.array_equal(objects.clean_classes(classes, groups, [own, own]), expected)


def test_numbers_follow_the_first_pixels():
    labels = np.array([[7, 0, 3], [7, 3, 3], [0, 9, 0]])
    assert objects.number_objects(labels, 2).tolist() == [[1, 0, 2], [1, 2, 2], [0, 0, 0]]
