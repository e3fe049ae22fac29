import numpy as np
import pytest

from ushape.labels import IGNORE
from ushape.transforms.overlay import (
    HIT_COLOR,
    PREDICTION_COLOR,
    TRUTH_COLOR,
    as_rgb,
    outline,
    overlay,
    tint_errors,
)


@pytest.fixture
def square():
    mask = np.zeros((12, 12), np.uint8)
    mask[3:8, 3:8] = 1
    return mask


def test_tint_errors_colors_hits_misses_and_false_positives():
    image = np.full((3, 1, 5), 100, dtype=np.uint8)
    truth = np.array([[1, 1, 0, 0, IGNORE]])
    guess = np.array([[1, 0, 1, 0, 1]])
    picture = tint_errors(image, truth, guess)[0]
    expected = [
        (0.55 * 100 + 0.45 * np.asarray(color)).astype(int)
        for color in (HIT_COLOR, TRUTH_COLOR, PREDICTION_COLOR)
    ]
    np.testing.assert_array_equal(picture, [*expected, [100] * 3, [100] * 3])


def test_tint_errors_treats_a_wrong_class_as_a_miss():
    image = np.full((1, 1, 4), 9, dtype=np.uint8)
    picture = tint_errors(image, np.array([[2, 2, 0, 0]]), np.array([[2, 1, 0, 0]]))[0]
    assert picture[0][1] > picture[0][2]  # Greenish.
    assert picture[1][2] > picture[1][1] > picture[1][0]  # Blue.


def test_outline_by_hand(square):
    truth, guess = square, np.roll(square, 2, axis=1)
    picture = outline(np.zeros((1, 12, 12), np.uint8), truth, guess)
    assert tuple(picture[5, 3]) == TRUTH_COLOR
    assert tuple(picture[5, 9]) == PREDICTION_COLOR
    assert tuple(picture[3, 6]) == (255, 255, 255)
    assert tuple(picture[0, 0]) == (0, 0, 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_as_rgb_accepts_any_image(dtype, channels):
    image = (np.random.default_rng(0).random((channels, 20, 24)) * 200).astype(dtype)
    picture = as_rgb(image)
    assert picture.shape == (20, 24, 3)
    assert picture.dtype == np.uint8
    assert picture.max() > 150
    assert (as_rgb(np.full((1, 8, 8), 7, dtype)) == 0).all()


def test_overlay_of_a_volume_shows_the_plane_with_most_foreground(square):
    volume = np.zeros((1, 3, 12, 12), np.uint8)
    volume[0, 2] = 90
    mask = np.stack([0 * square, 0 * square, square])
    picture = overlay(volume, mask)
    assert picture.shape == (12, 12, 3)
    assert tuple(picture[3, 3]) == PREDICTION_COLOR


def test_overlay_has_a_color_for_each_class(square):
    classes = square + square * (np.indices((12, 12))[1] > 5).astype(np.uint8)
    colors = ((0, 0, 0), (10, 20, 30), (40, 50, 60))
    picture = overlay(np.zeros((1, 12, 12), np.uint8), classes, colors, tint=0)
    assert tuple(picture[3, 3]) == (10, 20, 30)
    assert tuple(picture[7, 7]) == (40, 50, 60)
    assert tuple(picture[5, 4]) == (0, 0, 0)
