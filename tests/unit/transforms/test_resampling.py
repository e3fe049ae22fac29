import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ushape.transforms.resampling import (
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


def test_probabilities_go_down_and_up_between_their_neighbors():
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


def average_by_repeating(line, new):
    """Each pixel `new` times over, then means of `old` neighbors: areas without fractions."""
    return line.repeat(new).reshape(new, len(line)).mean(axis=1)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_smaller_is_the_mean_over_the_exact_area(old, new, seed):
    old, new = max(old, new), min(old, new)
    line = np.random.default_rng(seed).random(old, dtype=np.float32)
    expected = average_by_repeating(line, new)
    for image, shape in ((line[None, None], (1, new)), (line[None, :, None], (new, 1))):
        found = resample_image(image, shape).ravel()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_five_pixels_in_two_by_hand():
    # The middle pixel is shared: (0 + 1 + 2/2) / 2.5 and (2/2 + 3 + 4) / 2.5.
    image = np.arange(5, dtype=np.float32)[None, None]
    np.testing.assert_allclose(resample_image(image, (1, 2)), [[[0.8, 3.2]]], atol=1e-6)


@pytest.mark.parametrize("new", [480, 959, 100])
def test_what_gets_smaller_stays_in_its_place(new):
    # Were pixels moved, masks brought back to full size would be beside their objects.
    ramp = np.arange(1918, dtype=np.float32)[None, None]
    centers = (np.arange(new) + 0.5) * 1918 / new - 0.5
    # A pixel cut in two at both ends moves the mean by at most 2 / 8 of its share.
    at_most = 0.25 * new / 1918 + 1e-3
    np.testing.assert_allclose(resample_image(ramp, (1, new))[0, 0], centers, atol=at_most)


def test_smaller_along_one_axis_and_larger_along_the_other():
    stripes = np.array([[0, 90, 0], [0, 90, 0]], dtype=np.uint8).T[None]  # (1, 3, 2)
    assert resample_image(stripes, (1, 4)).tolist() == [[[30, 30, 30, 30]]]
    volume = np.full((1, 4, 9, 5), 77, dtype=np.uint16)
    assert (resample_image(volume, (6, 4, 5)) == 77).all()


def test_the_same_grid_changes_the_dtype_of_floats_alone():
    assert resample_image(np.ones((1, 2, 2)), (2, 2)).dtype == np.float32
    assert resample_image(np.ones((1, 2, 2), np.uint16), (2, 2)).dtype == np.uint16


def test_a_missing_value_spoils_only_what_it_lies_in():
    image = np.ones((1, 1, 10), dtype=np.float32)
    image[0, 0, 4] = np.nan  # In the second third of ten, 3.33 to 6.67.
    assert np.isnan(resample_image(image, (1, 3))).tolist() == [[[False, True, False]]]


def test_ignored_only_where_more_than_half_is():
    # Three of seven are ignored: the largest share, but class 1 leads among the four others.
    most_of_all = np.array([[255, 255, 255, 0, 1, 1, 2]], dtype=np.uint8)
    assert resample_classes(most_of_all, (1, 1)).tolist() == [[1]]
    three_of_five = np.array([[255, 255, 255, 1, 1]], dtype=np.uint8)
    assert resample_classes(three_of_five, (1, 1)).tolist() == [[255]]
    half = np.array([[255, 3]], dtype=np.uint8)
    assert resample_classes(half, (1, 1)).tolist() == [[3]]


def test_larger_classes_are_the_nearest_pixel_s():
    classes = np.array([[0, 1, 255]], dtype=np.uint8)
    assert resample_classes(classes, (2, 7)).tolist() == [[0, 0, 1, 1, 1, 255, 255]] * 2


def test_memory_that_may_only_be_read_is_left_alone():
    soft = np.array([[[0.0, 1.0]]], dtype=np.float32)
    soft.flags.writeable = False
    assert resample_probabilities(soft, (1, 2)).tolist() == soft.tolist()
    assert resample_image(soft, (1, 1)).tolist() == [[[0.5]]]
