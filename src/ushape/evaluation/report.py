"""Scores, curves and pictures -> one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ushape.evaluation.figures import outline
from ushape.evaluation.score import CaseScore, Summary, pool_groups
from ushape.io.atomic import write_bytes

PICTURE_PX = 512
"""Longest side of a picture in the report."""

BLUE, ORANGE, GREY = "#2f86c9", "#d9790b", "#808890"
"""Readable on white and on dark grey."""


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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ushape.evaluation", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    worst_first = sorted(report.scores, key=lambda score: (score.dice is None, score.dice or 0.0))
    page = environment.get_template("report.html.j2").render(
        report=report,
        summary=report.summary,
        scores=worst_first,
        groups=sorted(pool_groups(report.scores), key=lambda score: score.dice or 0.0),
        curves=_draw_curves(report.epochs),
        dots=_draw_dots(report.scores, report.summary),
        pictures=[(picture, _as_data(picture)) for picture in report.pictures],
    )
    write_bytes(path, page.encode())


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
        _adapt(axes)
    return _as_svg(figure)


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
    _adapt(axes)
    return _as_svg(figure)


def _adapt(axes: Any) -> None:
    """Colours that can be read on white and on dark grey."""
    axes.grid(color=GREY, alpha=0.25)
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(GREY)


def _as_svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _as_data(picture: CasePicture) -> str:
    """A data URI of the image with both outlines."""
    image = Image.fromarray(outline(picture.image, picture.truth, picture.predicted))
    image.thumbnail((PICTURE_PX, PICTURE_PX))
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
