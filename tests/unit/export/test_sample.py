import numpy as np

from ushape.export.sample import _window


def test_window_has_the_share_of_foreground_nearest_to_a_half():
    foreground = np.zeros((60, 80), bool)
    foreground[40:50, 50:70] = True
    window = _window(foreground, (10, 20))
    assert foreground[window].shape == (10, 20)
    assert foreground[window].mean() == 0.5


def test_window_is_the_whole_image_if_it_is_small():
    foreground = np.ones((5, 9), bool)
    assert _window(foreground, (16, 16)) == (slice(0, 5), slice(0, 9))


def test_window_of_an_image_without_foreground_lies_inside():
    window = _window(np.zeros((33, 50, 70), bool), (32, 16, 17))
    assert [one.stop - one.start for one in window] == [32, 16, 17]
    assert all(one.start >= 0 for one in window)
    shape = (33, 50, 70)
    assert all(one.stop <= size for one, size in zip(window, shape, strict=True))
