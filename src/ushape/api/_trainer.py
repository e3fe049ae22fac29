"""Loaded cases of a plan, and the function that trains on them in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ushape.console import Console
from ushape.data.cache import SampleStore, load_cases, memory_of
from ushape.data.preprocessing import OnRead
from ushape.evaluation.baselines import BaselineSampler, save_baselines
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.training.loaders import with_fitting_loaders
from ushape.training.ranks import Rank
from ushape.training.trainer import FitResult, fit
from ushape.training.trials import Train, Weights
from ushape.types import CaseFacts

OnRow = Callable[[dict[str, Any]], None]
"""Receives a row of metrics.csv."""


def open_cases(
    plan: Plan,
    training: Sequence[CaseFacts],
    validation: Sequence[CaseFacts],
    console: Console,
    on_read: OnRead | None = None,
    rank: Rank | None = None,
    on_row: OnRow = lambda row: None,
) -> tuple[Train, SampleStore]:
    """Load the cases; return a function that trains on them, and the validation cases.

    Args:
        on_read: Receives each training image that is read, from several threads.
        rank: Position of this process among those that train together; None: it trains alone.
        on_row: Receives each row of metrics.csv once it is printed.

    Raises:
        DataError: if cases cannot be loaded; it names all of them.
    """
    load = partial(
        load_cases,
        preprocessing=plan.preprocessing,
        dims=plan.recipe.network.dims,
        memory_bytes=plan.machine.main_memory_bytes,
        threads=plan.machine.cores,
    )
    patch_source = plan.recipe.train.patch_source
    training_store = load(training, on_read=on_read, patch_source=patch_source)
    validation_store = load(validation)
    class_pixels = np.asarray([fact.class_pixels for fact in training])
    kept_bytes = 0.0
    if training_store.keep:
        kept_bytes = memory_of(training, plan.preprocessing, plan.recipe.network.dims)

    def say_and_pass_on(plan: Plan, row: dict[str, Any]) -> None:
        console.say(_epoch_line(row, plan))
        on_row(row)

    def train_in(
        plan: Plan, run: Run, initial: Weights | None, budget_s: float | None, resume: bool = True
    ) -> FitResult:
        return fit(
            with_fitting_loaders(plan, kept_bytes, console.say, rank.neighbors if rank else 1),
            run,
            training_store,
            validation_store,
            class_pixels,
            validation_pixels=np.asarray([fact.class_pixels for fact in validation]),
            initial=initial,
            budget_s=budget_s,
            resume=resume,
            show_bar=console.is_terminal,
            on_row=partial(say_and_pass_on, plan),
            rank=rank,
        )

    return train_in, validation_store


def open_training(
    run: Run,
    plan: Plan,
    training: Sequence[CaseFacts],
    validation: Sequence[CaseFacts],
    console: Console,
    rank: Rank | None = None,
) -> tuple[Train, SampleStore]:
    """Load the cases as `open_cases` does, and choose the baselines of the run from them."""
    sampler = BaselineSampler(training)
    train_in, store = open_cases(plan, training, validation, console, sampler.add, rank)
    is_first = rank is None or rank.index == 0
    if is_first and sampler.is_complete and not run.baselines_path.exists():
        save_baselines(run.baselines_path, sampler.choose(plan.preprocessing.space))
    return train_in, store


def training_budget_s(plan: Plan, elapsed_s: float) -> float | None:
    """Return the seconds left for training, so that the evaluation ends in the user's minutes."""
    minutes = plan.recipe.train.minutes
    if minutes is None:
        return None
    return max(1.0, 60 * minutes - plan.evaluation_s - elapsed_s)


def _epoch_line(row: dict[str, object], plan: Plan) -> str:
    # With a time limit, the number of epochs depends on the speed of the machine.
    objects = f"object AP {row['validation_ap']:.4f}, " if "validation_ap" in row else ""
    of_all = "" if plan.recipe.train.minutes else f"/{plan.recipe.train.epochs}"
    if row["validation_dice"] is not None:
        score = f"validation Dice {row['validation_dice']:.4f}"
    elif row["validation_loss"] is not None:
        score = f"validation loss {row['validation_loss']:.4f}"
    else:
        score = "no validation"
    return (
        f"Epoch {row['epoch']}{of_all}: loss {row['loss']:.4f}, {score}, {objects}"
        f"{row['seconds']:.0f} s"
    )
