"""A learning curve as files: one page, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ushape import config
from ushape.evaluation.learning_curve import LearningCurve
from ushape.io.files import write_bytes
from ushape.metrics.stats import Interval
from ushape.reports import BLUE, GRAY, ORANGE, adapt, as_svg, write_page

NAME = "learning_curve"


def write_curve(folder: Path, curve: LearningCurve, title: str, notes: Sequence[str]) -> Path:
    """Writes learning_curve.json, .csv and .html; returns the page.

    Args:
        notes: How the curve was made, and what it does not know; a line each.
    """
    values = {"verdict": curve.verdict, **config.to_dict(curve), "notes": list(notes)}
    text = json.dumps(values, indent=2) + "\n"
    write_bytes(folder / f"{NAME}.json", text.encode())
    write_bytes(folder / f"{NAME}.csv", _as_csv(curve).encode())
    page = folder / f"{NAME}.html"
    write_page(
        page, f"{NAME}.html.j2", title=title, curve=curve, plot=as_svg(_draw(curve)), notes=notes
    )
    return page


def _as_csv(curve: LearningCurve) -> str:
    """A row for each point; empty fields where there is no interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["groups", "cases", "mean_dice", "low", "high", "run"])
    for point in curve.points:
        ends = _ends(point.interval)
        numbers = [f"{value:.6f}" for value in (point.dice, *ends)]
        numbers += [""] * (3 - len(numbers))
        writer.writerow([point.groups, point.cases, *numbers, point.folder.name])
    return text.getvalue()


def _ends(interval: Interval | None) -> tuple[float, ...]:
    return () if interval is None else (interval.low, interval.high)


def _draw(curve: LearningCurve) -> Figure:
    """Points with their intervals, the law through them, and where it leads."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    groups = np.array([point.groups for point in curve.points], dtype=np.float64)
    dice = np.array([point.dice for point in curve.points])
    for point in curve.points:
        if point.interval is not None:
            axes.plot([point.groups] * 2, _ends(point.interval), color=BLUE, lw=1.5, alpha=0.6)
    axes.plot(groups, dice, "o", color=BLUE, label="mean Dice, 95 % interval")

    ticks = [point.groups for point in curve.points]
    if curve.rises:
        _draw_law(axes, curve)
        ticks += [gain.groups for gain in curve.gains]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"{curve.group_noun} for training")
    axes.set_ylabel("Dice")
    adapt(axes)
    axes.legend(frameon=False, labelcolor=GRAY, loc="lower right")
    return figure


def _draw_law(axes: Any, curve: LearningCurve) -> None:
    first, last = curve.points[0].groups, curve.points[-1].groups
    known = np.geomspace(first, last, 64)
    beyond = np.geomspace(last, curve.gains[-1].groups, 64)
    axes.plot(known, curve.law.dice(known), color=ORANGE, label="power law")
    axes.plot(beyond, curve.law.dice(beyond), "--", color=ORANGE, label="extrapolated")
    start = float(curve.law.dice(np.array(float(last))))
    for gain in curve.gains:
        if gain.interval is not None:
            ends = start + np.array(_ends(gain.interval))
            axes.plot([gain.groups] * 2, ends, color=ORANGE, lw=1.5, alpha=0.6)
