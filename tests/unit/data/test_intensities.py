import numpy as np

from ushape.data.intensities import thin_out


def test_thin_out_spreads_pixels_over_all_columns():
    image = np.broadcast_to(np.arange(64), (1, 64, 64))
    thin = thin_out(image, at_most=256)
    assert 256 <= thin.shape[1] <= 512
    assert len(np.unique(thin)) > 32
