import numpy as np
import pytest
from PIL import Image

from ushape.data.case_stats import (
    count_values,
    make_thumbnail,
    measure_objects,
    scan_case,
)
from ushape.types import Case


@pytest.mark.parametrize("values", [(0, 7), (-3, 7), (0, 70_000)])
def test_count_values_returns_ascending_values_with_their_pixels(values):
    low, high = values
    found, counts = count_values(np.array([[high, low, low], [low, high, low]]))
    assert (found.tolist(), counts.tolist()) == ([low, high], [4, 2])


def test_make_thumbnail_averages_channels_and_ignores_nan():
    image = np.full((2, 64, 64), 3.0, dtype=np.float32)
    image[1] = 5.0
    image[:, :2, :2] = np.nan
    thumbnail = make_thumbnail(image)
    assert thumbnail.shape == (32, 32)
    assert thumbnail[16, 16] == pytest.approx(4.0)
    assert np.isfinite(thumbnail).all()


def test_scan_case_measures_values_and_objects(tmp_path):
    codes = np.zeros((20, 20), dtype=np.uint8)
    codes[2:6, 2:10] = codes[12:15, 3:6] = 255  # Parts of 4 x 8 and 3 x 3 pixels.
    Image.fromarray(codes // 2 + 10).save(tmp_path / "a.png")
    Image.fromarray(codes).save(tmp_path / "m.png")
    stats = scan_case(Case(id="a", image=tmp_path / "a.png", mask=tmp_path / "m.png"))
    assert stats.value_counts == {0: 400 - 41, 255: 41}
    assert (stats.objects, stats.object_size) == (2, 8.0)
    assert (stats.low, stats.high, stats.border_share) == (10.0, 137.0, 0.0)
    assert not stats.mask_is_image


def test_scan_case_stores_the_error_of_a_damaged_file(tmp_path):
    (tmp_path / "a.png").touch()
    stats = scan_case(Case(id="a", image=tmp_path / "a.png", mask=tmp_path / "a.png"))
    assert stats.is_zero_bytes
    assert stats.error
    assert stats.error_code
    assert stats.value_counts == {}


def test_measure_objects_by_hand():
    codes = np.zeros((20, 20), np.uint8)
    codes[1:4, 1:9] = 1  # 24 pixels, 8 long.
    codes[1:4, 9:11] = 2  # Touches it, another value: 6 pixels, 3 long.
    codes[10:12, 10:12] = 1  # 4 pixels, 2 long.
    found = measure_objects(codes, 0)
    assert found.summary == (3, 8.0)
    assert found.by_value == {1: (2, 8.0), 2: (1, 3.0)}
    empty = measure_objects(np.full((4, 4), 7), 7)
    assert empty.summary == (0, 0.0)
    assert empty.by_value == {}
