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


def test_fit_outline_leaves_out_where_the_annotation_ends():
    image = np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)
    codes = np.full((64, 64), 9, dtype=np.uint8)
    codes[20:30, 20:30] = 0
    codes[40:50, 20:30] = 1
    assert fit_outline(image, codes) is not None
    assert fit_outline(image, codes, ignore=9) is None  # No class borders on another one.
