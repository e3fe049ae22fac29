import numpy as np
import pytest
from scipy import ndimage

from ushape.data.duplicates import MIN_CORRELATION, find_duplicate_images
from ushape.data.image_details import (
    _spread,
    describe_details,
    find_field_of_view,
    symmetric_views,
    trim_border,
)


def picture(seed, size=160, channels=1):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((size, size)), 3)
    return 120 + 400 * np.repeat(smooth[None], channels, axis=0)


def is_duplicate(one, other):
    details = [describe_details(one), describe_details(other)]
    return bool(list(find_duplicate_images(["a", "b"], [b"a", b"b"], details)))


def fundus(seed, size=160):
    y, x = np.mgrid[:size, :size] - size / 2
    return picture(seed, size) * (np.hypot(y, x) < 0.48 * size) + 2


COPIES = {
    "noise": lambda image: image + np.random.default_rng(1).normal(0, 4, image.shape),
    "smaller": lambda image: image[:, ::2, ::2],
    "mirrored": lambda image: image[:, :, ::-1],
    "rotated by 90": lambda image: np.rot90(image, axes=(1, 2)),
    "rotated by 180": lambda image: image[:, ::-1, ::-1],
    "brighter": lambda image: 1.3 * image + 20,
    "blurred": lambda image: ndimage.gaussian_filter(image, (0, 1.6, 1.6)),
    "border": lambda image: np.pad(image, ((0, 0), (20, 30), (10, 10))),
    "letterbox": lambda image: np.pad(image, ((0, 0), (40, 40), (0, 0)), constant_values=255),
    "three channels": lambda image: np.repeat(image, 3, axis=0),
    "huge values": lambda image: image * 1e36,
}


@pytest.mark.parametrize("kind", COPIES)
def test_details_of_a_copy_are_those_of_the_image(kind):
    image = picture(0)
    assert is_duplicate(image, COPIES[kind](image))
    assert is_duplicate(COPIES[kind](image), image)
    assert not is_duplicate(picture(5), COPIES[kind](image))


def test_details_of_round_fields_of_view_differ():
    assert not is_duplicate(fundus(0), fundus(1))
    assert is_duplicate(fundus(0), fundus(0)[:, :, ::-1])


def test_field_of_view_is_found_only_if_corners_are_dark():
    inside = find_field_of_view(fundus(0)[0])
    assert inside[80, 80] == 1
    assert not inside[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert find_field_of_view(picture(0)[0]).all()
    assert find_field_of_view(np.zeros((64, 64))).all()


def test_border_is_trimmed_on_each_side():
    image = picture(0)[0]
    for value in (0, 120, 255):
        padded = np.pad(image, ((5, 9), (0, 20)), constant_values=value)
        np.testing.assert_array_equal(trim_border(padded), image)
    plain = np.full((40, 40), 7.0)
    assert trim_border(plain) is plain


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (40, 1), (7, 50), (101, 64)])
def test_spread_of_rows_and_columns_is_that_between_two_percentiles(shape):
    gray = np.random.default_rng(0).random(shape)
    for axis in (0, 1):
        low, high = np.percentile(gray, (2, 98), axis=axis)
        np.testing.assert_allclose(_spread(gray, axis), high - low, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 40), (40, 2)])
def test_images_of_one_or_two_pixels_along_a_side_are_described(shape):
    noise = np.random.default_rng(0).integers(0, 255, (1, *shape)).astype(float)
    for image in (noise, np.full((1, *shape), 7.0)):
        assert np.isfinite(describe_details(image)).all()


def test_details_have_mean_0_and_norm_1():
    for image in (picture(0), fundus(0), np.pad(picture(1), ((0, 0), (20, 20), (20, 20)))):
        for own in describe_details(image):
            assert own.mean() == pytest.approx(0, abs=1e-5)
            assert np.linalg.norm(own) == pytest.approx(1, abs=1e-5)
    assert not describe_details(np.full((1, 50, 50), 9)).any()
    assert not describe_details(np.full((1, 50, 50), np.nan)).any()


def test_symmetric_views_are_all_different():
    details = describe_details(picture(0))
    views = np.concatenate(list(symmetric_views(details)))
    assert len(np.unique(views.round(5), axis=0)) == 8
    np.testing.assert_array_equal(views[0], details[0])
    assert (views @ views.T < MIN_CORRELATION).sum() == 8 * 7
