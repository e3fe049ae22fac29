"""Report page of an evaluation: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ushape.evaluation.breakdowns import TextTable
from ushape.evaluation.scores import CaseScore, dice_by_case, pool_groups
from ushape.evaluation.storage import CARD, PAGE, Report
from ushape.evaluation.summary import Summary
from ushape.reports import write_page
from ushape.reports.gallery import make_gallery, plot_data
from ushape.reports.model_card import write_card
from ushape.reports.tables import (
    epoch_table,
    kind_table,
    mean_tables,
    reliability_table,
    score_table,
    size_table,
    topology_table,
    worst_first,
)

SCRIPTS = (
    "vendor/plot.js",
    *(f"report/{name}.js" for name in ("rasters", "card", "chooser", "plots", "tables", "start")),
)
"""JavaScript files of the page, in this order."""


def write_pages(folder: Path, report: Report) -> None:
    """Write model_card.md and then report.html into a folder."""
    write_card(folder / CARD, report)
    write_report(folder / PAGE, report)


def write_report(path: Path, report: Report) -> None:
    """Write the report page atomically."""
    summary, scores = report.summary, worst_first(report.scores)
    gallery = make_gallery(report.pictures, dice_by_case(scores))
    page = plot_data(scores, summary, report.epochs, gallery)
    places = {case["id"]: place for place, case in enumerate(page["cases"])}
    write_page(
        path,
        "report.html.j2",
        styles=("report/report.css",),
        scripts=SCRIPTS,
        title=report.title,
        report=report,
        summary=summary,
        gallery=gallery,
        page=page,
        means=[mean_tables(own, summary) for own in summary.classes],
        topology=topology_table(summary),
        kinds=kind_table(summary),
        epochs=epoch_table(page["epochs"]),
        reliability=[table for own in summary.classes if (table := reliability_table(own))],
        sizes=[table for own in summary.classes if (table := size_table(scores, own.name)).rows],
        groups=_group_table(scores, summary),
        places=[places[score.case] for score in scores],
        cases=score_table(
            "Results of all images", scores, of_cases=True, unit=summary.distance_unit
        ),
    )


def _group_table(scores: Sequence[CaseScore], summary: Summary) -> TextTable | None:
    """Return the scores of the groups; None if each case is its own group."""
    if summary.groups == summary.cases:
        return None
    groups, title = worst_first(pool_groups(scores)), f"Results of all {summary.group_noun}"
    return score_table(title, groups, of_cases=False, unit=summary.distance_unit)
