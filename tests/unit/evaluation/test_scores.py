import csv

import numpy as np
import pytest

from ushape.evaluation.scores import pool_groups, read_scores, score_case, write_scores
from ushape.evaluation.summary import summarize
from ushape.labels import LabelSpace

SPACE = LabelSpace(values=(0, 255), names=("background", "lesion"))
FULL, NONE = np.ones((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
HALF = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], np.uint8)


def score(case, group, predicted, truth):
    return score_case(case, group, predicted, truth, SPACE)


def test_pool_groups_adds_pixels():
    # Slice 1: Dice 2*4/(8+4) = 0.667; slice 2: 1; pooled: 2*12/(16+12) = 0.857.
    scores = score("1", "p", HALF, FULL) + score("2", "p", FULL, FULL)
    (pooled,) = pool_groups(scores)
    assert pooled.dice == pytest.approx(24 / 28)
    assert summarize(scores, noun="patients").classes[0].mean_dice == pytest.approx(24 / 28)


def test_write_scores_leaves_undefined_values_empty(tmp_path):
    scores = score("a,b", "g", NONE, NONE) + score("c", "g", HALF, FULL)
    write_scores(tmp_path / "scores.csv", scores)
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert rows[0]["case"] == "a,b"
    assert (rows[0]["kind"], rows[0]["dice"], rows[0]["iou"]) == ("both empty", "", "")
    assert (rows[1]["dice"], rows[1]["truth_px"], rows[1]["pixel_error"]) == (
        "0.666667",
        "8",
        "0.500000",
    )


def test_read_scores_restores_metrics(tmp_path):
    ones = np.ones((2, 2), np.uint8)
    scores = score_case("a", "g", ones, ones, SPACE, [{"hausdorff95": 1.5, "auroc": None}])
    scores += score_case("b", "g", ones, 0 * ones, SPACE, [{"hausdorff95": 3.0}])
    write_scores(tmp_path / "s.csv", scores)
    found = read_scores(tmp_path / "s.csv")
    assert [score.metrics for score in found] == [
        {"hausdorff95": 1.5, "auroc": None},
        {"hausdorff95": 3.0, "auroc": None},
    ]
