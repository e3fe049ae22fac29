import numpy as np

from ushape.data.outline_fit import fit_outline


def test_fit_outline_measures_the_shift_of_a_mask():
    image = np.zeros((1, 64, 64), dtype=np.float32)
    image[0, 20:44, 20:44] = 100
    codes = np.zeros((64, 64), dtype=np.uint8)
    codes[16:40, 20:44] = 1  # Four pixels too high.
    fit = fit_outline(image, codes)
    assert fit.shift == (4, 0)
    assert fit.best > fit.here
    assert fit_outline(np.zeros_like(image), codes) is None
    assert fit_outline(image, np.zeros_like(codes)) is None
