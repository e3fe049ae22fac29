"""Scores, curves and pictures -> one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ushape.evaluation.figures import outline
from ushape.evaluation.score import CaseScore, Summary, pool_groups
from ushape.pages import BLUE, ORANGE, adapt, as_data, as_svg, write_page


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """A case to be shown."""

    case: str
    group: str
    dice: float
    image: np.ndarray
    """(C, *S) as stored."""

    truth: np.ndarray
    predicted: np.ndarray
    """(*S) class indices."""

    label: str
    """worst, median or best."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that stands in a report."""

    title: str
    summary: Summary
    scores: Sequence[CaseScore]
    epochs: Sequence[Mapping[str, str]]
    """Rows of metrics.csv."""

    split_lines: Sequence[str]
    plan_lines: Sequence[str]
    reproduce_lines: Sequence[str]
    pictures: Sequence[CasePicture]


def write_report(path: Path, report: Report) -> None:
    """Writes the page, whole or not at all."""
    worst_first = sorted(report.scores, key=lambda score: (score.dice is None, score.dice or 0.0))
    write_page(
        path,
        "report.html.j2",
        title=report.title,
        report=report,
        summary=report.summary,
        scores=worst_first,
        groups=sorted(pool_groups(report.scores), key=lambda score: score.dice or 0.0),
        curves=_draw_curves(report.epochs),
        dots=_draw_dots(report.scores, report.summary),
        pictures=[
            (picture, as_data(outline(picture.image, picture.truth, picture.predicted)))
            for picture in report.pictures
        ],
    )


def _draw_curves(epochs: Sequence[Mapping[str, str]]) -> str:
    """Loss and validation Dice over the epochs, as SVG; '' without epochs."""
    if not epochs:
        return ""
    numbers = [int(row["epoch"]) for row in epochs]
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    marker = "." if len(numbers) < 40 else ""
    left.plot(numbers, [float(row["loss"]) for row in epochs], color=ORANGE, marker=marker)
    left.set_title("Training loss")
    right.plot(
        numbers, [float(row["validation_dice"]) for row in epochs], color=BLUE, marker=marker
    )
    right.set_title("Validation Dice")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        adapt(axes)
    return as_svg(figure)


def _draw_dots(scores: Sequence[CaseScore], summary: Summary) -> str:
    """Each group a dot on the Dice axis, a row for each class; '' where nothing has a value."""
    rows = [
        (
            own,
            [
                s.dice or 0.0
                for s in pool_groups(scores)
                if s.class_name == own.name and s.counts.truth
            ],
        )
        for own in summary.classes
    ]
    rows = [(own, values) for own, values in rows if values]
    if not rows:
        return ""
    figure = Figure(figsize=(7, 0.9 + 0.7 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (own, values) in enumerate(rows):
        spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(values))
        axes.scatter(values, place + spread, s=26, color=BLUE, alpha=0.65, linewidths=0)
        if own.interval is not None:
            axes.plot([own.interval.low, own.interval.high], [place, place], color=ORANGE, lw=2.5)
        axes.plot(np.mean(values), place, "D", color=ORANGE, ms=8)
    axes.set_yticks(range(len(rows)), [own.name for own, _ in rows])
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"Dice of each of the {summary.group_noun}; mean and 95 % interval in orange")
    adapt(axes)
    return as_svg(figure)
