"""Learning curve as an HTML page, JSON and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ushape import config
from ushape.evaluation.learning_curve import LearningCurve
from ushape.formatting import to_csv
from ushape.io.files import write_bytes, write_json
from ushape.metrics.stats import Interval
from ushape.reports import BLUE, GRAY, ORANGE, adapt, as_svg, write_page

FILE_STEM = "learning_curve"
CSV_COLUMNS = ("groups", "cases", "mean_dice", "low", "high", "run")


def write_curve(folder: Path, curve: LearningCurve, title: str, notes: Sequence[str]) -> Path:
    """Write learning_curve.json, .csv and .html and return the path of the page.

    Args:
        folder: Existing folder for the files.
        notes: Description of the method and its limitations, one paragraph each.
    """
    values = {"verdict": curve.verdict, **config.to_dict(curve), "notes": list(notes)}
    write_json(folder / f"{FILE_STEM}.json", values)
    write_bytes(folder / f"{FILE_STEM}.csv", to_csv(CSV_COLUMNS, _csv_rows(curve)))
    page, template = folder / f"{FILE_STEM}.html", f"{FILE_STEM}.html.j2"
    write_page(page, template, title=title, curve=curve, plot=as_svg(_draw(curve)), notes=notes)
    return page


def _csv_rows(curve: LearningCurve) -> list[dict[str, object]]:
    """Return one row for each point; the interval is missing for a single test group."""
    rows = []
    for point in curve.points:
        numbers = zip(
            ("mean_dice", "low", "high"), (point.dice, *_ends(point.interval)), strict=False
        )
        texts = {name: f"{value:.6f}" for name, value in numbers}
        run = {"groups": point.groups, "cases": point.cases, "run": point.folder.name}
        rows.append({**run, **texts})
    return rows


def _ends(interval: Interval | None) -> tuple[float, ...]:
    return () if interval is None else (interval.low, interval.high)


def _draw(curve: LearningCurve) -> Figure:
    """Draw the points with their intervals, the fitted power law and its extrapolation."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    groups = np.array([point.groups for point in curve.points], dtype=np.float64)
    dice = np.array([point.dice for point in curve.points])
    for point in curve.points:
        if point.interval is not None:
            axes.plot([point.groups] * 2, _ends(point.interval), color=BLUE, lw=1.5, alpha=0.6)
    axes.plot(groups, dice, "o", color=BLUE, label="mean Dice with 95% CI")

    ticks = [point.groups for point in curve.points]
    if curve.rises:
        _draw_law(axes, curve)
        ticks += [gain.groups for gain in curve.gains]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"number of training {curve.group_noun}")
    axes.set_ylabel("mean Dice")
    adapt(axes)
    axes.legend(frameon=False, labelcolor=GRAY, loc="lower right")
    return figure


def _draw_law(axes: Any, curve: LearningCurve) -> None:
    first, last = curve.points[0].groups, curve.points[-1].groups
    known = np.geomspace(first, last, 64)
    beyond = np.geomspace(last, curve.gains[-1].groups, 64)
    axes.plot(known, curve.law.dice(known), color=ORANGE, label="power law fit")
    axes.plot(beyond, curve.law.dice(beyond), "--", color=ORANGE, label="extrapolation")
    start = float(curve.law.dice(np.array(float(last))))
    for gain in curve.gains:
        if gain.interval is not None:
            ends = start + np.array(_ends(gain.interval))
            axes.plot([gain.groups] * 2, ends, color=ORANGE, lw=1.5, alpha=0.6)
