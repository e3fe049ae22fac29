import csv

import numpy as np
import pytest

from ushape.evaluation.scores import pool_groups, score_case, write_scores
from ushape.evaluation.summary import summarize
from ushape.labels import LabelSpace

SPACE = LabelSpace(values=(0, 255), names=("background", "lesion"))
FULL, NONE = np.ones((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
HALF = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], np.uint8)


def score(case, group, predicted, truth):
    return score_case(case, group, predicted, truth, SPACE)


def test_groups_are_pooled_not_averaged():
    # Slice 1: Dice 2*4/(8+4) = 0.667; slice 2: 1; pooled: 2*12/(16+12) = 0.857.
    scores = score("1", "p", HALF, FULL) + score("2", "p", FULL, FULL)
    (pooled,) = pool_groups(scores)
    assert pooled.dice == pytest.approx(24 / 28)
    assert summarize(scores, noun="patients").classes[0].mean_dice == pytest.approx(24 / 28)


def test_a_miss_scores_0_and_empty_pairs_are_averaged_in_nowhere():
    scores = [
        *score("found", "a", FULL, FULL),
        *score("missed", "b", NONE, HALF),
        *score("alarm", "c", HALF, NONE),
        *score("empty", "d", NONE, NONE),
    ]
    (own,) = summarize(scores, noun="patients").classes
    assert own.mean_dice == own.mean_case_dice == 0.5
    assert own.case_kinds == {"both present": 1, "missed": 1, "false alarm": 1, "both empty": 1}
    assert (own.groups_with_truth, own.missed_groups) == (2, 1)


def test_verdict_says_how_sure_and_what_went_wrong():
    scores = [
        *score("1", "a", FULL, FULL),
        *score("2", "b", NONE, HALF),
        *score("3", "c", HALF, NONE),
    ]
    verdict = summarize(scores, noun="patients").verdict
    assert "On 2 patients never seen in training the mean Dice is 0.500 [0.000, 1.000]." in verdict
    assert "With 2 patients the interval is not to be relied on." in verdict
    assert "1 of them missed." in verdict
    assert "False alarms on 1 of 1 images without lesion." in verdict


def test_ten_groups_are_relied_on_and_one_is_not_an_interval():
    many = [s for n in range(10) for s in score(str(n), str(n), HALF, FULL)]
    assert "relied" not in summarize(many, noun="images").verdict
    one = summarize(score("1", "a", HALF, FULL), noun="images").verdict
    assert "On 1 image never" in one
    assert "nothing about the spread" in one


def test_nothing_to_be_found_is_said():
    summary = summarize(score("1", "a", NONE, NONE), noun="images")
    assert summary.mean_dice is None
    assert "None of the 1 cases holds any lesion" in summary.verdict


def test_table_has_empty_fields_and_no_nan(tmp_path):
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
