import numpy as np
import pytest

from ushape.spatial.grid import (
    pad_mirrored,
    resample_classes,
    resample_image,
    resample_probabilities,
)


def test_halving_averages_each_square():
    image = np.array([[[0, 2, 10, 10], [4, 6, 10, 10]]], dtype=np.float32)
    assert resample_image(image, (1, 2)).tolist() == [[[3.0, 10.0]]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_integers_stay_what_they_are(dtype):
    image = np.full((2, 9, 7), 200 if dtype == "uint8" else 1000, dtype=dtype)
    small = resample_image(image, (4, 3))
    assert small.dtype == image.dtype
    assert (small == image[0, 0, 0]).all()


def test_a_ramp_keeps_its_mean_and_its_order():
    ramp = np.arange(31, dtype=np.float32)[None, None].repeat(8, axis=1)
    small = resample_image(ramp, (8, 7))
    assert (np.diff(small[0, 0]) > 0).all()
    assert small.mean() == pytest.approx(15.0, abs=0.5)


def test_probabilities_go_down_and_up_between_their_neighbours():
    up = resample_probabilities(np.array([[[0.0, 1.0]]]), (1, 4))
    assert up.tolist() == [[[0.0, 0.25, 0.75, 1.0]]]


def test_classes_by_majority_and_no_new_ones():
    classes = np.array([[0, 0, 2, 2], [0, 1, 2, 255]], dtype=np.uint8)
    assert resample_classes(classes, (1, 2)).tolist() == [[0, 2]]
    back = resample_classes(classes, (5, 9))
    assert set(np.unique(back)) <= {0, 1, 2, 255}


def test_mirrored_edges_by_hand_also_beyond_the_image():
    padded = pad_mirrored(np.array([[[1, 2, 3]]]), (0, 4), (0, 2))
    assert padded.tolist() == [[[1, 2, 3, 2, 1, 2, 3, 2, 1]]]
    assert pad_mirrored(np.ones((1, 1, 1)), (2, 3), (2, 3)).shape == (1, 5, 7)
