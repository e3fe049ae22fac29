from dataclasses import replace

import numpy as np
import pytest

from reports import CELL, make_case, make_report
from ushape.evaluation.case_metrics import count_text, number_text
from ushape.evaluation.scores import mean_dice_by_case, score_case
from ushape.evaluation.summary import BestScore, summarize
from ushape.reports import tables
from ushape.reports.gallery import make_gallery
from ushape.reports.report import write_report
from ushape.reports.tables import kind_table, mean_tables, score_table, size_bands, topology_table


@pytest.fixture(scope="module")
def cases():
    return [make_case(f"case<{n}>", 32, n, group=f"g{n % 3}") for n in range(7)]


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


def test_the_page_tells_from_the_verdict_to_how_to_make_it_again(cases, written):
    page = written(make_report(cases))
    order = [
        "mean Dice is",
        ">95 % interval<",
        "Cases by kind",
        "By dish: 8 for training",
        "No image of the test is a copy",
        "<h2>Every case",
        "Worst: case&lt;",
        "Median: case&lt;",
        "Best: case&lt;",
        "Dice on the validation cases",
        "expected calibration error",
        "Dice by the size of the truth",
        "By microscope",
        "Scores of the dishes",
        "Scores of the images",
        "U-Net of 4 levels",
        "Seed 0",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


def test_text_of_the_user_is_escaped(cases, written):
    attack = "</script><script>alert(1)</script>"
    scores = [replace(own, group=attack) for case in cases for own in case.scores]
    page = written(make_report(cases, title=attack, scores=scores, plan_lines=[attack]))
    assert attack not in page
    assert page.count("<script>") == 1
    assert "case&lt;0&gt;" in page


def test_the_page_may_load_nothing(cases, written):
    page = written(make_report(cases))
    assert "default-src &#39;none&#39;; img-src data:;" in page
    for loading in ('src="http', "@import", "<iframe", "<object", 'rel="stylesheet"'):
        assert loading not in page


def test_a_page_of_nothing_is_still_a_page(written):
    empty = score("c", 0, 0)
    report = make_report(
        [], scores=empty, summary=summarize(empty, noun="images"), epochs=[], breakdowns=[]
    )
    page = written(report)
    assert "None of the 1 cases holds any cell" in page
    for section in ("pictures", "training", "sizes", "breakdowns", "all-groups"):
        assert f'id="{section}"' not in page


def test_of_thousands_of_cases_each_cell_is_looked_at_once(written, monkeypatch):
    own = make_case("a", 32, 1)
    many = [
        replace(own, scores=[replace(one, case=f"case {n}", group=f"g{n % 100}")])
        for n in range(3000)
        for one in own.scores
    ]
    asked, is_number = [], tables._is_number
    monkeypatch.setattr(tables, "_is_number", lambda text: asked.append(1) or is_number(text))
    page = written(make_report(many, pictures=[]))
    assert len(asked) < 30 * tables.MAX_ROWS  # Some 10 columns of two tables.
    assert len(page) < 3_000_000
    assert "2\u202f000 more rows are in scores.csv." in page


def test_kinds_and_false_alarms_by_hand():
    scores = [*score("a", 5, 5), *score("b", 5, 0), *score("c", 0, 3), *score("d", 0, 0)]
    table = kind_table(summarize(scores, noun="images"))
    assert table.rows == [["cell", "1", "1", "1", "1", "1 of 2 (50%)"]]


def test_means_have_titles_units_and_no_rows_without_a_value():
    (one,) = score("a", 5, 5)
    one = replace(one, measures={"hausdorff95": 12.34, "own_idea": 0.5, "surface_dice": None})
    summary = replace(summarize([one], noun="images"), distance_unit="mm")
    table, others = mean_tables(summary.classes[0], summary)
    assert table.rows[0] == ["Dice", "1.000", "", "1", "1 is best"]
    assert ["Hausdorff distance, 95 %", "12.3", "", "1", "mm; 0 is best"] in table.rows
    assert ["Own idea", "0.500", "", "1", ""] in others.rows
    assert "Surface Dice" not in [row[0] for row in table.rows]
    assert table.is_number == (False, True, True, True, False)


def test_topology_at_its_best_threshold():
    best = BestScore(value=0.97, threshold=0.35, at_rule=0.88, images=1)
    summary = replace(summarize(score("a", 5, 5), noun="images"), topology={"rand": best})
    table = topology_table(summary)
    assert table.rows == [["V_rand", "0.9700", "0.35", "0.8800"]]
    assert table.note == ""
    many = replace(summary, cases=40)
    assert topology_table(many).note == "Of 1 of the 40 images."


def test_bands_of_size_by_hand():
    scores = [one for size in (1, 2, 3, 10, 20, 50) for one in score(str(size), size, 2)]
    rows = size_bands(scores, "cell").rows
    # Two found: Dice 2/3 of one pixel, 1 of two, 4/5 of three, 4/12, 4/22, 4/52.
    assert rows[0] == ["1 to 2", "2", "0.833", "0.667", "0"]
    assert rows[-1] == ["50 to 50", "1", "0.077", "0.077", "0"]
    assert size_bands(score("empty", 0, 4), "cell").rows == []


def test_long_tables_say_what_they_leave_out():
    many = score("a", 1, 1) * 2500
    table = score_table("all", many, of_cases=True)
    assert len(table.rows) == 1000
    assert table.note == "1\u202f500 more rows are in scores.csv."


def test_numbers_in_words():
    assert [number_text(value) for value in (None, 0.12345, 9.9996, 12.34)] == [
        *("", "0.123", "10.000", "12.3")
    ]
    assert number_text(8.1, like=12.3) == "8.1"
    assert count_text(1234567) == "1\u202f234\u202f567"


def test_worst_median_and_best_come_first(cases):
    pictures = [case.picture for case in cases]
    dice = {"case<0>": 0.5, "case<1>": 0.1, "case<2>": 0.9, "case<3>": 0.2, "case<4>": 0.7}
    gallery = make_gallery(pictures, dice)
    assert [(one.place, one.case) for one in gallery.highlights] == [
        ("Worst", "case<1>"),
        ("Median", "case<0>"),
        ("Best", "case<2>"),
    ]
    order = [picture["case"] for picture in gallery.pictures]
    assert order == [f"case<{n}>" for n in (1, 0, 2, 3, 4, 5, 6)]
    assert [one.picture for one in gallery.highlights] == [0, 1, 2]


def test_the_median_is_that_of_all_cases_also_of_those_without_a_picture(cases):
    dice = {"case<0>": 0.1, "case<1>": 0.5, "case<2>": 0.8, "case<3>": 0.9, "a": 0.85, "b": 0.86}
    gallery = make_gallery([case.picture for case in cases[:4]], dice)
    assert [one.case for one in gallery.highlights] == ["case<0>", "case<2>", "case<3>"]


@pytest.mark.parametrize(("shown", "places"), [(0, []), (1, ["Worst"]), (2, ["Worst", "Best"])])
def test_fewer_cases_have_fewer_highlights(cases, shown, places):
    pictures = [case.picture for case in cases[:shown]]
    gallery = make_gallery(pictures, {f"case<{n}>": n / 10 for n in range(shown)})
    assert [one.place for one in gallery.highlights] == places


def test_pictures_shrink_until_all_fit_and_then_get_fewer():
    cases = [make_case(f"c{n}", 256, n) for n in range(4)]
    pictures = [case.picture for case in cases]
    dice = mean_dice_by_case([own for case in cases for own in case.scores])
    whole = sum(len(str(one)) for one in make_gallery(pictures, dice).pictures)
    smaller = make_gallery(pictures, dice, most_bytes=int(0.8 * whole))
    assert len(smaller.pictures) == 4
    assert sum(len(str(one)) for one in smaller.pictures) < 0.8 * whole
    fewer = make_gallery(pictures, dice, most_bytes=int(0.3 * whole))
    assert 1 <= len(fewer.pictures) < 4
    assert fewer.pictures[0]["case"] == min(dice, key=dice.__getitem__)
