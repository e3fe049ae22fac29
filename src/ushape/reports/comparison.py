"""HTML page that compares several runs with the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ushape.evaluation.case_metrics import AP_IOUS
from ushape.evaluation.class_scores import Mean
from ushape.evaluation.comparison import CaseChange, Comparison, compare_scores
from ushape.evaluation.storage import Report
from ushape.evaluation.summary import Summary, summarize, without_distances
from ushape.formatting import TextTable, number_text, one_line
from ushape.reports import BLUE, GRAY, ORANGE, adapt, as_svg, write_page
from ushape.reports.gallery import draw_still
from ushape.reports.tables import metric_name

MAX_CHANGED_CASES = 4
"""Number of cases shown with the largest gains, and with the largest losses."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Run in a comparison."""

    name: str
    report: Report


def compare_sides(sides: Sequence[Side]) -> list[Comparison]:
    """Compare each run with the first.

    Raises:
        RunError: if the runs were evaluated on different cases or masks.
    """
    first, *others = sides
    return [compare_scores(first.report.scores, side.report.scores, seed=0) for side in others]


def write_comparison(path: Path, sides: Sequence[Side], found: Sequence[Comparison]) -> None:
    """Write the comparison page atomically.

    Args:
        sides: Runs, the first of which is the reference.
    """
    first, *others = sides
    write_page(
        path,
        "comparison.html.j2",
        title=" vs. ".join(side.name for side in sides[::-1]),
        sides=sides,
        tables=metric_tables(sides),
        pairs=[
            {
                "name": side.name,
                "comparison": own,
                "plot": _draw_pairs(own, first.name, side.name),
                "changed": [_show_change(change, first, side) for change in most_changed(own)],
            }
            for side, own in zip(others, found, strict=True)
        ],
    )


def metric_tables(sides: Sequence[Side]) -> list[TextTable]:
    """Return a table of mean metrics for each class, over the cases that all runs share."""
    tables = []
    summaries = [_summarize_shared(side, sides) for side in sides]
    units = {side.report.summary.distance_unit for side in sides}
    for own in summaries[0].classes:
        columns = [next((c for c in s.classes if c.name == own.name), None) for s in summaries]
        rows = []
        for name in own.means if len(units) == 1 else without_distances(own.means):
            if name in AP_IOUS:
                continue
            texts = [_mean_text(column.means.get(name) if column else None) for column in columns]
            if any(texts):
                metric = metric_name(name)
                explanation = metric.explanation.format(unit=min(units))
                rows.append([metric.text, *texts, explanation])
        names = [side.name for side in sides]
        tables.append(
            TextTable(title=own.name, columns=["metric", *names, "interpretation"], rows=rows)
        )
    return tables


def _summarize_shared(side: Side, sides: Sequence[Side]) -> Summary:
    shared = set.intersection(*({score.case for score in s.report.scores} for s in sides))
    scores = [score for score in side.report.scores if score.case in shared]
    return summarize(scores, noun=sides[0].report.summary.group_noun)


def most_changed(comparison: Comparison) -> list[CaseChange]:
    """Return the cases with the largest gains, followed by those with the largest losses."""
    changes = comparison.changes
    gains = [one for one in changes[:MAX_CHANGED_CASES] if one.change > 0]
    losses = [one for one in changes[::-1][:MAX_CHANGED_CASES] if one.change < 0]
    return gains + losses


def _mean_text(mean: Mean | None) -> str:
    if mean is None or mean.interval is None:
        return number_text(mean.value if mean else None)
    ends = (number_text(end, like=mean.value) for end in (mean.interval.low, mean.interval.high))
    return f"{number_text(mean.value)} [{', '.join(ends)}]"


def _show_change(change: CaseChange, first: Side, other: Side) -> dict[str, object]:
    pictures = [
        next((draw_still(p) for p in side.report.pictures if p.case == change.case), "")
        for side in (first, other)
    ]
    return {"change": change, "before": pictures[0], "after": pictures[1]}


def _draw_pairs(comparison: Comparison, first: str, other: str) -> str:
    """Draw a scatter plot of the Dice of each group in both runs."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, lw=1)
    for own, color in zip(comparison.classes, [BLUE, ORANGE, GRAY] * 30, strict=False):
        axes.scatter(
            own.first, own.other, s=30, alpha=0.7, color=color, label=_escape_mathtext(own.name)
        )
    lowest = min((min(own.first + own.other) for own in comparison.classes), default=0.0)
    axes.set_xlim(max(-0.02, lowest - 0.05), 1.02)
    axes.set_ylim(max(-0.02, lowest - 0.05), 1.02)
    axes.set_xlabel(f"Dice of {_escape_mathtext(first)}")
    axes.set_ylabel(f"Dice of {_escape_mathtext(other)}")
    if len(comparison.classes) > 1:
        axes.legend(frameon=False, labelcolor=GRAY)
    adapt(axes)
    return as_svg(figure)


def _escape_mathtext(name: str) -> str:
    """Escape a name, so that Matplotlib neither parses it as mathtext nor hides it (leading _)."""
    return " " + one_line(name).replace("$", r"\$")
