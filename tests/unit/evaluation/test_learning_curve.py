import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ushape.errors import DataError, RunError
from ushape.evaluation.learning_curve import make_curve
from ushape.evaluation.scores import CaseScore
from ushape.metrics.overlap import Counts
from ushape.reports.learning_curve import write_curve


def score(group, dice, name="cell", truth=1000):
    """As much predicted as there is, so that Dice is the share that overlaps."""
    counts = Counts(overlap=round(dice * truth), truth=truth, predicted=truth, pixels=10_000)
    return CaseScore(
        case=f"{group}/0", group=group, class_name=name, counts=counts, pixel_error=0.1
    )


def counts(truth, predicted):
    """Where nothing overlaps."""
    return Counts(overlap=0, truth=truth, predicted=predicted, pixels=10_000)


def curve_of(*points, tested=12, noun="patients", spread=0.02):
    scores = [
        [score(f"p{n:02d}", dice + spread * (n - (tested - 1) / 2) / tested) for n in range(tested)]
        for dice in points
    ]
    groups = (3, 6, 12, 24)[: len(points)]
    folders = [Path(f"groups-{count}") for count in groups]
    cases = [10 * count for count in groups]
    return make_curve(groups, cases, folders, scores, noun=noun, seed=0)


def test_a_rising_curve_says_what_twice_the_groups_bring():
    # The error falls to 0.6 of itself with each doubling: 0.0864 to 0.0518, 0.0311.
    curve = curve_of(0.6, 0.76, 0.856, 0.9136, spread=0.1)
    assert curve.verdict == (
        "Mean Dice on 12 test patients: 0.60 after training on 3, 0.91 on 24 patients. "
        "Twice the patients: +0.03 [0.03, 0.03]; four times: +0.06 [0.05, 0.06]."
    )


def test_a_falling_curve_is_not_extrapolated():
    curve = curve_of(0.8, 0.78, 0.79, 0.75)
    assert "does not rise: there is nothing to extrapolate" in curve.verdict
    assert "Twice" not in curve.verdict
    assert curve.verdict.count("Before you annotate more patients") == 1


def test_a_curve_that_ends_where_it_began_does_not_rise():
    assert "does not rise" in curve_of(0.5, 0.9, 0.5, 0.49).verdict
    assert "does not rise" in curve_of(0.8, 0.7, 0.6, 0.801).verdict


def test_a_flat_curve_advises_something_else():
    curve = curve_of(0.6, 0.8, 0.8, 0.8)
    assert curve.law.scale > 0
    assert "Before you annotate more patients" in curve.verdict
    assert "does not rise" not in curve.verdict


def test_few_test_groups_are_named():
    verdict = curve_of(0.6, 0.7, 0.75, 0.78, tested=9).verdict
    assert "With 9 test patients the intervals are not to be relied on." in verdict
    lone = curve_of(0.6, 0.7, 0.75, tested=1, noun="blocks of sections")
    assert "on 1 test block of sections:" in lone.verdict
    assert "[" not in lone.verdict
    assert lone.points[0].interval is None
    assert "One test block of sections says nothing about the spread." in lone.verdict


def test_a_group_is_the_mean_of_the_classes_that_it_holds():
    # a: (0.5 + 0.9) / 2 = 0.7. b: only cells, 0.3. c holds nothing, d is missed: 0.
    one = [
        score("a", 0.5),
        score("a", 0.9, "nucleus"),
        score("b", 0.3),
        replace(score("b", 0, "nucleus"), counts=counts(0, 50)),
        replace(score("c", 0), counts=counts(0, 50)),
        replace(score("d", 0), counts=counts(80, 0)),
    ]
    folders = [Path("x")] * 3
    curve = make_curve((1, 2, 3), (1, 2, 3), folders, [one] * 3, noun="dishes", seed=0)
    assert curve.test_groups == 3
    assert curve.points[0].dice == pytest.approx((0.7 + 0.3 + 0) / 3)


def test_points_of_other_tests_are_refused():
    folders = [Path("x")] * 3
    with pytest.raises(RunError, match="same groups"):
        make_curve(
            (1, 2, 3),
            (1, 2, 3),
            folders,
            [[score("a", 0.5)], [score("b", 0.5)], [score("a", 0.5)]],
            noun="dishes",
            seed=0,
        )
    empty = [replace(score("a", 0), counts=counts(0, 0))]
    with pytest.raises(DataError, match="holds anything to be found"):
        make_curve((1, 2, 3), (1, 2, 3), folders, [empty] * 3, noun="dishes", seed=0)


@pytest.mark.parametrize("tested", [1, 12])
def test_the_files_hold_the_same_numbers(tmp_path, tested):
    curve = curve_of(0.6, 0.76, 0.856, 0.9136, tested=tested)
    page = write_curve(tmp_path, curve, "title", ["how <it> was made"])
    stored = json.loads((tmp_path / "learning_curve.json").read_text())
    assert stored["verdict"] == curve.verdict
    assert stored["gains"][0]["dice"] == curve.gains[0].dice
    assert stored["points"][2]["folder"] == "groups-12"
    assert stored["points"][2]["cases"] == 120
    rows = list(csv.DictReader((tmp_path / "learning_curve.csv").read_text().splitlines()))
    assert [row["groups"] for row in rows] == ["3", "6", "12", "24"]
    assert [float(row["mean_dice"]) for row in rows] == pytest.approx(
        [point.dice for point in curve.points], abs=1e-6
    )
    assert bool(rows[0]["low"]) == (tested > 1)
    html = page.read_text()
    assert "<svg" in html
    assert 'href="groups-6/report.html"' in html
    assert "how &lt;it&gt; was made" in html
    assert f"+{curve.gains[1].dice:.3f}" in html
