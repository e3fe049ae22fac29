import os
import sys

import numpy as np
import pytest
from PIL import Image

from codes import raises_code
from ushape.data import case_stats
from ushape.data.case_stats import make_thumbnail, scan_case
from ushape.errors import UshapeError
from ushape.types import Case


def test_make_thumbnail_averages_channels_and_ignores_nan():
    image = np.full((2, 64, 64), 3.0, dtype=np.float32)
    image[1] = 5.0
    image[:, :2, :2] = np.nan
    thumbnail = make_thumbnail(image)
    assert thumbnail.shape == (32, 32)
    assert thumbnail[16, 16] == pytest.approx(4.0)
    assert np.isfinite(thumbnail).all()


def end_at_once(case, ignore):
    """Stand-in for a process that the memory limit of a container kills."""
    os._exit(9)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork")
def test_processes_that_are_killed_while_images_are_read_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(case_stats, "scan_case", end_at_once)
    cases = [Case(id=str(number), image=tmp_path / "a.png") for number in range(64)]
    with raises_code(UshapeError, "scan_process_ended") as caught:
        list(case_stats.scan_cases(cases, 2))
    assert "OMP_NUM_THREADS" in caught.value.hint
    assert "__main__" in caught.value.hint


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


def test_scan_case_does_not_count_ignored_pixels_as_objects(tmp_path):
    codes = np.full((40, 40), 7, dtype=np.uint8)  # Not annotated.
    codes[2:6, 2:10] = 255
    codes[20:22, :] = 0
    Image.fromarray(codes // 2 + 10).save(tmp_path / "a.png")
    Image.fromarray(codes).save(tmp_path / "m.png")
    case = Case(id="a", image=tmp_path / "a.png", mask=tmp_path / "m.png")
    stats = scan_case(case, ignore=7)
    assert stats.value_counts == {0: 80, 7: 1600 - 112, 255: 32}
    assert (stats.objects, stats.object_size) == (1, 8.0)
    assert set(stats.objects_by_value) == {255}
    assert stats.fit is None
    assert scan_case(case).objects > 1


@pytest.mark.parametrize("value", [np.inf, 3e38, 1e302])
def test_thumbnails_of_extreme_pixels_are_finite(value):
    image = np.ones((3, 64, 64))
    image[0, :4], image[1, :2] = value, -value
    assert np.isfinite(make_thumbnail(image)).all()
