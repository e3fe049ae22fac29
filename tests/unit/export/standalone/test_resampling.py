import numpy as np
import pytest

from standalone import import_program
from ushape.data.intensities import thin_out
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.normalization import Normalization
from ushape.transforms.growing import resample_probabilities
from ushape.transforms.resampling import (
    place_image,
    resample_image,
    restore_probabilities,
)
from ushape.types import Geometry

resampling = import_program("resampling")

TYPES = ("uint8", "uint16", "int32", "float32")


def picture(dtype, shape=(2, 60, 47)):
    return (np.random.default_rng(3).random(shape) * 250).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shape", [(60, 47), (30, 47), (24, 47), (40, 23), (20, 47), (17, 23), (41, 46)]
)
def test_shrunk_image_equals_that_of_ushape_bit_for_bit(dtype, shape):
    image = picture(dtype)
    found, expected = resampling.resample_image(image, shape), resample_image(image, shape)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(120, 94), (61, 300), (60, 20), (500, 47), (80, 48), (20, 31)])
def test_linear_interpolation_equals_that_of_ushape_bit_for_bit(channels, shape):
    values = np.random.default_rng(2).random((channels, 60, 47), np.float32)
    found, expected = (
        own(values, shape) for own in (resampling.resample_linearly, resample_probabilities)
    )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("downscale", [1.0, 2.0, 1.7, (1.0, 3.0)])
@pytest.mark.parametrize("shape", [None, (32, 40)])
def test_grid_equals_that_of_ushape(square, downscale, shape):
    config = PreprocessingConfig(
        square=square, downscale=1 if shape else downscale, shape=shape, target_spacing_mm=None
    )
    image = picture("uint8")
    size = image.shape[1:]
    geometry = Geometry(
        file_shape=size,
        box=tuple((0, own) for own in size),
        padded_shape=config.padded_shape(size),
        working_shape=config.working_shape(size),
    )
    grid = resampling.Grid(square=square, shape=shape, factors=config.downscale_factors(2))
    placed = grid.place(image)
    difference = placed.astype(int) - place_image(image, geometry).astype(int)
    assert not difference.any()
    probabilities = np.random.default_rng(0).random((2, *placed.shape[1:]), np.float32)
    expected = restore_probabilities(probabilities, geometry)
    found = grid.restore(probabilities, size)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 3e-7


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["image", "min_max"])
@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 200, 301)])
def test_normalization_of_an_image_equals_that_of_ushape(dtype, kind, shape):
    image = picture(dtype, shape)
    pixels = thin_out(image)
    expected = Normalization.min_max(pixels) if kind == "min_max" else Normalization.measure(pixels)
    own = resampling.Intensity(kind, (0.5, 99.5)).of(image)
    assert vars(own) == vars(expected)
    assert np.array_equal(own.apply(image), expected.apply(image))


@pytest.mark.parametrize("kind", ["image", "min_max"])
@pytest.mark.parametrize("value", [5.0, np.nan])
def test_constant_and_missing_channels_are_normalized_as_by_ushape(kind, value):
    image = np.full((1, 4, 5), value, np.float32)
    pixels = thin_out(image)
    expected = Normalization.min_max(pixels) if kind == "min_max" else Normalization.measure(pixels)
    assert np.array_equal(
        resampling.Intensity(kind, (0.5, 99.5)).of(image).apply(image), expected.apply(image)
    )


def test_constants_of_the_training_are_used():
    known = resampling.Normalization((0.0,), (10.0,), (5.0,), (2.0,))
    image = np.array([[[-1.0, 5.0, 99.0]]])
    found = resampling.Intensity("data", (0.5, 99.5), known).of(image).apply(image)
    assert found.tolist() == [[[-2.5, 0.0, 2.5]]]
