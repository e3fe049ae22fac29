from dataclasses import replace

import numpy as np
import pytest

from ushape.evaluation.breakdown import break_down
from ushape.evaluation.comparison import compare_scores
from ushape.evaluation.scores import CaseScore, score_case
from ushape.evaluation.summary import BestScore, join_summaries, summarize
from ushape.labels import LabelSpace
from ushape.metrics.overlap import Counts
from ushape.metrics.probability import measure_reliability
from ushape.types import Case

SPACE = LabelSpace(values=(0, 1), names=("background", "cell"))
LESION = LabelSpace(values=(0, 255), names=("background", "lesion"))
FULL, NONE = np.ones((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
HALF = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], np.uint8)


def score(case, group, predicted, truth):
    return score_case(case, group, predicted, truth, LESION)


def made_score(case, dice, name="lesion", truth=1000, predicted=1000):
    """A case with this Dice if truth and prediction have equal size."""
    counts = Counts(overlap=round(dice * truth), truth=truth, predicted=predicted, pixels=10_000)
    return CaseScore(case=case, group=case, class_name=name, counts=counts, pixel_error=0.1)


def test_summarize_counts_missed_groups_as_0_and_excludes_empty_ones():
    scores = [
        *score("found", "a", FULL, FULL),
        *score("missed", "b", NONE, HALF),
        *score("alarm", "c", HALF, NONE),
        *score("empty", "d", NONE, NONE),
    ]
    (own,) = summarize(scores, noun="patients").classes
    assert own.mean_dice == own.mean_case_dice == 0.5
    assert own.case_kinds == {"both present": 1, "missed": 1, "false positive": 1, "both empty": 1}
    assert (own.groups_with_truth, own.missed_groups) == (2, 1)


def with_objects(scores):
    """The scores with an object F1 that falls and numbers of objects that rise."""
    names = ("true_objects", "predicted_objects", "missed_objects", "object_splits")
    return [
        replace(one, metrics={"object_f1": 1 - place / 20, **dict.fromkeys(names, place)})
        for place, one in enumerate(scores)
    ]


def test_verdicts_have_the_stored_wording(golden):
    many = [made_score(f"p{n:02}", 0.7 + 0.02 * n) for n in range(12)]
    few = [
        *many[:5],
        made_score("missed", 0),
        made_score("alarm", 0, truth=0),
        made_score("empty", 0, truth=0, predicted=0),
    ]
    both = [*many, *(made_score(one.case, 0.5 + 0.01 * n, "edema") for n, one in enumerate(many))]
    empty = [made_score("a", 0, truth=0, predicted=0), made_score("b", 0, truth=0)]
    best = BestScore(value=0.97, threshold=0.35, at_rule=0.88, images=12, at_default=0.86)
    topology = {"rand": best, "information": replace(best, value=0.98)}
    summaries = {
        "reliable": summarize(many, noun="patients"),
        "two classes": summarize(both, noun="patients"),
        "unreliable, missed, false positive": summarize(few, noun="patients"),
        "one group": summarize(many[:1], noun="patients"),
        "images used in training": summarize(many, noun="patients", seen_cases=3),
        "no foreground": summarize(empty, noun="images"),
        "one image without foreground": summarize(empty[:1], noun="images"),
        "cells and membranes": replace(summarize(many, noun="blocks"), topology=topology),
    }
    counted = [
        replace(one, metrics={**one.metrics, "object_merges": 2.0}) for one in with_objects(both)
    ]
    for name, scores in (
        ("objects", counted[:12]),
        ("objects of two classes, one group", [counted[0], counted[12]]),
        ("objects of an earlier version", with_objects(many)),
        ("objects without scores", many),
    ):
        summaries[name] = replace(summarize(scores, noun="patients"), is_about_objects=True)
    lines = [f"{name}: {summary.verdict}" for name, summary in summaries.items()]
    better = [made_score(one.case, one.dice + 0.02) for one in many]
    for name, pair in (
        ("reliable", (many, better)),
        ("unreliable", (many[:4], better[:4])),
        ("one group", (many[:1], better[:1])),
    ):
        (own,) = compare_scores(*pair, seed=0).classes
        lines.append(f"comparison, {name}: {own.verdict}")
    golden("verdicts.txt", "\n".join(lines) + "\n")


def test_summarize_averages_a_group_over_its_annotated_cases():
    ones = np.ones((2, 2), np.uint8)
    scores = [
        *score_case("a", "g", ones, ones, SPACE, [{"hausdorff95": 1.0}]),
        *score_case("b", "g", 0 * ones, ones, SPACE, [{"hausdorff95": 4.0}]),
        *score_case("c", "g", ones, 0 * ones, SPACE, [{"hausdorff95": 9.0}]),  # A false positive.
        *score_case("d", "h", ones, ones, SPACE, [{"hausdorff95": None}]),
    ]
    (own,) = summarize(scores, noun="groups").classes
    mean = own.means["hausdorff95"]
    assert (mean.value, mean.groups) == (2.5, 1)  # (1 + 4) / 2; the other has none.
    assert own.means["recall"].value == pytest.approx((0.5 + 1) / 2)  # Pixels of a group pooled.


def test_join_summaries_pools_reliability():
    shares, truth = np.array([0.2, 0.9, 0.7]), np.array([False, True, False])
    ones = np.ones((2, 2), np.uint8)
    parts = [
        summarize(
            score_case(name, name, ones, ones, SPACE),
            noun="groups",
            reliability={"cell": measure_reliability(shares[cut], truth[cut])},
            seen_cases=len(shares[cut]),
        )
        for name, cut in (("a", slice(0, 1)), ("b", slice(1, 3)))
    ]
    scores = [s for name in "ab" for s in score_case(name, name, ones, ones, SPACE)]
    whole = join_summaries(parts, summarize(scores, noun="groups"))
    pooled, at_once = whole.classes[0].reliability, measure_reliability(shares, truth)
    assert pooled.pixels == at_once.pixels
    assert pooled.brier == pytest.approx(at_once.brier)
    assert whole.seen_cases == 3


def test_join_summaries_drops_distances_in_different_units():
    ones = np.ones((2, 2), np.uint8)
    scores = score_case("a", "a", ones, ones, SPACE, [{"hausdorff95": 1.0, "auroc": 0.5}])
    part = summarize(scores, noun="groups")
    other = replace(part, distance_unit="mm")
    assert "hausdorff95" in join_summaries([part, part], part).classes[0].means
    means = join_summaries([part, other], part).classes[0].means
    assert "hausdorff95" not in means
    assert means["auroc"].value == 0.5


SPACE = LabelSpace(values=(0, 1), names=("background", "cell"))


def test_break_down_uses_columns_with_few_values():
    ones = np.ones((2, 2), np.uint8)
    cases = [
        Case(id=f"{n}", image="x", metadata={"scanner": "AB"[n % 2], "age": str(n), "site": "same"})
        for n in range(20)
    ]
    scores = [
        score
        for n in range(20)
        for score in score_case(f"{n}", f"g{n}", ones if n % 2 else 0 * ones, ones, SPACE)
    ]
    (table,) = break_down(scores, cases, noun="patients", seed=0)  # age has 20 values, site 1.
    assert table.title == "By scanner"
    assert table.rows[0] == ["A", "cell", "10", "10", "0.000", "0.000 to 0.000", "10"]
    assert table.rows[1] == ["B", "cell", "10", "10", "1.000", "1.000 to 1.000", "0"]


def test_summary_verdict_of_many_classes_names_the_best_and_the_worst():
    # Dice 0.1 to 0.9 and three times 1; the last class does not occur.
    sizes = [(min(index, 10), 10, 10) for index in range(1, 13)] + [(0, 0, 0)]
    scores = [
        CaseScore(
            case="a",
            group="a",
            class_name=f"class {index}",
            counts=Counts(overlap=overlap, truth=truth, predicted=predicted, pixels=100),
            pixel_error=0.25,
        )
        for index, (overlap, truth, predicted) in enumerate(sizes, 1)
    ]
    assert summarize(scores, noun="images").verdict == (
        "The mean Dice of 12 classes on images not used in training is 0.625: from 0.100 (class 1) "
        "to 1.000 (class 12). Not annotated in these images: 1 class. The pixel error is 0.2500."
    )
    objects = replace(summarize(with_objects(scores), noun="images"), is_about_objects=True)
    # 1, 0.95, ..., 0.45.
    assert objects.verdict.startswith("The mean object F1 at IoU 0.5 of 12 classes is 0.725. The ")
    plain = replace(summarize(scores, noun="images"), is_about_objects=True)
    assert plain.verdict.startswith("The mean Dice")


def test_join_summaries_is_about_objects_if_a_fold_is():
    parts = [summarize([made_score(name, 0.5)], noun="dishes") for name in "ab"]
    whole = summarize([made_score("a", 0.5), made_score("b", 0.5)], noun="dishes")
    assert not join_summaries(parts, whole).is_about_objects
    parts[1] = replace(parts[1], is_about_objects=True)
    assert join_summaries(parts, whole).is_about_objects
