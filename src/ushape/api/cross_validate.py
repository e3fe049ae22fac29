"""Cross-validation: every group is tested once, by a network that was not trained on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from ushape.api._devices import Devices
from ushape.api._jobs import (
    Runner,
    choose_runner,
    machine_of_jobs,
    refuse_own_code,
    run_unfinished,
    training_job,
    without_measuring,
)
from ushape.api._processes import is_left_to_first, without_launcher
from ushape.api._requests import continue_recipe, describe_request
from ushape.api._series import Series, is_finished
from ushape.api.plan import TrainOptions, optional_path, output_folder, scan_for
from ushape.api.train import train
from ushape.config import AUTO, Auto
from ushape.console import Clock, Console
from ushape.data.preprocessing import by_group
from ushape.data.scan import DatasetStats
from ushape.distributed.job_config import JobConfig, JobOptions
from ushape.distributed.jobs import Job
from ushape.distributed.slurm import SlurmJobs
from ushape.errors import UshapeError, check_range
from ushape.evaluation.baselines import BaselineName
from ushape.evaluation.breakdown import break_down
from ushape.evaluation.case_images import ImageSelection
from ushape.evaluation.object_pictures import ObjectSelection
from ushape.evaluation.scores import CaseScore, by_case
from ushape.evaluation.storage import Report, load_report, save_report
from ushape.evaluation.summary import Summary, join_summaries, summarize
from ushape.formatting import pluralize
from ushape.io.files import real_path
from ushape.planning.fingerprint import take_fingerprint
from ushape.planning.hardware import inspect_machine
from ushape.planning.planner import make_plan
from ushape.planning.processor import threads_beside, with_load
from ushape.planning.recipe import Recipe
from ushape.planning.rules.objects import settle_objects
from ushape.planning.rules.slices import choose_slices, see_slices, without_comparison
from ushape.planning.run import Run
from ushape.reports.report import AUDIT_PAGE, write_audit, write_pages

REQUEST = "folds.json"
"""File that stores the request."""


def cross_validate(
    data: Path | str,
    *,
    folds: int,
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
    quiet: bool = False,
    **jobs: Unpack[JobOptions],
) -> Summary | None:
    """Train one model per fold, so that each group is tested once.

    Repeat an interrupted call with the same output to continue it.

    Args:
        data: Folder with images and masks, or a table of them.
        folds: Number of folds, at least 2; 5 is usual.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: Folder for fold-1, fold-2, ... and the joint report (default: runs/NAME-folds).
        recipe: Name of a recipe (see `ushape recipes`), a YAML file, or FILE.py:FUNCTION.
        minutes: Wall time of all folds together in minutes (default: 30, unless the number of
            epochs is set).
        epochs: Number of epochs of each fold, instead of a time limit.
        device: Device: auto, cpu, cuda or mps; a list (cuda:0,cuda:1) trains folds in parallel.
        seed: Random seed for the split, weight initialization and patch sampling.
        settings: Recipe setting as key=value, e.g. train.batch_size=2 (repeatable).
        start_from: Run folder or .safetensors file with the initial weights; the network is that of
            the run (default: `train.initial_weights`).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        quiet: Print nothing.
        **jobs: Options for training each fold as a job; see
            `ushape.distributed.job_config.JobOptions`.

    Returns:
        Summary of the folds that have scores; None if no job has finished yet, and in all processes
        of `srun` or `torchrun` except the first.

    Raises:
        DataError: if there are more folds than groups, or if the data cannot be used.
        ConfigError: if an option is unknown, has an impossible value, or conflicts with another
            one.
        RunError: if the output contains other files, or folds of another request; or if a job
            failed.
    """
    clock, console, devices = Clock.of_command(), Console(quiet=quiet), Devices.parse(device)
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
    base = output_folder(output, data, "-folds")
    runner, devices = choose_runner(base, submitted, devices, folds)
    training = _FoldTraining(
        Path(data), optional_path(masks), options.recipe, devices, folds, runner
    )
    series = Series(base / REQUEST, "cross-validation", has_jobs=submitted is not None)
    if is_left_to_first("cross-validation", console):
        return None
    with series.in_use(), without_launcher():
        training = training.begin(series, clock, console)
        runs = training.runs_of(series)
        finished, failure = training.run_all(runs, series, console)
        summary = _sum_up(base, finished, folds, console) if finished else None
        if failure is not None:
            raise failure
        return summary


@dataclass(frozen=True)
class _FoldTraining:
    """Settings shared by the training runs of all folds."""

    data: Path
    masks: Path | None
    recipe: Recipe
    devices: Devices
    folds: int
    runner: Runner | None = None
    """Runner that trains in separate processes; None: this process."""

    def __post_init__(self) -> None:
        check_range("folds", self.folds, 2, hint="5 folds are usual.")

    def begin(self, series: Series, clock: Clock, console: Console) -> _FoldTraining:
        """Store the request, or compare it with the stored one.

        Returns:
            The settings with one decision for all folds on what an object is, and on the number of
            threads.
        """
        request = describe_request(self.data, self.masks, self.recipe, folds=self.folds)
        stored = series.find(request)
        if stored is None:
            found = self._scan(console)
            objects, threads = self._settle_objects(found, console), self._settle_threads(console)
            self._refuse_impossible(found)
            used = clock.elapsed_s / 60
            stored = series.begin(request, objects=objects, threads=threads, minutes_used=used)
        recipe = continue_recipe(stored["recipe"], self.recipe, console)
        # Older series leave the decision to each fold.
        labels = replace(recipe.labels, objects=stored.get("objects", recipe.labels.objects))
        train = replace(recipe.train, threads=stored.get("threads", self._share_of_cores))
        if train.minutes is not None:
            used = stored.get("minutes_used", 0.0)
            left = max(train.minutes - used, 0.1 * train.minutes)
            if used:
                console.say(
                    f"Starting and reading the data for all folds took {60 * used:.0f} s of their "
                    f"{train.minutes:g} minutes; {left:.1f} minutes are left for the folds."
                )
            train = replace(train, minutes=left)
        return replace(self, recipe=replace(recipe, labels=labels, train=train))

    def _scan(self, console: Console) -> DatasetStats | None:
        """Read all cases, if something must be decided or checked before the first fold."""
        if self.recipe.labels.objects != AUTO and self.runner is None:
            return None
        found = scan_for(self.recipe, self.data, self.masks, console)
        found.raise_if_unusable()
        return found

    def _refuse_impossible(self, found: DatasetStats | None) -> None:
        """Check that the first fold can be planned, before processes are started for all of them.

        Raises:
            UshapeError: as `make_plan` does, e.g. if there are more folds than groups.
        """
        if found is None or self.runner is None:
            return
        refuse_own_code(self.recipe)
        recipe = without_measuring(self.recipe_of(1))
        machine = machine_of_jobs(self.runner, self.devices)
        make_plan(found, recipe, machine, elapsed_s=lambda: 0.0)

    def _settle_objects(self, found: DatasetStats | None, console: Console) -> str:
        """Decide from all cases what an object is, unless the recipe sets it."""
        if found is None or self.recipe.labels.objects != AUTO:
            return self.recipe.labels.objects
        data = take_fingerprint(found, {stats.case.id for stats in found.readable})
        stacks = list(by_group([fact.case for fact in found.facts]).values())
        recipe, _, _ = choose_slices(without_comparison(self.recipe), data, stacks)
        chosen = settle_objects(recipe, see_slices(data, recipe))
        console.say(f"Objects of all folds: labels.objects={chosen}, decided from all cases.")
        return chosen

    @property
    def _share_of_cores(self) -> int:
        """Number of threads of a fold if all folds that run together use all cores."""
        return self.devices.share(inspect_machine("cpu").cores)

    def _settle_threads(self, console: Console) -> int | Auto:
        """Decide how many threads each fold uses, unless the number follows the load."""
        train, kinds = self.recipe.train, {name.partition(":")[0] for name in self.devices.names}
        if isinstance(self.runner, SlurmJobs):
            return train.threads  # Each job uses the cores that SLURM gives it.
        if train.threads != AUTO or train.minutes is not None or not kinds <= {"auto", "cpu"}:
            return train.threads
        machine = inspect_machine(min(kinds))
        if machine.device != "cpu":
            return train.threads
        free = with_load(machine, train).free_cores
        threads = self._share_of_cores
        if free is not None:
            threads = threads_beside(free / len(self.devices.names), threads)
        if threads < self._share_of_cores:
            console.say(
                f"Each fold uses {pluralize(threads, 'thread')} (train.threads), because other "
                f"programs leave only {free:.1f} of the {machine.cores} cores free."
            )
        return threads

    def runs_of(self, series: Series) -> list[Run]:
        """Return the runs of all folds, if the data are still those of the first one."""
        base = series.path.parent
        runs = [Run(base / f"fold-{number}") for number in range(1, self.folds + 1)]
        series.refuse_changed_data(self.data, self.masks, runs)
        return runs

    def run_all(
        self, runs: Sequence[Run], series: Series, console: Console
    ) -> tuple[list[Run], UshapeError | None]:
        """Train the unfinished folds.

        Returns:
            The folds that have scores, and the error of folds that have failed.
        """
        if self.runner is not None:
            jobs = [self.job_of(number, run) for number, run in enumerate(runs, start=1)]
            failure = run_unfinished(self.runner, runs, jobs, console, "fold")
            return [run for run in runs if is_finished(run)], failure
        titles = [f"fold {number} of {self.folds}" for number in range(1, self.folds + 1)]
        try:
            stopped = series.train(
                runs,
                lambda place: train(
                    self.data,
                    masks=self.masks,
                    output=runs[place].folder,
                    recipe=self.recipe_of(place + 1),
                    device=self.devices.names[0],
                    quiet=console.is_quiet,
                ),
                console,
                titles=titles,
            )
        except UshapeError as failure:
            finished = [run for run in runs if is_finished(run)]
            if not finished:
                raise
            return finished, failure
        return list(runs if stopped is None else runs[: stopped + 1]), None

    def recipe_of(self, number: int) -> Recipe:
        """Return the recipe of a fold; minutes are shared by all folds, epochs are not."""
        split = replace(self.recipe.split, folds=self.folds, fold=number - 1)
        own = self.recipe.train
        if own.minutes is not None:
            at_once = (self.runner or self.devices).at_once(self.folds)
            rounds = math.ceil(self.folds / at_once)
            own = replace(own, minutes=own.minutes / rounds)
        return replace(without_comparison(self.recipe), split=split, train=own)

    def job_of(self, number: int, run: Run) -> Job:
        """Return the training of a fold as a command for a separate process."""
        name = f"Fold {number} of {self.folds}"
        return training_job(name, run, self.recipe_of(number), self.data, self.masks)


def _sum_up(base: Path, runs: Sequence[Run], folds: int, console: Console) -> Summary:
    """Write the joint report of the folds and print its verdict."""
    reports, plan = [load_report(run.folder) for run in runs], runs[0].load_plan()
    scores = [score for report in reports for score in report.scores]
    cases = [fact.case for fact in runs[0].load_cases()]
    noun, seed = plan.group_noun, plan.recipe.seed
    baselines = _join_baselines(reports)
    summary = join_summaries(
        [report.summary for report in reports],
        summarize(scores, noun=noun, seed=seed, baselines=baselines),
    )
    selection, of_case = ImageSelection(), by_case(scores)
    for picture in (picture for report in reports for picture in report.pictures):
        selection.add(of_case[picture.case], picture)
    objects = ObjectSelection()
    for shown in (shown for report in reports for shown in report.object_pictures):
        objects.insert(shown)
    is_whole = len(runs) == folds
    tested = "each group tested once" if is_whole else "the other folds are not yet trained"
    title = f"{real_path(base).name}: {len(runs)} of {folds} folds, {tested}"
    report = Report(
        title=title,
        summary=summary,
        scores=tuple(scores),
        epochs=(),
        split_lines=[f"{run.folder.name}: {run.load_splits().text}" for run in runs],
        leak_lines=_leak_lines(runs, reports),
        # This line of the plan is about the scores of a single fold.
        plan_lines=[line for line in plan.reasons if not line.startswith("Scores:")],
        reproduce_lines=[
            *(line for line in reports[0].reproduce_lines if not line.startswith(("Seed ", "To "))),
            f"Seed {seed}; the report of each fold names the epoch of its weights.",
        ],
        baselines=baselines,
        pictures=selection.pictures,
        object_pictures=objects.pictures,
        breakdowns=break_down(scores, cases, noun=noun, seed=seed),
    )
    write_audit(base, title, scores, report.pictures)
    save_report(base, report)
    write_pages(base, report)
    console.say(summary.verdict)
    console.say(f"Report: {base / runs[0].report_path.name}")
    console.say(f"Masks with possible annotation errors: {base / AUDIT_PAGE}")
    return summary


def _join_baselines(reports: Sequence[Report]) -> dict[BaselineName, list[CaseScore]]:
    """Return the scores of the baselines that all folds have."""
    return {
        name: [score for report in reports for score in report.baselines[name]]
        for name in reports[0].baselines
        if all(name in report.baselines for report in reports)
    }


def _leak_lines(runs: Sequence[Run], reports: Sequence[Report]) -> list[str]:
    """Return the lines of all folds; lines that only some have begin with the folds' names."""
    lines = list(dict.fromkeys(line for report in reports for line in report.leak_lines))
    found = []
    for line in lines:
        names = [
            run.folder.name
            for run, report in zip(runs, reports, strict=True)
            if line in report.leak_lines
        ]
        found.append(line if len(names) == len(runs) else f"{', '.join(names)}: {line}")
    return found
