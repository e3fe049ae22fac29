"""Several runs side by side, each against the first, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ushape.evaluation.breakdowns import Breakdown
from ushape.evaluation.case_metrics import number_text, title_of
from ushape.evaluation.comparison import CaseChange, Comparison, compare_scores
from ushape.evaluation.storage import Report
from ushape.evaluation.summary import Mean, Summary, summarize, without_distances
from ushape.reports import BLUE, GRAY, ORANGE, adapt, as_svg, write_page
from ushape.reports.gallery import draw_still

MAX_CHANGED = 4
"""Cases shown of the largest gains, and as many of the largest losses."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the runs."""

    name: str
    report: Report


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A run against the first."""

    name: str
    comparison: Comparison
    plot: str
    """SVG."""

    changed: Sequence[dict[str, object]]
    """The cases that changed most, with a picture of either side where there is one."""


def compare_sides(sides: Sequence[Side]) -> list[Comparison]:
    """Each of the others against the first.

    Raises:
        RunError: other cases, or other masks.
    """
    first, *others = sides
    return [compare_scores(first.report.scores, side.report.scores, seed=0) for side in others]


def write_comparison(path: Path, sides: Sequence[Side], found: Sequence[Comparison]) -> None:
    """Writes the page, whole or not at all.

    Args:
        found: Of `compare_sides`.
    """
    first, *others = sides
    write_page(
        path,
        "comparison.html.j2",
        title=" against ".join(side.name for side in sides[::-1]),
        sides=sides,
        tables=measure_tables(sides),
        pairs=[
            Pair(
                name=side.name,
                comparison=own,
                plot=_draw_pairs(own, first.name, side.name),
                changed=[_show_change(change, first, side) for change in most_changed(own)],
            )
            for side, own in zip(others, found, strict=True)
        ],
    )


def measure_tables(sides: Sequence[Side]) -> list[Breakdown]:
    """For each class the mean of each measure in each run, on the cases that all have."""
    found = []
    summaries = [_summarize_shared(side, sides) for side in sides]
    for own in summaries[0].classes:
        columns = [next((c for c in s.classes if c.name == own.name), None) for s in summaries]
        rows = []
        units = {side.report.summary.distance_unit for side in sides}
        for name in own.means if len(units) == 1 else without_distances(own.means):
            means = [column.means.get(name) if column else None for column in columns]
            texts = [_mean_text(mean) for mean in means]
            if any(texts):
                title = title_of(name)
                reading = title.reading.format(unit=sides[0].report.summary.distance_unit)
                rows.append([title.text, *texts, reading])
        names = [side.name for side in sides]
        found.append(
            Breakdown(title=own.name, columns=["measure", *names, "how to read it"], rows=rows)
        )
    return found


def _summarize_shared(side: Side, sides: Sequence[Side]) -> Summary:
    shared = set.intersection(*({score.case for score in s.report.scores} for s in sides))
    scores = [score for score in side.report.scores if score.case in shared]
    return summarize(scores, noun=sides[0].report.summary.group_noun)


def most_changed(comparison: Comparison) -> list[CaseChange]:
    """The largest gains, then the largest losses."""
    changes = comparison.changes
    gains = [one for one in changes[:MAX_CHANGED] if one.change > 0]
    losses = [one for one in changes[::-1][:MAX_CHANGED] if one.change < 0]
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
    """Each group a dot: its Dice in the one and in the other."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, lw=1)
    for own, color in zip(comparison.classes, [BLUE, ORANGE, GRAY] * 30, strict=False):
        axes.scatter(own.first, own.other, s=30, alpha=0.7, color=color, label=_plain(own.name))
    lowest = min((min(own.first + own.other) for own in comparison.classes), default=0.0)
    axes.set_xlim(max(-0.02, lowest - 0.05), 1.02)
    axes.set_ylim(max(-0.02, lowest - 0.05), 1.02)
    axes.set_xlabel(f"Dice of {_plain(first)}")
    axes.set_ylabel(f"Dice of {_plain(other)}; above the line it is better")
    if len(comparison.classes) > 1:
        axes.legend(frameon=False, labelcolor=GRAY)
    adapt(axes)
    return as_svg(figure)


def _plain(name: str) -> str:
    """A name that Matplotlib neither reads as a formula nor leaves out of the legend."""
    return " " + name.replace("$", r"\$")
