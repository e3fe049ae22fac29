import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from reports import CELL, make_case, make_report
from ushape import formatting
from ushape._version import __version__
from ushape.evaluation.object_pictures import ObjectPicture
from ushape.evaluation.scores import CaseScore, read_scores, score_case, write_scores
from ushape.evaluation.summary import summarize
from ushape.formatting import TextTable
from ushape.labels import LabelSpace
from ushape.metrics.overlap import Counts
from ushape.reports import tables
from ushape.reports.comparison import Side, compare_sides, write_comparison
from ushape.reports.report import AUDIT_PAGE, AUDIT_TABLE, write_audit, write_card, write_report


@pytest.fixture(scope="module")
def cases():
    return [make_case(f"case<{n}>", 32, n, group=f"g{n % 3}") for n in range(8)]


@pytest.fixture
def written(tmp_path):
    """Writes a report and returns the page's text."""

    def write(report):
        write_report(tmp_path / "report.html", report)
        return (tmp_path / "report.html").read_text()

    return write


def score(name, truth_px, found_px):
    """A case whose first pixels are truth, and whose first pixels are found."""
    truth, found = np.zeros((2, 100), np.uint8)
    truth[:truth_px], found[:found_px] = 1, 1
    return score_case(name, "g", found, truth, CELL)


def test_write_report_has_all_sections_in_order(cases, written):
    page = written(make_report(cases))
    order = [
        "The mean Dice on",
        ">95% CI<",
        "Detection per image",
        "By dish: 8 for training",
        "No image of the test is a copy",
        "<h2>Results per image",
        "<h2>Confusion matrix",
        "Lowest Dice: case&lt;",
        "Median Dice: case&lt;",
        "Highest Dice: case&lt;",
        "Validation Dice",
        "<h2>Score by threshold",
        "<h2>Objects",
        "expected calibration error",
        "Dice by annotated size",
        "By microscope",
        "Results of all dishes",
        "Results of all images",
        "U-Net of 4 levels",
        "Seed 0",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


def test_write_report_escapes_text(cases, written):
    attack = "</script><script>alert(1)</script>"
    scores = [replace(own, group=attack) for case in cases for own in case.scores]
    page = written(make_report(cases, title=attack, scores=scores, plan_lines=[attack]))
    assert attack not in page
    assert page.count("<script>") == 1
    assert "case&lt;0&gt;" in page


def test_write_report_forbids_external_requests(cases, written):
    page = written(make_report(cases))
    assert "default-src &#39;none&#39;; img-src data:;" in page
    for loading in ('src="http', "@import", "<iframe", "<object", 'rel="stylesheet"'):
        assert loading not in page


def test_write_report_omits_empty_sections(written):
    empty = score("c", 0, 0)
    report = make_report(
        [], scores=empty, summary=summarize(empty, noun="images"), epochs=[], breakdowns=[]
    )
    page = written(report)
    assert "is not annotated in the only image" in page
    for section in (
        *("pictures", "training", "sizes", "breakdowns", "all-groups"),
        *("confusion", "thresholds", "objects"),
    ):
        assert f'id="{section}"' not in page


def test_write_report_shows_objects_first_if_the_masks_are_about_them(cases, written):
    blank = np.zeros((8, 8, 3), np.uint8)
    numbers = {"missed": 1, "merged": 2, "split": 3, "false_positives": 4}
    picture = ObjectPicture(
        case="x<y", class_name="cell", part="", **numbers, annotated=blank, predicted=blank
    )
    report = make_report(cases, object_pictures=[picture])
    page = written(report)
    assert (
        page.index('id="split"') < page.index('id="objects"') < page.index('id="object-pictures"')
    )
    page = written(replace(report, summary=replace(report.summary, is_about_objects=True)))
    assert page.index('id="scores"') < page.index('id="object-pictures"') < page.index('id="split"')
    assert page.count('id="object-pictures"') == 1
    assert "1 missed, 2 merged, 3 split, 4 false positives" in page
    assert "x&lt;y, cell" in page
    assert 'id="object-pictures"' not in written(make_report(cases))


def test_write_report_checks_each_table_cell_once(written, monkeypatch):
    own = make_case("a", 32, 1)
    many = [
        replace(own, scores=[replace(one, case=f"case {n}", group=f"g{n % 100}")])
        for n in range(3000)
        for one in own.scores
    ]
    asked, is_number = [], formatting._is_number
    monkeypatch.setattr(formatting, "_is_number", lambda text: asked.append(1) or is_number(text))
    page = written(make_report(many, pictures=[]))
    assert len(asked) < 30 * tables.MAX_ROWS  # About 10 columns in two tables.
    assert len(page) < 3_000_000
    assert "2\u202f000 more rows are in scores.csv." in page


def test_write_card_has_the_stored_wording(golden, tmp_path):
    report = make_report([make_case(f"c{n}", seed=n, group=f"g{n % 3}") for n in range(6)])
    write_card(tmp_path / "card.md", report)
    golden("model_card.md", (tmp_path / "card.md").read_text().replace(__version__, "VERSION"))


def test_write_card_escapes_markdown(tmp_path):
    report = make_report([make_case("c")], title="a|b `c` <d> *e*")
    write_card(tmp_path / "card.md", report)
    assert (tmp_path / "card.md").read_text().startswith("# a\\|b \\`c\\` \\<d\\> \\*e\\*\n")


HOSTILE = "<img src=x onerror=alert(1)>a|b`c`\n# d\x1b[31m\u202e\udcfc=$x$ _e_"


@pytest.fixture
def hostile():
    """A report in which every name is hostile."""
    space = LabelSpace(values=(0, 1), names=("background", HOSTILE))
    cases = [make_case(f"{HOSTILE}{n}", 32, n, space, group=HOSTILE) for n in range(2)]
    table = TextTable(title=HOSTILE, columns=[HOSTILE, "n"], rows=[[HOSTILE, "1"]])
    lines = {name: [HOSTILE] for name in ("split_lines", "leak_lines", "plan_lines")}
    return make_report(cases, title=HOSTILE, breakdowns=[table], **lines)


def check_page(page):
    """Check that a page has no element, control character or direction mark of a name."""
    assert not re.search(r"(?<!\\)<img src=x", page)
    assert not set(page) & set("\x1b\u202e\udcfc")
    assert r"\x1b" in page
    assert r"\u202e" in page


def test_write_report_shows_hostile_names_as_text(hostile, written):
    page = written(hostile)
    check_page(page)
    data = json.loads(re.search(r'id="page-data">(.*?)</script>', page, re.S)[1])
    assert "\\u202e" in data["classes"][0]["name"]
    assert all(ord(character) >= 32 for case in data["cases"] for character in case["id"])


def test_write_card_shows_hostile_names_as_text(hostile, tmp_path):
    write_card(tmp_path / "card.md", hostile)
    card = (tmp_path / "card.md").read_text()
    check_page(card)
    assert "\n# d" not in card
    assert r"\[31m" in card
    assert "<" not in card.replace("\\<", "")
    assert "`" not in card.replace("\\`", "")
    assert " _e_" not in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_write_audit_and_comparison_show_hostile_names_as_text(hostile, tmp_path):
    write_audit(tmp_path, HOSTILE, hostile.scores, hostile.pictures)
    check_page((tmp_path / AUDIT_PAGE).read_text())
    other = replace(
        hostile, scores=[replace(one, counts=Counts(overlap=0, truth=one.counts.truth, predicted=0,
        pixels=one.counts.pixels)) for one in hostile.scores]
    )  # fmt: skip
    sides = [Side(name=HOSTILE, report=hostile), Side(name=f"{HOSTILE}2", report=other)]
    write_comparison(tmp_path / "comparison.html", sides, compare_sides(sides))
    check_page((tmp_path / "comparison.html").read_text())


def test_stored_scores_restore_hostile_names(tmp_path):
    names = ["=1+1", "+x", "-x", "@x", "\tx", "'=x", "'x", "-5", "a\nb", 'a"b,c', "\udcfc", HOSTILE]
    scores = [one for name in names for one in score(name, 5, 4)]
    scores = [replace(one, group=one.case, class_name=one.case) for one in scores]
    write_scores(tmp_path / "scores.csv", scores)
    assert read_scores(tmp_path / "scores.csv") == scores


def audit_score(case, error_score, name="cell"):
    counts = Counts(overlap=5, truth=10, predicted=10, pixels=100)
    return CaseScore(
        case=case,
        group="g",
        class_name=name,
        counts=counts,
        pixel_error=0,
        metrics={"label_error_score": error_score},
    )


def test_write_audit_ranks_by_label_error_score(tmp_path):
    scores = [
        audit_score("a", 0.1),
        audit_score("b", 0.7),
        audit_score("c", 0.0),
        audit_score("a", 0.9, "nucleus"),
    ]
    pictures = [make_case(name).picture for name in "abc"]
    write_audit(tmp_path, "x & <y>", scores, pictures)
    with (tmp_path / AUDIT_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], float(row["label_error_score"])) for row in rows] == [
        ("a", 0.9),
        ("b", 0.7),
        ("c", 0.0),
    ]
    page = (tmp_path / AUDIT_PAGE).read_text()
    assert re.findall(r"<figcaption>(\w): label error score ([\d.]+), Dice ([\d.]+)", page) == [
        ("a", "0.900", "0.500"),
        ("b", "0.700", "0.500"),
    ]
    assert "x &amp; &lt;y&gt;" in page
    assert "2 of 3 cases" in page


def test_write_audit_without_label_errors(tmp_path):
    write_audit(tmp_path, "x", [audit_score("a", 0.0)], [make_case("a").picture])
    assert "No annotation errors were found" in (tmp_path / AUDIT_PAGE).read_text()
