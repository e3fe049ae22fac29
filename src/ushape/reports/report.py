"""Scores, curves and pictures -> one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ushape.evaluation.breakdowns import Breakdown
from ushape.evaluation.scores import CaseScore, mean_dice_by_case, pool_groups
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
    size_bands,
    topology_table,
    worst_first,
)

SCRIPTS = (
    "vendor/plot.js",
    *(f"report/{name}.js" for name in ("rasters", "card", "chooser", "plots", "tables", "start")),
)
"""The page's program, in this order."""


def write_pages(folder: Path, report: Report) -> None:
    """Write the model card and the report page; the page last."""
    write_card(folder / CARD, report)
    write_report(folder / PAGE, report)


def write_report(path: Path, report: Report) -> None:
    """Writes the page, whole or not at all."""
    summary, scores = report.summary, worst_first(report.scores)
    gallery = make_gallery(report.pictures, mean_dice_by_case(scores))
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
        sizes=[table for own in summary.classes if (table := size_bands(scores, own.name)).rows],
        groups=_group_table(scores, summary),
        places=[places[score.case] for score in scores],
        cases=score_table("Scores of the images", scores, of_cases=True),
    )


def _group_table(scores: Sequence[CaseScore], summary: Summary) -> Breakdown | None:
    """None where each case is a group by itself."""
    if summary.groups == summary.cases:
        return None
    groups = worst_first(pool_groups(scores))
    return score_table(f"Scores of the {summary.group_noun}", groups, of_cases=False)
