"""Train a model: plan, fit, tune on validation cases and score on test cases."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape.api._compare_slices import compare_slices
from ushape.api._processes import Team
from ushape.api._remote import copies_restored, local_copies, note_urls
from ushape.api._score_run import KnownCases, score_and_report
from ushape.api._trainer import open_training, training_budget_s
from ushape.api._tune_run import tune_run
from ushape.api.plan import (
    TrainOptions,
    optional_path,
    output_folder,
    plan_data,
    plan_scanned,
)
from ushape.config import AUTO
from ushape.console import Clock, Console
from ushape.data.cache import SampleStore
from ushape.data.scan import DatasetStats
from ushape.data.splits import Splits
from ushape.evaluation.summary import Summary
from ushape.inference.predictor import Predictor
from ushape.interrupts import hint_after_interrupt
from ushape.io.lock import locked
from ushape.planning.custom_code import allow_code
from ushape.planning.hardware import inspect_machine, reuse_freed_memory
from ushape.planning.loading import loading_processes
from ushape.planning.plan import Plan
from ushape.planning.planner import Measured, Planned
from ushape.planning.processor import threads_restored, use_threads, with_load
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run
from ushape.planning.seen_images import save_seen
from ushape.planning.shares import describe_shares, plan_for_devices
from ushape.planning.start import Source
from ushape.training.trainer import FitResult, train_within_memory
from ushape.training.trials import (
    Train,
    decide_start,
    keep_initial_weights,
    trained_s,
    weights_after_trials,
)
from ushape.types import CaseFacts, select_cases


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run."""

    folder: Path
    """Run folder, which `predict`, `evaluate` and `report` read."""

    summary: Summary | None
    """Scores on the test cases; None if there are none."""

    was_interrupted: bool = False
    """Whether Ctrl-C ended the training early."""

    def __repr__(self) -> str:
        return f"TrainResult(folder={str(self.folder)!r}, summary={self.summary!r})"


@threads_restored()
def train(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    recipe: Recipe | str | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    devices: int | None = None,
    seed: int | None = None,
    settings: Iterable[str] = (),
    plan: Path | str | None = None,
    splits: Path | str | None = None,
    start_from: Path | str | None = None,
    groups: str | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train a model and score it on test cases.

    Args:
        data: Folder with images and masks, or a table of them; or the URL of a folder, such as
            s3://bucket/data, of which a local copy is created and kept.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'; or the URL of a folder.
        output: Run folder, new or empty (default: runs/NAME, numbered if it exists).
        recipe: Name of a recipe (see `ushape recipes`), a YAML file, or FILE.py:FUNCTION (default:
            auto).
        minutes: Wall time of training and evaluation in minutes (default: 30, unless the number of
            epochs is set).
        epochs: Number of epochs, instead of a time limit.
        device: Device: auto, cpu, cuda or mps.
        devices: Number of devices of this machine on which to train the model (default: 1, or one
            for each process started by torchrun or srun).
        seed: Random seed for the split, weight initialization and patch sampling.
        settings: Recipe setting as key=value, e.g. train.batch_size=2 (repeatable).
        plan: Plan to use instead of a recipe: a file written by `ushape plan -o`, possibly edited.
        splits: JSON file with the split, such as splits.json of a run (default: a new split).
        start_from: Run folder or .safetensors file with the initial weights; the network is that of
            the run (default: `train.initial_weights`).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        quiet: Print nothing.

    Raises:
        DataError: if the data cannot be used; the message lists the files.
        ConfigError: if an option is unknown, has an impossible value, or conflicts with another
            one.
        PlanError: if the plan does not fit the data.
        RunError: if the output exists.
    """
    clock, console = Clock.of_command(), Console(quiet=quiet)
    with local_copies(data, masks, console.say) as (data, masks):
        options = TrainOptions.resolve(
            recipe=recipe,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            settings=settings,
            plan=plan,
            splits=splits,
            groups=groups,
            start_from=start_from,
            data=data,
        )
        with Team.gathered(devices, quiet) as team:
            if team.is_follower:
                return TrainResult(team.follow(), None)
            folder = Path(output) if output else _create_free_folder(output_folder(None, data))
            with locked(folder):
                run = Run.create(folder)
                return _train_new(run, Path(data), masks, options, device, team, clock, console)


def _train_new(
    run: Run,
    folder: Path,
    masks: Path | str | None,
    options: TrainOptions,
    device: str,
    team: Team,
    clock: Clock,
    console: Console,
) -> TrainResult:
    """Plan, train and score in a new run."""
    planned, facts = _plan_run(run, folder, masks, options, device, team, clock, console)
    plan, splits = planned.plan, planned.splits
    return _fit_and_score(run, plan, splits, facts, team, clock, console, resume=False)


def _plan_run(
    run: Run,
    folder: Path,
    masks: Path | str | None,
    options: TrainOptions,
    device: str,
    team: Team,
    clock: Clock,
    console: Console,
) -> tuple[Planned, list[CaseFacts]]:
    """Plan the training and store cases, splits and plan, or remove the run folder again."""
    with run.removed_on_failure():
        # The plan is for a single device at first; it is divided below.
        machine = replace(inspect_machine(device, team.started_here), devices=1)
        stats, planned = plan_data(folder, masks, options, machine, clock, console)
        planned = _decide_slices(run, stats, planned, options, clock, console)
        facts, splits = stats.facts, planned.splits
        if options.recipe.train.learning_rate == AUTO:
            from ushape.api.lr import search_rate  # Loads matplotlib.

            training = select_cases(facts, splits.train)
            planned = replace(planned, plan=search_rate(planned.plan, training, run.folder))
        if team.count > 1 or planned.plan.machine.devices > 1:
            is_new_plan, settings = options.plan is None, options.recipe.train
            plan = plan_for_devices(
                planned.plan,
                team.count,
                may_round=is_new_plan and settings.batch_size == AUTO,
                adds_loaders=is_new_plan and settings.workers == AUTO,
            )
            planned = replace(planned, plan=plan)
            console.say(describe_shares(plan))
        for line in planned.plan.reasons:
            console.say(line)
        files = stats.file_checksums
        run.save_cases(folder, facts, stats.checksum, masks=optional_path(masks), files=files)
        splits.save(run.splits_path)
        if planned.plan.start is not None:
            save_seen(run, Source.find(planned.plan.start.path).run)
        note_urls(run, folder, optional_path(masks))
        run.save_plan(planned.plan)  # Written last: a run that has a plan can be resumed.
    console.say(f"Run: {run.folder}")
    return planned, facts


def _decide_slices(
    run: Run,
    stats: DatasetStats,
    planned: Planned,
    options: TrainOptions,
    clock: Clock,
    console: Console,
) -> Planned:
    """Return the plan; if 2D and 3D are to be compared, return that of the best short trial."""
    machine = planned.plan.machine

    def replan(slices: int | None, measured: Measured) -> Planned:
        preprocessing = replace(options.recipe.preprocessing, slices=slices)
        recipe = replace(options.recipe, preprocessing=preprocessing)
        return plan_scanned(stats, recipe, machine, options.splits, clock, console, measured)

    return compare_slices(stats, planned, replan, run, clock, console)


@threads_restored()
def resume(
    run: Path | str,
    *,
    recipe: str | None = None,
    devices: int | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Continue an interrupted training.

    The result is the same as without the interruption, unless training has a time limit or
    continues on a different number of devices.

    Args:
        run: Run folder that `ushape train` wrote.
        recipe: FILE.py:FUNCTION that defines the run's custom network or loss. The code runs only
            if you pass this option.
        devices: Number of devices on which to train the model (default: as before).
        quiet: Print nothing.

    Returns:
        The run folder and the scores.

    Raises:
        RunError: if the folder is not a run, if its data have changed, or if it is in use.
        ConfigError: if the run needs a Python file that was not specified or has changed.
        PlanError: if the device of the run is not available.
    """
    clock, console = Clock.of_command(), Console(quiet=quiet)
    opened = Run(Path(run))
    plan = opened.load_plan()
    allow_code(recipe)
    opened.require_code(plan, training=True)
    if plan.recipe.train.reuse_freed_memory:
        reuse_freed_memory()
    with Team.gathered(devices, quiet, before=plan.machine.devices) as team:
        if team.is_follower:
            return TrainResult(team.follow(), None)
        return _resume(opened, plan, team, clock, console)


def _resume(opened: Run, plan: Plan, team: Team, clock: Clock, console: Console) -> TrainResult:
    before = plan.machine.devices
    machine = inspect_machine(plan.machine.device, team.started_here)  # Raises if it is missing.
    with locked(opened.folder):
        train = plan.recipe.train
        if note := use_threads(train, with_load(machine, train)):
            console.say(note)
        if team.count > 1 or before > 1:
            is_usual = train.workers == loading_processes(plan.machine)
            plan = plan_for_devices(plan, team.count, may_round=False, adds_loaders=is_usual)
            opened.save_plan(plan)
            console.say(describe_shares(plan, before))
        with copies_restored(opened, console.say):
            splits, facts = opened.load_splits(), opened.load_cases()
            opened.refuse_changed_data()
            return _fit_and_score(opened, plan, splits, facts, team, clock, console, resume=True)


def _fit_and_score(
    run: Run,
    plan: Plan,
    splits: Splits,
    facts: Sequence[CaseFacts],
    team: Team,
    clock: Clock,
    console: Console,
    *,
    resume: bool,
) -> TrainResult:
    """Train as planned, tune and score the best weights, and write the report.

    Training that has reached its end is not continued; only the report is written again.
    """
    parts = (splits.train, splits.validation, splits.test)
    training, validation, tested = (select_cases(facts, ids) for ids in parts)
    test = [fact.case for fact in tested]

    with hint_after_interrupt(f"To continue: {run.resume_command}"):
        predictor, was_interrupted = _fit_and_tune(
            run, plan, training, validation, team, clock, console, resume=resume
        )
        if not test:
            console.say(
                f"Run: {run.folder} (after {clock.elapsed_s / 60:.1f} minutes). It has no score "
                "and no report, because no image was kept for testing."
            )
            return TrainResult(run.folder, None, was_interrupted)
        known = KnownCases.of(splits, [fact.case for fact in facts])
        what = "test cases, used for nothing else"
        summary = score_and_report(
            run,
            predictor,
            test,
            known,
            run.folder,
            console,
            what=what,
            noun=plan.group_noun,
            training=training,
        )
    console.say(f"Report: {run.report_path} (after {clock.elapsed_s / 60:.1f} minutes)")
    return TrainResult(run.folder, summary, was_interrupted)


def _fit_and_tune(
    run: Run,
    plan: Plan,
    training: Sequence[CaseFacts],
    validation: Sequence[CaseFacts],
    team: Team,
    clock: Clock,
    console: Console,
    *,
    resume: bool,
) -> tuple[Predictor, bool]:
    """Return the trained and tuned network, and whether Ctrl-C ended the training early.

    Without validation cases, the weights are selected on the training cases, and nothing is tuned.
    """
    was_interrupted, has_validation = False, bool(validation)
    validation = validation or training
    if run.has_ended(plan):
        store = SampleStore([fact.case for fact in validation], plan.preprocessing, keep=False)
    else:
        result, plan, store = _fit(
            run, plan, training, validation, team, clock, console, resume=resume
        )
        was_interrupted = result.was_interrupted
    predictor = Predictor.open(run.folder, plan.machine.device)
    if not has_validation:
        console.say("Threshold 0.5 without postprocessing, since no image was kept for validation.")
        return predictor, was_interrupted
    return tune_run(run, predictor, validation, training, store, console), was_interrupted


def _fit(
    run: Run,
    plan: Plan,
    training: Sequence[CaseFacts],
    validation: Sequence[CaseFacts],
    team: Team,
    clock: Clock,
    console: Console,
    *,
    resume: bool,
) -> tuple[FitResult, Plan, SampleStore]:
    """Train the network; the batch may be halved to fit into memory, which changes the plan.

    Returns:
        The result, the plan that was used, and the loaded validation cases.
    """
    train_in, store = _open(run, plan, training, validation, team, console)
    whole_s, before_s = training_budget_s(plan, clock.elapsed_s), trained_s(run)

    def left_s() -> float | None:
        return training_budget_s(plan, before_s + clock.elapsed_s)

    def attempt(plan: Plan, resume: bool) -> FitResult:
        return _fit_from_start(plan, run, train_in, whole_s, left_s, console, resume=resume)

    result, plan = train_within_memory(attempt, plan, run, console, resume=resume)
    run.require_weights()
    run.tuning_path.unlink(missing_ok=True)  # It was chosen for other weights.
    if not result.was_interrupted:
        run.note_end(plan)
    stopped = "Stopped. " if result.was_interrupted else ""
    console.say(
        f"{stopped}{_best_text(result, plan)}; "
        f"{result.foreground_patches:.0%} of the patches contained foreground."
    )
    return result, plan, store


def _open(
    run: Run,
    plan: Plan,
    training: Sequence[CaseFacts],
    validation: Sequence[CaseFacts],
    team: Team,
    console: Console,
) -> tuple[Train, SampleStore]:
    """Return a function that trains; on several devices, it does so in separate processes.

    The validation cases are returned as well.
    """
    if team.count == 1:
        return open_training(run, plan, training, validation, console)
    store = SampleStore([fact.case for fact in validation], plan.preprocessing, keep=False)
    return team.trainer(run, training, validation, run.named_code(plan)), store


def _fit_from_start(
    plan: Plan,
    run: Run,
    train_in: Train,
    whole_s: float | None,
    left_s: Callable[[], float | None],
    console: Console,
    *,
    resume: bool,
) -> FitResult:
    """Train from the usual weights; if the plan contains weights, usually after two trials.

    Args:
        whole_s: Seconds for trials and training together, including those before an interruption;
            None: no limit.
        left_s: Returns how many of them are left. All attempts of this command count, including
            those that ran out of memory, and so does the training time of earlier commands.
    """
    initial = None
    if plan.start is not None and not plan.recipe.train.compare_start:
        initial = keep_initial_weights(plan, run)
    elif plan.start is not None:
        initial = weights_after_trials(run, decide_start(plan, run, train_in, whole_s, console))
    return train_in(plan, run, initial, left_s(), resume)


def _create_free_folder(folder: Path) -> Path:
    """Create the folder, or the first of folder-2, folder-3, ... that does not exist."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in itertools.chain([folder], (Path(f"{folder}-{n}") for n in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("there is always another number")


def _best_text(result: FitResult, plan: Plan) -> str:
    if not result.is_validated:
        return "The last weights are kept, because there was no time to validate them again"
    where = f"in epoch {result.best_epoch} of {result.epochs}"
    if result.best_dice is None:
        return (
            "Since no validation image has foreground, the weights are the last ones, those of "
            f"epoch {result.best_epoch} of {result.epochs}"
        )
    if result.best_ap is None:
        is_learned = plan.preprocessing.space.has_distance
        has_none = is_learned and plan.recipe.predict.objects.separation == "learned_distance"
        why = ", since no object of the validation cases is annotated," if has_none else ""
        return f"Best validation Dice {result.best_dice:.4f}{why} {where}"
    return (
        f"Best average precision of the objects {result.best_ap:.4f} (validation Dice "
        f"{result.best_dice:.4f}) {where}"
    )
