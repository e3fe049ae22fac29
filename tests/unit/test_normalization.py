import numpy as np
import pytest

from ushape.normalization import Normalization

rng = np.random.default_rng(0)


def test_min_max_by_hand():
    normalization = Normalization.min_max(np.array([[2.0, 4.0, 10.0], [5.0, 5.0, np.nan]]))
    image = np.array([[[2.0, 4.0, 10.0, 12.0]], [[5.0, 5.0, 5.0, 6.0]]])
    np.testing.assert_allclose(normalization.apply(image), [[[0, 0.25, 1, 1]], [[0, 0, 0, 1]]])


def test_measure_standardizes_each_channel_and_ignores_nan():
    pixels = np.array([[1.0, 3.0, np.nan, np.inf], [7.0, 7.0, 7.0, 7.0]])
    normalization = Normalization.measure(pixels, (0, 100))
    image = np.array([[[1.0, 3.0, 9.0, np.nan]], [[7.0, 7.0, 7.0, 8.0]]])
    np.testing.assert_allclose(normalization.apply(image), [[[-1, 1, 1, 0]], [[0, 0, 0, 0]]])


def test_normalization_by_hand():
    normalization = Normalization(low=(0.0,), high=(10.0,), mean=(4.0,), std=(2.0,))
    image = np.array([[[-5, 0, 4, 10, 99]]], dtype=np.float32)
    assert normalization.apply(image).tolist() == [[[-2, -2, 0, 3, 3]]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_normalization_measured_on_any_dtype_standardizes(dtype):
    pixels = (rng.random((3, 5000)) * 250 * np.array([[0.2], [0.5], [1]])).astype(dtype)
    scaled = Normalization.measure(pixels).apply(pixels[:, :, None])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(scaled.std(axis=(1, 2)), 1, atol=0.02)


def test_normalization_of_constant_and_broken_channels_is_zero():
    pixels = np.array([[7.0] * 9, [np.nan] * 9, [np.inf] + [1.0] * 8])
    scaled = Normalization.measure(pixels).apply(pixels[:, :, None])
    assert np.isfinite(scaled).all()
    assert not scaled[0].any()


@pytest.mark.parametrize("scale", [1e17, 1e30, 1e37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_values_are_standardized_like_others(scale, dtype):
    pixels = rng.normal(5, 2, (1, 16_384)).astype(dtype)
    usual, huge = Normalization.measure(pixels), Normalization.measure(pixels * dtype(scale))
    assert huge.std[0] == pytest.approx(scale * usual.std[0], rel=1e-4)
    image = pixels[:, None, :9]
    np.testing.assert_allclose(huge.apply(image * dtype(scale)), usual.apply(image), atol=1e-3)
