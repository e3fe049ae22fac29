"""Find a learning rate with a learning-rate range test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ushape.api.preview import free_png, plan_one_epoch, save_png
from ushape.console import Console
from ushape.data.cache import SampleStore
from ushape.errors import PlanError
from ushape.planning.hardware import keep_memory
from ushape.planning.plan import Plan
from ushape.planning.recipe import Recipe
from ushape.training.lr_finder import LRFinderConfig, LRFinderResult, range_test
from ushape.types import CaseFacts


def lr(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str = "lr.png",
    recipe: Recipe | str = "auto",
    limits: LRFinderConfig | None = None,
    device: str = "auto",
    settings: Iterable[str] = (),
    overwrite: bool = False,
) -> LRFinderResult:
    """Sweeps the learning rate through the real training step; writes the curve, suggests a rate.

    Args:
        output: A PNG; the numbers go beside it, as a CSV.

    Raises:
        DataError: the data cannot be used.
        RunError: the output exists.
        PlanError: no rate at which the loss falls; the curve is written first.
    """
    target = free_png(Path(output), overwrite)
    keep_memory()
    console = Console()
    plan, facts = plan_one_epoch(data, masks, recipe, settings, device)
    curve = _sweep(plan, facts, limits or LRFinderConfig())
    draw_range(curve, target)
    console.say(f"Curve: {target}, numbers: {target.with_suffix('.csv')}")
    if curve.has_diverged:
        console.say(f"The loss diverged at a learning rate of {curve.rates[-1]:.3g}.")
    console.say(f"Suggested: --set train.learning_rate={curve.suggest():.2g}")
    return curve


def search_rate(plan: Plan, facts: Sequence[CaseFacts], folder: Path) -> Plan:
    """The plan with the rate that a range test suggests; its curve goes into the folder.

    Args:
        facts: The training cases.

    Raises:
        PlanError: no rate at which the loss falls; the curve is written first.
    """
    curve = _sweep(plan, facts, LRFinderConfig())
    draw_range(curve, folder / "learning_rate.png")
    rate = float(f"{curve.suggest():.2g}")
    recipe = replace(plan.recipe, train=replace(plan.recipe.train, learning_rate=rate))
    line = f"Range test: learning rate {rate:g} (learning_rate.png)."
    return replace(plan, recipe=recipe, reasons=(*plan.reasons, line))


def _sweep(plan: Plan, facts: Sequence[CaseFacts], limits: LRFinderConfig) -> LRFinderResult:
    store = SampleStore([fact.case for fact in facts], plan.preprocessing, keep=False)
    return range_test(plan, store, np.asarray([fact.class_pixels for fact in facts]), limits)


def draw_range(curve: LRFinderResult, path: Path) -> None:
    """The curve as a PNG, and its numbers beside it as a CSV."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", color="0.6", label="loss of each step")
    axes.plot(curve.rates, curve.smoothed, label="smoothed")
    try:
        rate = curve.suggest()
        axes.axvline(rate, color="tab:orange", label=f"steepest descent, {rate:.2g}")
    except PlanError:
        pass  # A curve that falls nowhere is worth seeing as well.
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    save_png(figure, path)
    curve.save(path.with_suffix(".csv"))
