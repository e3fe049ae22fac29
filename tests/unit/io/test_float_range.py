import numpy as np
import pytest
import tifffile

from ushape.data.case_stats import scan_case
from ushape.data.reading import read_image
from ushape.inference.streaming import count_missing
from ushape.io.float_range import LARGEST, limit_to_float32, mean_of_channels
from ushape.io.streaming import open_bands
from ushape.types import Case

HUGE = 1e302


def test_values_beyond_32_bit_floats_are_infinite_and_others_stay():
    image = np.array([[LARGEST, -LARGEST, 1e39, -1e300, np.nan, np.inf, 0.1]])
    found = limit_to_float32(image)
    expected = [LARGEST, -LARGEST, np.inf, -np.inf, np.nan, np.inf, 0.1]
    np.testing.assert_array_equal(found, [expected])
    assert found.dtype == np.float64
    assert image[0, 2] == 1e39, "the image of the caller is not changed"


@pytest.mark.parametrize("dtype", [np.uint64, np.float16, np.float32, np.float64])
def test_images_without_such_values_are_returned_as_they_are(dtype):
    image = np.arange(6, dtype=dtype)[None]
    assert limit_to_float32(image) is image


def test_image_of_nan_is_returned_as_it_is():
    image = np.full((1, 3), np.nan)
    assert limit_to_float32(image) is image


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_every_way_to_read_a_file_counts_the_same_values_as_missing(suffix, tmp_path):
    pixels = np.random.default_rng(0).normal(size=(40, 40))
    pixels[3, 4], pixels[5, 6], pixels[7, 8] = HUGE, -HUGE, np.nan
    path = tmp_path / f"a{suffix}"
    np.save(path, pixels) if suffix == ".npy" else tifffile.imwrite(path, pixels)
    np.save(tmp_path / "m.npy", np.eye(40, dtype=np.uint8))
    case = Case(id="a", image=path, mask=tmp_path / "m.npy")
    assert scan_case(case).not_finite == 3
    assert (~np.isfinite(read_image(case))).sum() == 3
    with open_bands(path) as bands:
        assert count_missing(bands) == 3


def test_further_channels_are_limited_too(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((20, 20)))
    np.save(tmp_path / "b.npy", np.full((20, 20), HUGE))
    case = Case(id="a", image=tmp_path / "a.npy", channels=(tmp_path / "b.npy",))
    assert np.isinf(read_image(case)[1]).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -3e38])
def test_mean_of_channels_is_finite_and_can_be_squared(value):
    image = np.ones((2, 30, 30), np.float32)
    image[0, :10], image[1, :5] = value, -value
    gray = mean_of_channels(image)
    assert np.isfinite(gray).all()
    assert np.isfinite(gray.std())
