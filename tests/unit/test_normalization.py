import numpy as np

from ushape.normalization import Normalization


def test_min_max_by_hand():
    normalization = Normalization.min_max(np.array([[2.0, 4.0, 10.0], [5.0, 5.0, np.nan]]))
    image = np.array([[[2.0, 4.0, 10.0, 12.0]], [[5.0, 5.0, 5.0, 6.0]]])
    np.testing.assert_allclose(normalization.apply(image), [[[0, 0.25, 1, 1]], [[0, 0, 0, 1]]])


def test_measure_standardizes_each_channel_and_ignores_nan():
    pixels = np.array([[1.0, 3.0, np.nan, np.inf], [7.0, 7.0, 7.0, 7.0]])
    normalization = Normalization.measure(pixels, (0, 100))
    image = np.array([[[1.0, 3.0, 9.0, np.nan]], [[7.0, 7.0, 7.0, 8.0]]])
    np.testing.assert_allclose(normalization.apply(image), [[[-1, 1, 1, 0]], [[0, 0, 0, 0]]])
