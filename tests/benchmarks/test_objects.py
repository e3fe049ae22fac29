"""Scores, report, data and watershed of `benchmarks/scores/objects.py`."""

import importlib
import time
from pathlib import Path

import numpy as np
import pytest
from skimage.draw import disk
from skimage.io import imsave

SCORES = Path(__file__).parents[2] / "benchmarks" / "scores"


@pytest.fixture(scope="module")
def load():
    """Return a function that imports a script of the benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCORES)
        yield importlib.import_module


def run(ap, seed=0, **groups):
    return {"ap": ap, "seed": seed, "group_ap": groups}


def test_scores_counted_by_hand(load):
    # Two annotated objects; one is found exactly, the other one is predicted at another place.
    truth = np.zeros((8, 8), dtype=np.uint16)
    truth[:2, :2], truth[4:6, 4:6] = 7, 3
    found = np.zeros((8, 8), dtype=np.uint8)
    found[:2, :2], found[4:6, :2], found[6:, 6:] = 1, 2, 3
    scores = load("objects").score_cases([("a", truth, found)])
    assert scores["ap50"] == pytest.approx(1 / 4)
    assert scores["ap"] == pytest.approx(1 / 4)
    assert scores["f1"] == pytest.approx(2 / 5)
    assert scores["count_error"] == 1
    assert (scores["truth"], scores["predicted"]) == (2, 3)


def test_counts_of_a_group_are_pooled(load):
    full, empty = np.ones((4, 4), dtype=np.uint8), np.zeros((4, 4), dtype=np.uint8)
    cases = [("a", full, full), ("a", full, empty), ("b", empty, empty)]
    scores = load("objects").score_cases(cases)
    assert scores["group_ap"] == {"a": 0.5, "b": 1.0}
    assert scores["ap50"] == 0.5
    assert scores["count_error"] == pytest.approx(1 / 3)


def test_comparison_uses_seeds_of_both_programs(load):
    runs = {
        ("cells", "ushape", 0): run(0.6, a=0.6),
        ("cells", "ushape", 1): run(0.7, a=0.7),
        ("cells", "stardist", 1): run(0.4, a=0.4),
        ("other", "stardist", 0): run(0.1, a=0.1),
    }
    objects = load("objects")
    pairs = objects.paired_runs(runs, "cells", "stardist")
    assert [(a["ap"], b["ap"]) for a, b in pairs] == [(0.4, 0.7)]
    assert objects.paired_runs(runs, "other", "stardist") == []


def test_difference_is_that_of_ushape_minus_the_other(load):
    pairs = [(run(0.2, a=0.1, b=0.3), run(0.5, a=0.4, b=0.6))]
    text = load("objects").difference_text(pairs)
    assert text.startswith("+0.300 [")
    assert text.endswith("2 groups")


def test_report_has_a_row_for_each_program_and_names_failures(load, capsys):
    common = {"data": "cells", "minutes": 5.0, "seed": 0}
    scores = {"ap50": 0.5, "f1": 0.6, "count_error": 2.0, "truth": 9, "predicted": 8}
    facts = {"steps": 10, "wall_s": 300.0}
    load("objects").print_report(
        [
            common | scores | facts | {"peer": "ushape"} | run(0.4, a=0.4, b=0.4),
            common | scores | facts | {"peer": "stardist"} | run(0.3, a=0.3, b=0.3),
            common | {"peer": "monai + watershed", "error": "out of memory"},
        ]
    )
    printed = capsys.readouterr().out
    assert "| cells | ushape | 1 | 0.500 | 0.400 | 0.600 | 2.0 | 8 / 9 | 10 | 300 |" in printed
    assert "- cells: +0.100" in printed
    assert "out of memory" in printed


def test_prepared_masks_number_the_objects(load, tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "masks", "instances"):
        (tmp_path / "dishes" / part).mkdir(parents=True)
    for index in range(10):
        numbers = np.zeros((32, 32), dtype=np.uint8)
        numbers[2:9, 2:9], numbers[9:16, 2:9], numbers[20:30, 20:30] = 4, 9, 1 + index
        image = (100 * (numbers > 0) + rng.integers(50, size=numbers.shape)).astype(np.uint8)
        for part, array in (("images", image), ("instances", numbers)):
            path = tmp_path / "dishes" / part / f"{index}.png"
            imsave(path, array, check_contrast=False)
        plain = tmp_path / "dishes" / "masks" / f"{index}.png"
        imsave(plain, (255 * (numbers > 0)).astype(np.uint8), check_contrast=False)
    data = load("prepared_data").prepare(
        str(tmp_path / "dishes"), tmp_path / "work", seed=0, objects=True
    )
    with np.load(load("peers").export_arrays(data)) as arrays:
        objects, mask = arrays["train/00000/objects"], arrays["train/00000/mask"]
    # The first two objects touch; the connected parts of the mask would be two.
    assert len(np.unique(objects[objects > 0])) == 3
    np.testing.assert_array_equal(mask, objects > 0)


def test_crop_of_a_volume_has_the_size_and_contains_foreground(load):
    rng = np.random.default_rng(0)
    image = rng.random((2, 5, 40, 30))
    mask = np.zeros((5, 40, 30), dtype=np.uint8)
    mask[4, 39, 29] = 1
    part, found = load("peer_arrays").crop(image, mask, (8, 16, 16), rng, around=True)
    assert part.shape == (2, 8, 16, 16)
    assert found.shape == (8, 16, 16)
    assert found.sum() == 1


def test_watershed_divides_overlapping_disks(load):
    probability = np.zeros((40, 60))
    for column in (20, 38):
        probability[disk((20, column), 10, shape=probability.shape)] = 0.9
    divide = load("watershed_training").Watershed(min_distance=5).divide
    objects = divide(probability)
    np.testing.assert_array_equal(objects > 0, probability > 0)
    assert len(np.unique(objects)) == 3
    assert objects[20, 15] != objects[20, 43]
    assert not divide(np.zeros((8, 8))).any()


def test_deadline_knows_the_time_that_is_reserved(load):
    process = load("peer_process")
    deadline = process.Deadline(time.time(), 60)
    end = deadline.end
    images = [np.zeros((4, 4)), np.zeros((8, 8))]
    process.reserve_prediction(deadline, lambda image: time.sleep(0.01), images)
    assert deadline.reserved_s > 1
    assert deadline.end == pytest.approx(end - deadline.reserved_s)
