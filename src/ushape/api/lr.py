"""Find a learning rate with a learning-rate range test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ushape.api.preview import free_png, plan_one_epoch, save_png
from ushape.console import Console
from ushape.data.cache import SampleStore
from ushape.errors import PlanError
from ushape.formatting import pluralize
from ushape.planning.hardware import reuse_freed_memory
from ushape.planning.plan import Plan
from ushape.planning.recipe import Recipe
from ushape.training.loaders import with_fitting_loaders
from ushape.training.lr_finder import LRFinderConfig, LRFinderResult, range_test
from ushape.types import CaseFacts


def find_learning_rate(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str = "lr.png",
    recipe: Recipe | str = "auto",
    min_lr: float = 1e-6,
    max_lr: float = 10.0,
    steps: int = 50,
    divergence: float = 4.0,
    device: str = "auto",
    settings: Iterable[str] = (),
    groups: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> LRFinderResult:
    """Find a learning rate with a range test.

    The rate is raised after each training step, and the loss is plotted against it.

    Args:
        data: Folder with images and masks, or a table of them.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: PNG file; the values are written to a CSV file of the same name.
        recipe: Name of a recipe (see `ushape recipes`), a YAML file, or FILE.py:FUNCTION.
        min_lr: First learning rate.
        max_lr: Last learning rate.
        steps: Number of learning rates, each higher than the previous one by the same factor.
        divergence: Stop when the loss exceeds the lowest loss by this factor.
        device: Device: auto, cpu, cuda or mps.
        settings: Recipe setting as key=value, e.g. train.batch_size=2 (repeatable).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        overwrite: Replace existing outputs.
        quiet: Print nothing.

    Raises:
        DataError: if the data cannot be used.
        RunError: if the output exists.
        PlanError: if the loss does not fall at any rate; the plot is still written.
    """
    console, target = Console(quiet=quiet), free_png(Path(output), overwrite)
    limits = LRFinderConfig(lowest=min_lr, highest=max_lr, steps=steps, divergence=divergence)
    reuse_freed_memory()
    plan, facts = plan_one_epoch(data, masks, recipe, settings, device, console, groups)
    console.say(f"Range test: {pluralize(steps, 'training step')} with increasing learning rates.")
    with console.progress("Range test") as on_progress:
        curve = _sweep(plan, facts, limits, on_progress)
    draw_range(curve, target)
    console.say(f"Plot: {target}; values: {target.with_suffix('.csv')}")
    if curve.has_diverged:
        console.say(f"The loss diverged at a learning rate of {curve.rates[-1]:.3g}.")
    console.say(f"Suggested setting: --set train.learning_rate={curve.suggest():.2g}")
    return curve


def search_rate(plan: Plan, facts: Sequence[CaseFacts], folder: Path) -> Plan:
    """Return the plan with the learning rate that a range test suggests.

    Args:
        facts: Training cases.
        folder: Folder that receives the plot.

    Raises:
        PlanError: if the loss does not fall at any rate; the plot is still written.
    """
    curve = _sweep(plan, facts, LRFinderConfig())
    draw_range(curve, folder / "learning_rate.png")
    rate = float(f"{curve.suggest():.2g}")
    recipe = replace(plan.recipe, train=replace(plan.recipe.train, learning_rate=rate))
    line = f"Learning rate: {rate:g}, found by a range test (learning_rate.png)."
    return replace(plan, recipe=recipe, reasons=(*plan.reasons, line))


def _sweep(
    plan: Plan,
    facts: Sequence[CaseFacts],
    limits: LRFinderConfig,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LRFinderResult:
    store = SampleStore([fact.case for fact in facts], plan.preprocessing, keep=False)
    class_pixels = np.asarray([fact.class_pixels for fact in facts])
    plan = with_fitting_loaders(plan, 0, lambda line: None)
    return range_test(plan, store, class_pixels, limits, on_progress)


def draw_range(curve: LRFinderResult, path: Path) -> None:
    """Write the curve as a PNG file, and its values as a CSV file next to it."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", color="0.6", label="loss of each step")
    axes.plot(curve.rates, curve.smoothed, label="smoothed")
    try:
        rate = curve.suggest()
        axes.axvline(rate, color="tab:orange", label=f"steepest descent, {rate:.2g}")
    except PlanError:
        pass  # A curve without a minimum is drawn as well.
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend()
    save_png(figure, path)
    curve.save(path.with_suffix(".csv"))
