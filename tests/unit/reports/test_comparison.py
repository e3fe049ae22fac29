from dataclasses import replace

import pytest

from reports import make_cases, make_report
from ushape.errors import RunError
from ushape.reports.comparison import Side, compare_sides, metric_tables, write_comparison


@pytest.fixture(scope="module")
def sides():
    cases = make_cases()
    return [
        Side(name="first", report=make_report(cases)),
        Side(name="$second_", report=make_report(cases[2:])),
    ]


def test_compare_sides_uses_the_shared_cases(sides, tmp_path):
    (found,) = compare_sides(sides)
    assert (found.cases, found.left_out) == (10, 2)
    write_comparison(tmp_path / "page.html", sides, [found])
    page = (tmp_path / "page.html").read_text()
    assert "$second_ vs. first" in page
    assert "2 cases evaluated in only one run are excluded" in page


def test_metric_tables_omit_distances_in_different_units(sides):
    (table,) = metric_tables(sides)
    assert "px; 0 is best" in [row[-1] for row in table.rows]
    summary = replace(sides[1].report.summary, distance_unit="mm")
    other = replace(sides[1], report=replace(sides[1].report, summary=summary))
    (table,) = metric_tables([sides[0], other])
    assert not any("0 is best" in row[-1] for row in table.rows)


def test_compare_sides_refuses_other_masks(sides):
    scores = [
        replace(one, counts=replace(one.counts, truth=one.counts.truth + 1))
        for one in sides[0].report.scores
    ]
    other = Side(name="other", report=replace(sides[0].report, scores=scores))
    with pytest.raises(RunError) as error:
        compare_sides([sides[0], other])
    assert error.value.code == "masks_differ"
