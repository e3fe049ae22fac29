"""The steps of a graph equal those of the preprocessing."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from ushape.data.intensities import thin_out, thinning_step
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.export.layers import (
    FixedIntensities,
    MeasuredIntensities,
    PadMirrored,
    PadToSquare,
    Reduce,
    ResizeTo,
    _thinning_step,
    crop_square,
    enlarge,
    sample_pixels,
)
from ushape.normalization import Normalization
from ushape.transforms.growing import resample_probabilities
from ushape.transforms.resampling import pad_mirrored, resample_image


@pytest.mark.parametrize(
    ("shape", "step"),
    # 330 = 2 * 3 * 5 * 11 shares a factor with 4, 3 and 2; 7 is the largest step for 512 * 240.
    [((30, 40), 1), ((240, 330), 1), ((512, 240), 7), ((2048, 2048), 255), ((97, 1000), 3)],
)
def test_thinning_step_is_that_of_the_preprocessing(shape, step):
    pixels = shape[0] * shape[1]
    assert thinning_step(pixels, shape[1]) == step
    assert _thinning_step(torch.tensor(pixels), torch.tensor(shape[1])) == step


@pytest.mark.parametrize("shape", [(5, 7), (240, 330), (400, 410), (9, 64, 72)])
def test_sample_pixels_takes_those_that_are_measured(shape):
    image = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    image[0, 0, :3] = np.nan
    taken, is_taken = sample_pixels(torch.from_numpy(image)[None])
    wanted = thin_out(image)
    for channel in range(2):
        finite = wanted[channel][np.isfinite(wanted[channel])]
        assert taken[0, channel][is_taken[0, channel]].tolist() == finite.tolist()


@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (0, 100), (10, 99), (25, 75), None])
def test_measured_intensities_equal_the_normalization(percentiles):
    random = np.random.default_rng(0)
    images = random.gamma(1.5, 40, (2, 3, 80, 90)).astype(np.float32)
    images[0, 1] = 5
    images[1, 2, :4] = np.nan
    images[1, 0, 0, 0] = np.inf
    images[0, 2] = np.nan
    found = MeasuredIntensities(percentiles)(torch.from_numpy(images)).numpy()
    for image, own in zip(images, found, strict=True):
        pixels = thin_out(image)
        if percentiles is None:
            wanted = Normalization.min_max(pixels).apply(image)
        else:
            wanted = Normalization.measure(pixels, percentiles).apply(image)
        np.testing.assert_allclose(own, wanted, atol=2e-5)


def test_fixed_intensities_equal_the_normalization():
    constants = Normalization(low=(0.0, 1.0), high=(5.0, 9.0), mean=(2.0, 3.0), std=(0.5, 2.0))
    image = np.random.default_rng(0).normal(3, 4, (2, 6, 7)).astype(np.float32)
    image[0, 0, 0], image[1, 0, 0] = np.nan, -np.inf
    found = FixedIntensities(constants, 2)(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_allclose(found, constants.apply(image), atol=1e-6)


@pytest.mark.parametrize("factor", [1.3, 1.5, 2, 3, 4, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_reduce_equals_the_resampling_of_images(factor, dtype):
    config = PreprocessingConfig(downscale=factor, slices=None)
    reduce = Reduce([Fraction(factor).limit_denominator(1000)] * 2)
    for shape in ((48, 60), (50, 61), (7, 5), (1, 2)):
        values = np.random.default_rng(1).random((2, *shape)) * 255
        image = (values * (200 if dtype is np.uint16 else 1)).astype(dtype)
        wanted = resample_image(image, config.working_shape(shape))
        found = reduce(torch.from_numpy(image.astype(np.float32))[None])[0].numpy()
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize("target", [(30, 30), (30, 90), (90, 80)])
def test_resize_to_equals_the_resampling_of_images(target):
    image = np.random.default_rng(1).random((2, 50, 64)).astype(np.float32)
    found = ResizeTo(target)(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_allclose(found, resample_image(image, target), atol=1e-5)


@pytest.mark.parametrize("build", [lambda **own: Reduce([Fraction(2)] * 2, **own), None])
def test_whole_floats_are_rounded_only_if_the_files_hold_integers(build):
    build = build or (lambda **own: ResizeTo((24, 30), **own))
    image = np.random.default_rng(1).integers(0, 2, (1, 48, 60)).astype(np.float32)
    for dtype, rounds in ((np.float32, False), (np.uint8, True)):
        wanted = resample_image(image.astype(dtype), (24, 30))
        found = build(rounds=rounds)(torch.from_numpy(image)[None])[0].numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("target", [(30, 30), (30, 90), (150, 128), (50, 64)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_resize_to_spreads_missing_pixels_to_their_neighbors_only(target, value):
    image = np.random.default_rng(1).random((2, 50, 64)).astype(np.float32)
    image[0, 10:14, 20:25] = image[0, 49, 63] = value
    with np.errstate(invalid="ignore"):
        wanted = resample_image(image, target)
    found = ResizeTo(target)(torch.from_numpy(image)[None])[0].numpy()
    if np.isnan(value):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    else:  # A weight of 0 makes NaN of infinity in `resample_image`.
        known = ~np.isnan(wanted)
        np.testing.assert_allclose(found[known], wanted[known], atol=1e-5)


def test_reduce_keeps_infinity_where_it_is():
    image = np.random.default_rng(1).random((1, 48, 60)).astype(np.float32)
    image[0, 3, 5], image[0, 47, 59] = np.inf, -np.inf
    wanted = resample_image(image, (24, 30))
    found = Reduce([Fraction(2)] * 2)(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_enlarge_equals_the_resampling_of_probabilities():
    image = np.random.default_rng(1).random((2, 9, 8)).astype(np.float32)
    found = enlarge(torch.from_numpy(image)[None], (19, 16))[0].numpy()
    np.testing.assert_allclose(found, resample_probabilities(image, (19, 16)), atol=1e-6)


@pytest.mark.parametrize(("size", "padded"), [(1, 16), (5, 16), (12, 16), (13, 28)])
def test_pad_mirrored_pads_to_the_next_legal_size(size, padded):
    # With a margin of 2, legal sizes are 16, 28, 40, ...
    image = np.arange(size * 20, dtype=np.float32).reshape(1, size, 20)
    found = PadMirrored(2, (16, 16), (12, 12))(torch.from_numpy(image)[None])[0].numpy()
    wanted = pad_mirrored(image, (2, 2), (padded - size - 2, 28 - 20 - 2))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("shape", [(5, 9), (8, 3), (4, 4)])
def test_crop_square_undoes_pad_to_square(shape):
    x = torch.rand(1, 2, *shape) + 1
    side = max(shape)
    square = PadToSquare()(x)
    assert square.shape == (1, 2, side, side)
    assert (square > 0).sum() == x.numel()
    assert torch.equal(crop_square(square, shape), x)
