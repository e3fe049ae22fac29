"""The verbs: train, resume, evaluate, predict, recipes, example. The command line calls these."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ushape.api._score_run import count_seen, judge_and_report
from ushape.api._tune import tune_on_validation
from ushape.api.plan import Intent, plan_data
from ushape.config import AUTO
from ushape.console import Clock, Console
from ushape.data.cache import load_cases
from ushape.evaluation.summary import Summary
from ushape.inference.predictor import Predictor
from ushape.inference.tuning import save_tuning
from ushape.planning.custom_code import allow_code
from ushape.planning.hardware import inspect_machine, keep_memory
from ushape.planning.plan import Plan
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run

if TYPE_CHECKING:
    from ushape.training.trainer import FitResult


def train(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    recipe: Recipe | str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    settings: Iterable[str] = (),
    plan: Path | str | None = None,
    splits: Path | str | None = None,
) -> TrainResult:
    """Trains on a folder, evaluates on cases that were set aside, writes a run.

    Args:
        data: Folder of images and masks.
        masks: Folder of the masks, where `data` holds the images only.
        output: Run folder, new or empty; default runs/NAME, numbered if that exists.
        recipe: A recipe, its name, or a YAML file.
        minutes: Wall time for everything, from this call to the report.
        epochs: Train so many epochs, whatever time they take.
        device: auto, cpu, cuda or mps.
        seed: Fixes the split, the first weights and every patch; default: the recipe's.
        settings: "key.path=value" changes of the recipe.
        plan: A file that `plan` wrote, edited or not, in place of a recipe.
        splits: A splits.json, edited or not, in place of a new split.

    Raises:
        DataError: the data cannot be used; says which files and why.
        ConfigError: an unknown key or an impossible value.
        PlanError: a plan that does not fit the data.
        RunError: the output exists.
    """
    clock, console = Clock(), Console()
    intent = Intent.of(recipe, minutes, epochs, seed, settings, plan, splits)
    folder = Path(data)
    run = Run.create(Path(output) if output else _free_folder(Path("runs") / _name_of(folder)))
    with run.left_whole_or_not_at_all():
        _plan_run(run, folder, masks, intent, device, clock, console)
    console.say(f"Run: {run.folder}")
    return finish_run(run, console, clock, resume=False)


def _plan_run(
    run: Run,
    folder: Path,
    masks: Path | str | None,
    intent: Intent,
    device: str,
    clock: Clock,
    console: Console,
) -> None:
    """Everything before training: look, split, plan, write it down."""
    found, planned = plan_data(folder, masks, intent, device, clock, console)
    made = planned.plan
    if intent.recipe.train.learning_rate == AUTO:
        from ushape.api.lr import search_rate

        training = set(planned.splits.train)
        facts = [fact for fact in found.facts if fact.case.id in training]
        made = search_rate(made, facts, run.folder)
    for line in made.reasons:
        console.say(line)
    run.save_cases(folder, found.facts, found.checksum)
    planned.splits.save(run.splits_path)
    run.save_plan(made)  # Last: a run with a plan is complete enough to be resumed.


def resume(run: Path | str, *, recipe: str | None = None) -> TrainResult:
    """Continues a training after any kill, to the weights it would have reached without.

    Args:
        recipe: Python file and function, FILE.py:FUNCTION, of a run with its own network or loss;
            it is executed only if it is named here.

    Raises:
        RunError: not a run folder, or its data are no longer there.
        ConfigError: if the run needs a Python file that is not named, or was changed.
    """
    clock, console = Clock(), Console()
    opened = Run(Path(run))
    plan = opened.load_plan()
    allow_code(recipe)
    opened.require_code(plan, training=True)
    if plan.recipe.train.keep_memory:
        keep_memory()
    inspect_machine(plan.machine.device)
    return finish_run(opened, console, clock, resume=True)


def _name_of(folder: Path) -> str:
    return folder.resolve().name


def _free_folder(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that is not there."""
    names = itertools.chain([folder], (Path(f"{folder}-{n}") for n in itertools.count(2)))
    return next(path for path in names if not path.exists())


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
    from ushape.training.trainer import fit, train_within_memory

    plan, splits = run.load_plan(), run.load_splits()
    facts = {fact.case.id: fact for fact in run.load_cases()}
    load = partial(
        load_cases,
        preprocessing=plan.preprocessing,
        dims=plan.recipe.network.dims,
        memory_bytes=plan.machine.main_memory_bytes,
        threads=plan.machine.cores,
    )
    training = load([facts[i] for i in splits.train])
    validation = load([facts[i] for i in splits.validation])
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
            result, plan = train_within_memory(train, plan, run, console, resume=resume)
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


@contextmanager
def _advice_on_interrupt(run: Run, console: Console) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"Stopped. `ushape train --resume {run.folder}` continues.")
        raise


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
