"""Learning curve: train on increasing fractions of the groups and extrapolate the Dice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Unpack

from ushape import config
from ushape.api._devices import Devices
from ushape.api._jobs import (
    Runner,
    choose_runner,
    machine_of_jobs,
    run_unfinished,
    training_job,
    without_measuring,
)
from ushape.api._processes import is_left_to_first, without_launcher
from ushape.api._requests import continue_recipe, describe_request
from ushape.api._series import Series, is_finished
from ushape.api.plan import TrainOptions, optional_path, output_folder, plan_data
from ushape.api.train import TrainResult, train
from ushape.config import AUTO, resolved
from ushape.console import Clock, Console
from ushape.data.scan import DatasetStats
from ushape.data.splits import Splits
from ushape.data.subsets import nest_subsets
from ushape.distributed.job_config import JobConfig, JobOptions
from ushape.distributed.slurm import SlurmJobs
from ushape.errors import DataError, check_range
from ushape.evaluation.learning_curve import LearningCurve, make_curve
from ushape.evaluation.scores import read_scores
from ushape.formatting import pluralize
from ushape.io.files import real_path, write_json
from ushape.planning.hardware import inspect_machine
from ushape.planning.planner import Planned
from ushape.planning.processor import threads_restored
from ushape.planning.recipe import Recipe
from ushape.planning.rules.slices import without_comparison
from ushape.planning.run import Run
from ushape.reports.learning_curve import write_curve
from ushape.types import select_cases

MIN_POINTS = 3
"""A power law has three parameters."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """Training groups and duration of each point, decided before the first one is trained."""

    groups: tuple[int, ...]
    """Number of training groups of each point, ascending."""

    splits: tuple[Splits, ...]
    """Splits of each point, with the same validation and test cases."""

    noun: str
    """Name of the groups, in the plural."""

    minutes: float | None
    """Wall time of each point."""

    steps_per_epoch: int | None
    """Steps per epoch of each point if epochs are set: as many as with all groups."""

    objects: Literal["auto", "connected", "distance"] = "auto"
    """Definition of an object, as with all groups. auto: each point decides, in older curves."""

    threads: int | Literal["auto"] | None = None
    """Number of threads of each point; auto: the cores of each job; None: all, in older curves."""


def learning_curve(
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
    start_from: Path | str | None = None,
    groups: str | None = None,
    points: int = 4,
    quiet: bool = False,
    **jobs: Unpack[JobOptions],
) -> LearningCurve | None:
    """Estimate how much additional annotations would help.

    A model is trained on increasing fractions of the groups; each point is a run like any other.
    Repeat an interrupted call with the same output to continue it.

    Args:
        data: Folder with images and masks, or a table of them.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: Folder for the runs and learning_curve.html (default: runs/NAME-curve).
        recipe: Name of a recipe (see `ushape recipes`), a YAML file, or FILE.py:FUNCTION.
        minutes: Wall time of all points together in minutes (default: 30, unless the number of
            epochs is set).
        epochs: Number of epochs of each point; all points have the same number of steps per epoch.
        device: Device: auto, cpu, cuda or mps; a list (cuda:0,cuda:1) trains points in parallel.
        seed: Random seed for the split, weight initialization and patch sampling.
        settings: Recipe setting as key=value, e.g. train.batch_size=2 (repeatable).
        start_from: Run folder or .safetensors file with the initial weights; the network is that of
            the run (default: `train.initial_weights`).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        points: Maximum number of points, at least 3: all groups, half of them, a quarter, and so
            on.
        quiet: Print nothing.
        **jobs: Options for training each point as a job; see
            `ushape.distributed.job_config.JobOptions`.

    Returns:
        The curve; None if a job has not finished yet, and in all processes of `srun` or `torchrun`
        except the first.

    Raises:
        DataError: if there are too few training groups, or if the data cannot be used.
        ConfigError: if an option is unknown, has an impossible value, or conflicts with another
            one.
        RunError: if the output contains other files, or the points of another request;
            or if a job failed.
        KeyboardInterrupt: if Ctrl-C ended a point early.
    """
    clock, console = Clock.of_command(), Console(quiet=quiet)
    options = TrainOptions.resolve(
        recipe=recipe,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        settings=settings,
        groups=groups,
        start_from=start_from,
        data=data,
    )
    submitted = JobConfig.resolve(jobs, minutes=options.recipe.train.minutes, device=device)
    base = output_folder(output, data, "-curve")
    runner, devices = choose_runner(base, submitted, Devices.parse(device), points)
    series = Series(base / "points.json", "learning curve", has_jobs=submitted is not None)
    training = _PointTraining(Path(data), optional_path(masks), options, devices, points, runner)
    if is_left_to_first("learning curve", console):
        return None
    with series.in_use(), without_launcher():
        return training.find_curve(series, clock, console)


@dataclass(frozen=True)
class _PointTraining:
    """Settings shared by the training runs of all points."""

    data: Path
    masks: Path | None
    options: TrainOptions
    devices: Devices
    points: int
    runner: Runner | None = None
    """Runner that trains in separate processes; None: this process."""

    def __post_init__(self) -> None:
        check_range("points", self.points, MIN_POINTS, hint="4 points are usual.")

    def find_curve(self, series: Series, clock: Clock, console: Console) -> LearningCurve | None:
        """Train all points and summarize them.

        Raises:
            KeyboardInterrupt: if Ctrl-C ended a point early.
        """
        training, design = self.begin(series, clock, console)
        console.say(_describe(design))
        runs = training.run_all(design, series, console)
        if not all(map(is_finished, runs)):
            return None
        return _sum_up(series.path.parent, runs, design, training.options.recipe, console)

    def begin(
        self, series: Series, clock: Clock, console: Console
    ) -> tuple[_PointTraining, Design]:
        """Make and store the design, or load the stored one if the request is the same.

        Returns:
            The settings with the stored recipe, and the design.
        """
        recipe = self.options.recipe
        request = describe_request(self.data, self.masks, recipe, points=self.points)
        stored = series.find(request)
        if stored is None:
            with threads_restored():
                found, planned = self._plan(clock, console)
            made = self._adapt(_make_design(found, planned, self.points, recipe, clock))
            stored = series.begin(request, design=config.to_dict(made))
        options = replace(self.options, recipe=continue_recipe(stored["recipe"], recipe, console))
        design = config.from_dict(Design, stored["design"], source=str(series.path))
        return replace(self, options=options), design

    def _plan(self, clock: Clock, console: Console) -> tuple[DatasetStats, Planned]:
        """Plan training with all groups, for the machine on which the points are trained."""
        if self.runner is None:
            options, machine = self.options, inspect_machine(self._kind)
        else:
            options = replace(self.options, recipe=without_measuring(self.options.recipe))
            machine = machine_of_jobs(self.runner, self.devices)
        return plan_data(self.data, self.masks, options, machine, clock, console)

    @property
    def _kind(self) -> str:
        """Type of the devices, which all are of one type."""
        return self.devices.names[0].partition(":")[0]

    def _adapt(self, design: Design) -> Design:
        """Return a design whose points share the time and the cores if several run at once."""
        if self.runner is None:
            return design
        count = len(design.groups)
        at_once, minutes = self.runner.at_once(count), design.minutes
        if minutes is not None:
            minutes *= count / math.ceil(count / at_once)
        is_remote = isinstance(self.runner, SlurmJobs)
        cores = inspect_machine("cpu").cores
        return replace(
            design, minutes=minutes, threads=AUTO if is_remote else self.devices.share(cores)
        )

    def run_all(self, design: Design, series: Series, console: Console) -> list[Run]:
        """Train the unfinished points and return the runs of all.

        Raises:
            KeyboardInterrupt: if Ctrl-C ended a point early; points of different length do not
                form a curve.
        """
        base = series.path.parent
        runs = [Run(base / f"groups-{count}") for count in design.groups]
        series.refuse_changed_data(self.data, self.masks, runs)
        recipe = without_comparison(_recipe_of_points(self.options.recipe, design))

        def write_splits(number: int) -> Path:
            splits = base / "splits" / f"{runs[number].folder.name}.json"
            write_json(splits, config.to_dict(design.splits[number]))
            return splits

        def train_point(number: int) -> TrainResult:
            return train(
                self.data,
                masks=self.masks,
                output=runs[number].folder,
                recipe=recipe,
                device=self.devices.names[0],
                splits=write_splits(number),
                quiet=console.is_quiet,
            )

        titles = [
            f"point {place} of {len(runs)}, {count} of {design.groups[-1]} {design.noun} "
            "for training"
            for place, count in enumerate(design.groups, start=1)
        ]
        if self.runner is not None:
            jobs = [
                training_job(
                    f"{title[0].upper()}{title[1:]}",
                    run,
                    recipe,
                    self.data,
                    self.masks,
                    splits=write_splits(number),
                )
                for number, (run, title) in enumerate(zip(runs, titles, strict=True))
            ]
            failure = run_unfinished(self.runner, runs, jobs, console, "point")
            if failure is not None:
                raise failure
            return runs
        if series.train(runs, train_point, console, titles=titles) is not None:
            raise KeyboardInterrupt
        return runs


def _make_design(
    found: DatasetStats, planned: Planned, points: int, recipe: Recipe, clock: Clock
) -> Design:
    """Reduce the training groups of the split step by step, and share the minutes.

    Raises:
        DataError: if there are too few training groups, or no foreground in the test groups.
    """
    plan, whole = planned.plan, planned.splits
    _refuse_empty_test(found, whole)
    splits = _thin_out(found, whole, points, recipe.seed)
    group_of = found.group_of
    groups = tuple(len({group_of[case_id] for case_id in own.train}) for own in splits)
    if len(groups) < MIN_POINTS:
        raise DataError(
            f"With {groups[-1]} {plan.group_noun} for training, the learning curve would have only "
            f"{pluralize(len(groups), 'point')}; it needs {MIN_POINTS}.",
            code="too_few_groups",
            hint=f"Annotate {MIN_POINTS - groups[-1]} more, in addition to one for validation and "
            "one for test.",
        )
    minutes = recipe.train.minutes
    if minutes is not None:
        minutes = max(minutes - clock.elapsed_s / 60, 0.1 * minutes) / len(groups)
    return Design(
        groups=groups,
        splits=tuple(splits),
        noun=plan.group_noun,
        minutes=minutes,
        steps_per_epoch=None if minutes else resolved(plan.recipe.train.steps_per_epoch),
        objects=plan.recipe.labels.objects,
        threads=resolved(plan.recipe.train.threads),
    )


def _thin_out(found: DatasetStats, whole: Splits, points: int, seed: int) -> list[Splits]:
    """Return nested splits with increasing numbers of training groups; the last has all."""
    training = set(whole.train)
    subsets = nest_subsets(
        [case for case in found.grouping.cases if case.id in training],
        {one.case.id: found.foreground_share(one) for one in found.case_stats},
        {one.case.id: found.foreground_classes(one) for one in found.case_stats},
        points=points,
        seed=seed,
    )
    group_of = found.group_of
    return [
        replace(
            whole,
            train=tuple(i for i in whole.train if group_of[i] in kept),
            unused=tuple(i for i in whole.train if group_of[i] not in kept),
        )
        for kept in subsets
    ]


def _refuse_empty_test(found: DatasetStats, splits: Splits) -> None:
    """Check before training that the test cases can be scored.

    Raises:
        DataError: if no test case contains foreground.
    """
    shares = [found.foreground_share(one) for one in select_cases(found.case_stats, splits.test)]
    if not any(shares):
        raise DataError(
            "No test group contains foreground, so the Dice is undefined.",
            code="no_foreground",
            hint="Choose another --seed, which splits the groups differently.",
        )


def _recipe_of_points(recipe: Recipe, design: Design) -> Recipe:
    train = recipe.train
    if design.minutes is not None:
        train = replace(train, minutes=design.minutes)
    else:
        assert design.steps_per_epoch is not None, "either minutes or epochs are set"
        train = replace(train, steps_per_epoch=design.steps_per_epoch)
    train = replace(train, threads=design.threads or inspect_machine("cpu").cores)
    objects = recipe.labels.objects if design.objects == AUTO else design.objects
    return replace(recipe, train=train, labels=replace(recipe.labels, objects=objects))


def _describe(design: Design) -> str:
    counts = ", ".join(map(str, design.groups))
    each = (
        f"{design.minutes:.1f} minutes per point"
        if design.minutes is not None
        else f"{pluralize(design.steps_per_epoch or 0, 'step')} per epoch at each point"
    )
    return (
        f"Learning curve: training on {counts} {design.noun}, where each set contains the previous "
        f"one; {each}. All points use the same {len(design.splits[0].validation)} validation and "
        f"{len(design.splits[0].test)} test images."
    )


def _sum_up(
    base: Path, runs: Sequence[Run], design: Design, recipe: Recipe, console: Console
) -> LearningCurve:
    curve = make_curve(
        design.groups,
        [len(splits.train) for splits in design.splits],
        [run.folder for run in runs],
        [read_scores(run.scores_path) for run in runs],
        noun=design.noun,
        seed=recipe.seed,
    )
    doubt = (
        f"The confidence intervals reflect the variation between test {design.noun}, not between "
        "repeated training runs; another seed would change each point slightly."
    )
    notes = [
        _describe(design),
        doubt,
        "Small training sets are validated on more cases than a dataset of their size would have, "
        "so their points may be slightly too high.",
        f"Seed {recipe.seed}; the report of each point is in its folder.",
    ]
    page = write_curve(base, curve, f"{real_path(base).name}: learning curve", notes)
    console.say(curve.verdict)
    console.say(doubt)
    console.say(f"Learning curve: {page}")
    return curve
