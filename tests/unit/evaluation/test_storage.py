"""scores.csv, scores.json and pictures are enough to make every page again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from reports import make_case, make_report
from ushape.errors import RunError
from ushape.evaluation.breakdowns import break_down
from ushape.evaluation.scores import read_scores, score_case, write_scores
from ushape.evaluation.storage import CARD, FACTS, load_report, refuse_existing, save_report
from ushape.evaluation.summary import join_summaries, summarize
from ushape.labels import LabelSpace
from ushape.metrics.probability import measure_reliability
from ushape.types import Case

SPACE = LabelSpace(values=(0, 1), names=("background", "cell"))


@pytest.fixture(scope="module")
def report():
    return make_report([make_case(f"c{n}", seed=n, group=f"g{n % 3}") for n in range(6)])


def test_a_report_comes_back_as_it_was(report, tmp_path):
    save_report(tmp_path, report)
    found = load_report(tmp_path)
    assert found.summary == report.summary
    for name in ("split_lines", "leak_lines", "plan_lines", "reproduce_lines", "epochs"):
        assert list(getattr(found, name)) == list(getattr(report, name)), name
    assert [table.rows for table in found.breakdowns] == [t.rows for t in report.breakdowns]
    for own, other in zip(found.scores, report.scores, strict=True):
        assert (own.case, own.group, own.counts) == (other.case, other.group, other.counts)
        assert own.measures == pytest.approx(dict(other.measures), abs=1e-6)
    for own, other in zip(found.pictures, report.pictures, strict=True):
        assert (own.case, own.part) == (other.case, other.part)
        assert (own.truth == other.truth).all()
        assert (own.classes[0].percent == other.classes[0].percent).all()


def test_damage_is_told(report, tmp_path):
    save_report(tmp_path, report)
    for content in ("", "[]", "{", '{"title": 3}', '{"titel": "x"}'):
        (tmp_path / FACTS).write_text(content)
        with pytest.raises(RunError, match=r"scores\.json: no scores of ushape"):
            load_report(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(RunError, match="No such file"):
        load_report(tmp_path)


def test_a_table_that_was_cut_off(report, tmp_path):
    save_report(tmp_path, report)
    content = (tmp_path / "scores.csv").read_text()
    for damaged, said in (
        (content[: content.rindex("both present")], "no scores of ushape"),
        (content[: content.rstrip().rindex("\n") + 1], "5 cases, where scores.json has 6"),
        (content.replace("overlap_px", "overlap"), "no column overlap_px"),
    ):
        (tmp_path / "scores.csv").write_text(damaged)
        with pytest.raises(RunError, match=said):
            load_report(tmp_path)


def test_foreign_files_among_the_pictures_stay(report, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.json").write_text("mine")
    save_report(tmp_path, report)
    save_report(tmp_path, report)
    assert (tmp_path / "pictures" / "mine.json").read_text() == "mine"
    with pytest.raises(RunError, match=r"groups\.csv|scores\.csv"):
        refuse_existing(tmp_path)


def test_scores_of_a_table_keep_what_was_measured(tmp_path):
    ones = np.ones((2, 2), np.uint8)
    scores = score_case("a", "g", ones, ones, SPACE, [{"hausdorff95": 1.5, "auroc": None}])
    scores += score_case("b", "g", ones, 0 * ones, SPACE, [{"hausdorff95": 3.0}])
    write_scores(tmp_path / "s.csv", scores)
    found = read_scores(tmp_path / "s.csv")
    assert [score.measures for score in found] == [
        {"hausdorff95": 1.5, "auroc": None},
        {"hausdorff95": 3.0, "auroc": None},
    ]


def test_means_of_a_group_are_over_the_cases_that_hold_the_class():
    ones = np.ones((2, 2), np.uint8)
    scores = [
        *score_case("a", "g", ones, ones, SPACE, [{"hausdorff95": 1.0}]),
        *score_case("b", "g", 0 * ones, ones, SPACE, [{"hausdorff95": 4.0}]),
        *score_case("c", "g", ones, 0 * ones, SPACE, [{"hausdorff95": 9.0}]),  # A false alarm.
        *score_case("d", "h", ones, ones, SPACE, [{"hausdorff95": None}]),
    ]
    (own,) = summarize(scores, noun="groups").classes
    mean = own.means["hausdorff95"]
    assert (mean.value, mean.groups) == (2.5, 1)  # (1 + 4) / 2; the other has none.
    assert own.means["recall"].value == pytest.approx((0.5 + 1) / 2)  # Pixels of a group pooled.


def test_folds_pool_their_reliability():
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


def test_folds_of_different_units_have_no_mean_distance():
    ones = np.ones((2, 2), np.uint8)
    scores = score_case("a", "a", ones, ones, SPACE, [{"hausdorff95": 1.0, "auroc": 0.5}])
    part = summarize(scores, noun="groups")
    other = replace(part, distance_unit="mm")
    assert "hausdorff95" in join_summaries([part, part], part).classes[0].means
    means = join_summaries([part, other], part).classes[0].means
    assert "hausdorff95" not in means
    assert means["auroc"].value == 0.5


def test_breakdown_by_what_a_table_says():
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
    (table,) = break_down(scores, cases, noun="patients", seed=0)  # Not age: 20 values; nor site.
    assert table.title == "By scanner"
    assert table.rows[0] == ["A", "cell", "10", "10", "0.000", "0.000 to 0.000", "10"]
    assert table.rows[1] == ["B", "cell", "10", "10", "1.000", "1.000 to 1.000", "0"]


def test_the_card_names_its_limits(report, tmp_path):
    save_report(tmp_path, report)
    card = (tmp_path / CARD).read_text()
    assert report.summary.verdict in card
    for heading in ("Intended use", "Data", "Scores", "Limits", "To make it again"):
        assert f"## {heading}" in card
    assert "too few for an interval that can be relied on" in card
    assert "| Dice |" in card
    assert json.loads((tmp_path / FACTS).read_text())["summary"]["groups"] == 3
