"""Short trials that decide between 2D, 2.5D and 3D before training on volumes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ushape.api._trainer import open_cases, training_budget_s
from ushape.api._trial_score import score_trial
from ushape.console import Clock, Console
from ushape.data.cache import SampleStore
from ushape.data.scan import DatasetStats
from ushape.data.splits import has_foreground
from ushape.errors import UshapeError
from ushape.interrupts import hint_after_interrupt
from ushape.io.files import remove_leftovers, temporary_name
from ushape.planning.plan import Plan
from ushape.planning.planner import Measured, Planned
from ushape.planning.rules.slices import Trial, best_trial, describe_trials, name_slices
from ushape.planning.run import Run
from ushape.planning.start_decision import TRIAL_SHARE
from ushape.training.trainer import train_within_memory
from ushape.training.trials import run_trial
from ushape.types import CaseFacts, select_cases

FAILURES = ("out_of_memory", "loss_not_finite")
"""Error codes of networks that cannot be trained, although another candidate may be."""

BEGIN_AGAIN = "The trials were removed. Run the same command again to start over."
"""Hint after a trial that ended early."""


class Replan(Protocol):
    """Makes the plan with a value of preprocessing.slices, for the same split."""

    def __call__(self, slices: int | None, measured: Measured, /) -> Planned: ...


def compare_slices(
    found: DatasetStats,
    planned: Planned,
    replan: Replan,
    run: Run,
    clock: Clock,
    console: Console,
) -> Planned:
    """Train each candidate of a plan for the same short time, and return the plan of the best one.

    A plan without candidates is returned as it is. The trials are removed, whatever their outcome.

    Args:
        planned: Plan in 3D.

    Raises:
        KeyboardInterrupt: if Ctrl-C ended a trial.
        DataError: if cases cannot be loaded.
        UshapeError: if a candidate cannot be planned, or if no trial succeeds.
    """
    if not planned.compared or training_budget_s(planned.plan, clock.elapsed_s) is None:
        return planned
    if not has_foreground(found, planned.splits.validated):
        console.say("2D and 3D are not compared, because no validation image has foreground.")
        return planned
    plans = {None: planned} | _plan_others(planned, replan)
    whole_s, count = training_budget_s(planned.plan, clock.elapsed_s), len(plans)
    assert whole_s is not None, "the minutes are limited"
    budget_s = whole_s * TRIAL_SHARE / (1 + count * TRIAL_SHARE)
    # A process that is killed leaves a folder that the next one recognizes and removes.
    remove_leftovers(run.folder, ".*")
    folder = temporary_name(run.folder / "trials")
    with _trials_removed(run, folder):
        trials = _run_all(found, plans, run, folder, budget_s, console)
    text = describe_trials(trials, budget_s, planned.results[0].fact)
    best = best_trial(trials).slices
    final = replan(best, plans[best].measured)  # In the remaining time.
    results = (replace(final.results[0], text=text), *final.results[1:])
    plan = replace(final.plan, reasons=tuple(result.text for result in results))
    return replace(final, plan=plan, results=results)


def _plan_others(planned: Planned, replan: Replan) -> dict[int | None, Planned]:
    """Plan all candidates except 3D, so that errors occur before the first trial."""
    plans: dict[int | None, Planned] = {}
    for slices in planned.compared:
        try:
            if slices is not None:
                plans[slices] = replan(slices, Measured())
        except UshapeError as error:
            error.advice += (
                f" The error occurred while planning {name_slices(slices)}; to train in 3D without "
                "a comparison, use --set preprocessing.slices=null."
            )
            raise
    return plans


@contextmanager
def _trials_removed(run: Run, folder: Path) -> Iterator[None]:
    """Remove the trials at the end, and say after a failure that the command can be repeated."""
    try:
        with hint_after_interrupt(BEGIN_AGAIN):
            yield
    except UshapeError as error:  # The run has no plan yet, so it cannot be resumed.
        error.continuation = BEGIN_AGAIN if error.continuation else "The trials were removed."
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_all(
    found: DatasetStats,
    plans: dict[int | None, Planned],
    run: Run,
    folder: Path,
    budget_s: float,
    console: Console,
) -> list[Trial]:
    """Run the trials in a folder, and skip those of networks that cannot be trained."""
    trials: list[Trial] = []
    for slices, planned in plans.items():
        console.say(f"Trial in {name_slices(slices)}, {budget_s:.0f} s:")
        trial = Run(folder / name_slices(slices).replace(" ", "_"))
        try:
            dice, precision = _run_one(found, planned, trial, run, budget_s, console)
        except UshapeError as error:
            is_last = slices == list(plans)[-1]
            if error.code not in FAILURES or (is_last and not trials):
                raise
            console.say(f"The trial in {name_slices(slices)} is skipped: {error.message}")
        else:
            trials.append(Trial(slices, dice, precision))
    return trials


def _run_one(
    found: DatasetStats,
    planned: Planned,
    trial: Run,
    run: Run,
    budget_s: float,
    console: Console,
) -> tuple[float, float | None]:
    """Train one candidate; return the scores of its best weights."""
    facts, splits = found.facts, planned.splits
    training, validation = (select_cases(facts, ids) for ids in (splits.train, splits.validated))
    train_in, store = open_cases(planned.plan, training, validation, console)

    def attempt(plan: Plan, resume: bool) -> None:
        run_trial(plan, trial, run, train_in, None, budget_s)

    _, plan = train_within_memory(attempt, planned.plan, trial, console, resume=False)
    trial.save_plan(plan)
    return _score(plan, trial, validation, store, console)


def _score(
    plan: Plan, trial: Run, validation: Sequence[CaseFacts], store: SampleStore, console: Console
) -> tuple[float, float | None]:
    """Return the Dice, and the average precision of objects if they are learned."""
    score = score_trial(plan, trial, validation, store, console)
    return score.dice, score.precision
