"""From a planned run to its report: train, evaluate, write. Shared by train and resume."""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ushape.console import Console
from ushape.data.prepare import by_group, read_classes
from ushape.data.store import SampleStore
from ushape.errors import DataError, PlanError
from ushape.evaluation.summary import Summary
from ushape.judging import count_seen, judge_and_report
from ushape.planning.plan import Plan
from ushape.planning.recipe import settled
from ushape.planning.run import CaseFacts, Run
from ushape.prediction.predictor import Predictor
from ushape.prediction.tuning import Tuning, Validated, choose_tuning, save_tuning, thin_out_cases

if TYPE_CHECKING:
    from ushape.training.fit import FitResult

KEEP_SHARE = 0.25
"""Prepared cases are kept in memory while they fit into this share of it."""


OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory", re.IGNORECASE)
"""How torch's allocators say it, on accelerators and on a CPU."""


class Clock:
    """Seconds since the user's call."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started


@dataclass(frozen=True)
class TrainResult:
    """A finished training."""

    folder: Path
    """The run folder: all that `predict` and `evaluate` need."""

    summary: Summary
    """The scores on the test cases."""

    was_interrupted: bool = False
    """Ctrl-C ended the training before its time."""


def finish_run(run: Run, console: Console, clock: Clock, *, resume: bool) -> TrainResult:
    """Trains (on) as planned, evaluates the best weights on the test cases, writes the report.

    A training that has come to its end is not continued: only its report is made again.
    """
    from ushape.training.fit import fit

    plan, splits = run.load_plan(), run.load_splits()
    facts = {fact.case.id: fact for fact in run.load_cases()}
    training = _load(run, plan, [facts[i] for i in splits.train])
    validation = _load(run, plan, [facts[i] for i in splits.validation])
    class_pixels = np.asarray([facts[i].class_pixels for i in splits.train])

    def train(plan: Plan, resume: bool) -> FitResult:
        return fit(
            plan,
            run,
            training,
            validation,
            class_pixels,
            budget_s=_training_budget_s(plan, clock),
            resume=resume,
            show_bar=console.is_terminal,
            on_row=lambda row: console.say(_epoch_line(row, plan)),
        )

    was_interrupted = False
    if not run.has_ended(plan):
        with _advice_on_interrupt(run, console):
            result, plan = _train_within_memory(train, plan, run, console, resume=resume)
        run.require_weights()
        run.tuning_path.unlink(missing_ok=True)  # It was chosen for other weights.
        was_interrupted = result.was_interrupted
        if not was_interrupted:
            run.note_end(plan)
        console.say(
            f"{'Stopped: ' if was_interrupted else ''}best validation Dice "
            f"{result.best_dice:.4f} in epoch {result.best_epoch} of {result.epochs}; "
            f"{result.foreground_patches:.0%} of the patches held foreground."
        )
    predictor = Predictor.open(run.folder, plan.machine.device)
    if not run.tuning_path.exists():
        tuning = tune_on_validation(predictor, [facts[i] for i in splits.validation], console)
        save_tuning(run, tuning)
        predictor = replace(predictor, tuning=tuning)
    for line in predictor.tuning.report:
        console.say(line)
    test = [facts[i].case for i in splits.test]
    summary = judge_and_report(
        run,
        predictor,
        test,
        run.folder,
        console,
        "test cases, used for nothing else",
        noun=plan.group_noun,
        seen_cases=count_seen(run, test),
    )
    console.say(summary.verdict)
    console.say(f"Report: {run.report_path} (after {clock.elapsed_s / 60:.1f} minutes)")
    return TrainResult(run.folder, summary, was_interrupted)


def _train_within_memory(
    train: Callable[[Plan, bool], FitResult],
    plan: Plan,
    run: Run,
    console: Console,
    *,
    resume: bool,
) -> tuple[FitResult, Plan]:
    """Halves the batch until it fits, and goes on from the last epoch."""
    while True:
        try:
            return train(plan, resume), plan
        except (MemoryError, RuntimeError) as error:
            plan, resume = _with_half_the_batch(plan, error, console), True
            run.save_plan(plan)


@contextmanager
def _advice_on_interrupt(run: Run, console: Console) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"Stopped. `ushape train --resume {run.folder}` continues.")
        raise


def _with_half_the_batch(plan: Plan, error: Exception, console: Console) -> Plan:
    """The plan with batches half as large and twice as many of them in a step.

    Raises:
        PlanError: the batch is one patch already.
        Exception: the error itself, where it is not about memory.
    """
    if not (isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error))):
        raise error
    train = plan.recipe.train
    batch = settled(train.batch_size)
    if batch == 1:
        raise PlanError(
            "Out of memory with a single patch.",
            hint="Use a smaller sampling.patch_shape, or narrower network.widths.",
        ) from None
    fewer = batch // 2
    repeated = train.accumulate * math.ceil(batch / fewer)
    console.say(f"Out of memory: goes on with {fewer} patches at a time, {repeated} times a step.")
    gc.collect()
    if plan.machine.device == "cuda":
        torch.cuda.empty_cache()
    smaller = replace(train, batch_size=fewer, accumulate=repeated)
    return replace(plan, recipe=replace(plan.recipe, train=smaller))


def tune_on_validation(
    predictor: Predictor, facts: Sequence[CaseFacts], console: Console
) -> Tuning:
    """Chooses thresholds and cleaning on validation cases, and what Dice to expect."""
    plan, cases = predictor.plan, [fact.case for fact in facts]
    space, groups = plan.preparation.space, by_group(cases)
    held = thin_out_cases([sum(fact.class_pixels) for fact in facts], space.channels)
    requests = [(cases[i], cases[i], groups[cases[i].group]) for i in held]
    validated = []
    with console.progress("Validating") as on_progress:
        for case, prediction in predictor.predict_many(requests):
            if isinstance(prediction, DataError):
                raise prediction
            truth = read_classes(case, space)
            assert truth is not None, "a validation case has a mask"
            shares = np.rint(255 * prediction.probabilities).astype(np.uint8)
            validated.append(Validated(case.group, shares, truth))
            on_progress(len(validated), len(requests))
    predict = plan.recipe.predict
    is_chosen = predict.tune and not predict.largest_component
    return choose_tuning(validated, space, rule=is_chosen)


def _load(run: Run, plan: Plan, facts: Sequence[CaseFacts]) -> SampleStore:
    """A store of these cases, in memory where they fit."""
    preparation = plan.preparation
    prepared = preparation.config
    if prepared.shape is not None:
        pixels = float(len(facts) * math.prod(prepared.shape))
    else:
        factor = settled(prepared.downscale) ** plan.recipe.network.dims
        pixels = sum(sum(fact.class_pixels) for fact in facts) / factor
    bytes_needed = pixels * (2 * preparation.channels + 1)
    keep = bytes_needed < KEEP_SHARE * plan.machine.main_memory_bytes
    store = SampleStore([fact.case for fact in facts], preparation, keep=keep)
    store.load_all(plan.machine.cores)
    return store


def _training_budget_s(plan: Plan, clock: Clock) -> float | None:
    """Seconds until training must end, so that the evaluation ends in the user's minutes."""
    minutes = plan.recipe.train.minutes
    if minutes is None:
        return None
    return max(1.0, 60 * minutes - plan.evaluation_s - clock.elapsed_s)


def _epoch_line(row: dict[str, object], plan: Plan) -> str:
    # By the minutes, their number follows the machine's speed.
    of_all = "" if plan.recipe.train.minutes else f"/{plan.recipe.train.epochs}"
    return (
        f"Epoch {row['epoch']}{of_all}: loss {row['loss']:.4f}, "
        f"validation Dice {row['validation_dice']:.4f}, {row['seconds']:.0f} s"
    )
