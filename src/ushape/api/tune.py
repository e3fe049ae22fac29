"""Search for better settings by short trials, then train with the best ones."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ushape import config
from ushape.api._devices import Devices
from ushape.api._processes import without_launcher
from ushape.api._requests import describe_request
from ushape.api._search import SearchDesign, TrialRunner, load_groups, locked_in_turn, trial_run
from ushape.api._search_text import CAVEAT, FINAL_SHARE, METHOD, describe_design, describe_result
from ushape.api._series import Series, drop_unplanned, is_finished
from ushape.api._trainer import training_budget_s
from ushape.api.plan import TrainOptions, optional_path, output_folder, plan_data, scan_for
from ushape.api.train import resume, train
from ushape.config import AUTO
from ushape.console import Clock, Console
from ushape.data.scan import DatasetStats
from ushape.data.splits import has_foreground
from ushape.distributed.jobs import Job
from ushape.errors import ConfigError, DataError, RunError, check_range
from ushape.evaluation.storage import load_report
from ushape.evaluation.summary import Summary
from ushape.interrupts import REPEAT, hint_after_interrupt
from ushape.io.files import real_path, write_bytes
from ushape.io.limits import sharing_processes
from ushape.metrics.stats import PairedComparison, compare_paired
from ushape.planning.hardware import inspect_machine, reuse_freed_memory
from ushape.planning.plan import Plan
from ushape.planning.processor import threads_restored, use_threads, with_load
from ushape.planning.recipe import Recipe
from ushape.planning.rules.slices import without_comparison
from ushape.planning.run import Run
from ushape.planning.search_space import (
    describe_choice,
    propose_space,
    read_searches,
    settings_of,
    without_fixed,
)
from ushape.planning.shares import share_of_machine
from ushape.planning.start_decision import TRIAL_SHARE
from ushape.reports.search import SearchReport, TrialLine, write_search
from ushape.training.study import Study, TrialRow, require_optuna
from ushape.types import select_cases

TRIALS = 16
"""Number of trials if the epochs are given instead of minutes."""

FINAL = "best"
"""Name of the run of the final training."""


@dataclass(frozen=True)
class SearchResult:
    """A finished search for settings."""

    folder: Path
    """Run folder of the final training, which `predict`, `evaluate` and `report` read."""

    settings: tuple[str, ...]
    """Settings of the best trial as key=value; empty if it is the plan without changes."""

    trials: tuple[TrialRow, ...]
    """All trials in the order in which they began."""

    summary: Summary | None
    """Scores of the final training on the test cases; None if there are none, or if another process
    trains it."""

    def __repr__(self) -> str:
        return f"SearchResult(folder={str(self.folder)!r}, settings={self.settings!r})"


@threads_restored()
def tune(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    recipe: Recipe | str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    trials: int | None = None,
    search: Iterable[str] = (),
    device: str = "auto",
    seed: int | None = None,
    settings: Iterable[str] = (),
    start_from: Path | str | None = None,
    groups: str | None = None,
    quiet: bool = False,
) -> SearchResult:
    """Search for better settings and train with them.

    Short trials are compared on the validation cases, and poor ones are stopped early. The final
    training run uses half of the time; only its result is scored on the test cases. Repeat an
    interrupted call with the same output to continue it. Several processes that make the same call
    share the trials.

    Args:
        data: Folder with images and masks, or a table of them.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: Folder for the trials, the run of the final training and search.html (default:
            runs/NAME-search).
        recipe: Name of a recipe (see `ushape recipes`), a YAML file, or FILE.py:FUNCTION.
        minutes: Wall time of trials and final training together in minutes (default: 30, unless the
            number of epochs is set).
        epochs: Number of epochs of the final training; a trial has an eighth of its steps.
        trials: Maximum number of trials (default: as many as the time allows, or 16 if the number
            of epochs is set).
        search: Values to try for a setting, as KEY=A,B,C, replacing the proposed values;
            KEY=planned excludes the setting from the search (repeatable).
        device: Device: auto, cpu, cuda or mps; a list (cuda:0,cuda:1) runs trials in parallel.
        seed: Random seed for the split, weight initialization and patch sampling.
        settings: Recipe setting as key=value, e.g. train.batch_size=2; it is the same in all trials
            (repeatable).
        start_from: Run folder or .safetensors file with the initial weights; the network is that of
            the run (default: `train.initial_weights`).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        quiet: Print nothing.

    Raises:
        DataError: if the data cannot be used, or if there are no validation cases.
        ConfigError: if an option is unknown, has an impossible value, or conflicts with another
            one.
        MissingPackageError: if Optuna is not installed.
        RunError: if the output contains other files, or the search of another request.
        KeyboardInterrupt: if Ctrl-C ended a trial.
    """
    clock, console, devices = Clock.of_command(), Console(quiet=quiet), Devices.parse(device)
    settings = config.setting_list(settings)
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
    if trials is not None:
        check_range("trials", trials, 1, hint="10 to 20 are usual.")
    folder = output_folder(output, data, "-search")
    given = {"masks": masks, "seed": seed, "from": start_from, "groups": groups}
    given["recipe"] = None if recipe == "auto" or isinstance(recipe, Recipe) else recipe
    own = _Search(
        data=Path(data),
        masks=optional_path(masks),
        options=options,
        given={key: str(value) for key, value in given.items() if value is not None},
        fixed=settings,
        searches=config.setting_list(search),
        trials=trials,
        device=devices.names[0].partition(":")[0],
        processes=len(devices.names) if devices.are_separate else 1,
        series=Series(folder / "tune.json", "search for settings"),
        console=console,
    )
    if devices.are_separate:
        devices.require_available()
    with hint_after_interrupt(REPEAT):
        found = own.begin(clock)
        if not own.final.folder.exists():
            if devices.are_separate:
                own.run_in_parallel(devices)
            else:
                own.run_trials(found)
        return own.finish()


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Options of a search, and its folder."""

    data: Path
    masks: Path | None
    options: TrainOptions
    given: Mapping[str, str]
    """Other options of the call, which belong to the command that trains again."""

    fixed: tuple[str, ...]
    """Settings fixed by the user with --set."""

    searches: tuple[str, ...]
    trials: int | None
    device: str
    processes: int
    """Number of trials that run at the same time."""

    series: Series
    console: Console

    @property
    def folder(self) -> Path:
        return self.series.path.parent

    @property
    def final(self) -> Run:
        """Run of the final training."""
        return Run(self.folder / FINAL)

    @cached_property
    def recipe(self) -> Recipe:
        """Recipe of the final training, with its share of the time and volumes processed as in
        trials.

        Raises:
            ConfigError: if a range test is to choose the learning rate.
        """
        recipe = without_comparison(self.options.recipe)
        train = recipe.train
        if train.learning_rate == AUTO:
            raise ConfigError(
                "train.learning_rate is auto, but a search tries several learning rates itself.",
                code="settings_conflict",
                hint="Omit train.learning_rate, or set it to a number.",
            )
        if train.minutes is not None:
            train = replace(train, minutes=FINAL_SHARE * train.minutes)
        return replace(recipe, train=train)

    @property
    def request(self) -> dict[str, Any]:
        more = {"search": list(self.searches), "trials": self.trials}
        return describe_request(self.data, self.masks, self.options.recipe, **more)

    @cached_property
    def stored(self) -> dict[str, Any]:
        """What the process that began the search has stored."""
        return self.series.compare(self.request)

    @cached_property
    def design(self) -> SearchDesign:
        return config.from_dict(SearchDesign, self.stored["design"], source=str(self.series.path))

    def open_study(self) -> Study:
        return Study(self.folder / "trials.log", self.design.space, self.options.recipe.seed)

    def begin(self, clock: Clock) -> DatasetStats | None:
        """Plan the search, unless another process has done it.

        Returns:
            The scanned data, if this process has scanned them.

        Raises:
            RunError: if the folder contains other files, or the search of another request.
        """
        require_optuna()
        found = None
        while not self.series.path.exists():
            try:
                with locked_in_turn(self.folder, self.series.path.exists):
                    if self.series.find(self.request) is None:
                        found = self._plan(clock)
            except RunError:
                if not self.series.path.exists():
                    raise
        assert self.stored
        return found

    def _plan(self, clock: Clock) -> DatasetStats:
        """Scan the data, split them, plan the first trial and divide the time."""
        options = replace(self.options, recipe=self.recipe)
        machine = share_of_machine(inspect_machine(self.device), self.processes)
        found, planned = plan_data(self.data, self.masks, options, machine, clock, self.console)
        plan, splits = planned.plan, planned.splits
        if not splits.validation:
            raise DataError(
                "No image is kept for validation, so trials cannot be compared.",
                code="no_validation",
                hint="Use a larger split.validation_fraction, or annotate more images.",
            )
        if not has_foreground(found, splits.validation):
            raise DataError(
                "No validation image has foreground, so trials cannot be compared.",
                code="no_foreground",
                hint="Annotate more images with foreground, or choose another --seed, which splits "
                "the groups differently.",
            )
        proposed = propose_space(plan, _median_shape(found, splits.train, plan))
        space = read_searches(
            self.searches, without_fixed(proposed, self.fixed), options.recipe, plan
        )
        if not space:
            raise ConfigError(
                "No setting is left to search.",
                code="nothing_to_search",
                hint="Specify one: --search train.learning_rate=0.001,0.004",
            )
        minutes, whole_s = plan.recipe.train.minutes, training_budget_s(plan, clock.elapsed_s)
        trials_s = None
        if minutes is not None:
            trials_s = max(60 * minutes * (1 / FINAL_SHARE - 1) - clock.elapsed_s, 0.0)
        design = SearchDesign(
            space=space,
            minutes=minutes,
            search_s=trials_s,
            trial_s=None if whole_s is None else TRIAL_SHARE * whole_s,
            trials=self.trials or (TRIALS if minutes is None else None),
            before_s=clock.elapsed_s,
            times=planned.measured.times,
            checksum=found.checksum,
        )
        splits.save(self.folder / "splits.json")
        values = {"design": config.to_dict(design), "plan": plan.to_dict()}
        self.series.begin(self.request, **values)
        for line in (*plan.reasons, *describe_design(design, plan)):
            self.console.say(line)
        return found

    def run_trials(self, found: DatasetStats | None) -> None:
        """Take part in the trials until their time is used.

        Args:
            found: The scanned data; None: they are scanned now.

        Raises:
            RunError: if the data have changed since the search began.
        """
        plan = Plan.from_dict(dict(self.stored["plan"]), source=str(self.series.path))
        if found is None:
            if plan.recipe.train.reuse_freed_memory:
                reuse_freed_memory()
            use_threads(plan.recipe.train, with_load(plan.machine, plan.recipe.train))
            found = scan_for(self.recipe, self.data, self.masks, self.console)
            found.raise_if_unusable()
        if found.checksum != self.design.checksum:
            raise RunError(
                f"{self.data} has changed since {self.folder} was started: files were added, "
                "removed or modified.",
                code="data_changed",
                hint="Restore the data, or choose another folder with -o.",
            )
        runner = TrialRunner(
            self.open_study(), self.design, found, self.recipe, plan, self.folder, self.console
        )
        runner.run_all(self.final.folder.exists)

    def run_in_parallel(self, devices: Devices) -> None:
        """Run the trials by the same command in a process for each device."""
        if self.options.recipe.code is not None:
            raise ConfigError(
                f"The trials of {self.options.recipe.code.name} cannot run on several devices.",
                code="custom_code_several_devices",
                hint="Use a single device; a recipe in a Python file is trained in one process.",
            )
        recipe = self.folder / "recipe.yaml"
        write_bytes(recipe, config.explain(self.options.recipe).encode())
        arguments = ["tune", str(self.data), "-o", str(self.folder), "--recipe", str(recipe)]
        arguments += ["--masks", str(self.masks)] if self.masks else []
        arguments += ["--trials", str(self.trials)] if self.trials else []
        for search in self.searches:
            arguments += ["--search", search]
        jobs = [
            Job(f"Process {number}", arguments, self.folder / f"process-{number}.log")
            for number in range(1, len(devices.names) + 1)
        ]
        devices.run(jobs, self.console)

    def finish(self) -> SearchResult:
        """Write the results, and train with the best settings unless this has been done.

        Raises:
            RunError: if no trial has ended.
        """
        study = self.open_study()
        rows, best = study.rows, study.best
        if best is None:
            raise RunError(
                f"{self.folder} has no finished trial.",
                code="no_finished_trial",
                hint="Repeat the command with more --minutes and another folder.",
            )
        chosen = settings_of(study.space, best.chosen)
        found = SearchResult(self.final.folder, chosen, tuple(rows), None)
        if sharing_processes() > 1:
            return found  # The process that has started this one trains, on the whole machine.
        try:
            with locked_in_turn(self.folder, self.final.folder.exists):
                page = self._write(rows, best, chosen)
                self.console.say(f"Search: {page}")
                with without_launcher():  # The others do not take part in the final training.
                    return replace(found, summary=self._train_best(chosen))
        except RunError as error:
            if error.code != "folder_in_use":
                raise
            self.console.say(f"Another process trains the final run, {self.final.folder}.")
            return found

    def _train_best(self, chosen: Sequence[str]) -> Summary | None:
        """Train and score the final run, or continue it; return its scores, if it has any."""
        final, console = self.final, self.console
        if is_finished(final):
            console.say(f"Final training: already finished. Report: {final.report_path}")
            return load_report(final.folder).summary
        console.say("Final training:")
        if final.plan_path.exists():
            return resume(final.folder, quiet=console.is_quiet).summary
        drop_unplanned(final)
        return train(
            self.data,
            masks=self.masks,
            output=final.folder,
            recipe=config.override(self.recipe, chosen),
            device=self.device,
            splits=self.folder / "splits.json",
            quiet=console.is_quiet,
        ).summary

    def _write(self, rows: Sequence[TrialRow], best: TrialRow, chosen: Sequence[str]) -> Path:
        """Print the result, write its files and return the page."""
        first = next((row for row in rows if row.is_planned and row.state == "finished"), best)
        verdict = describe_result(rows, first, best, self._difference(first, best))
        command = self._command(chosen)
        lines = [
            TrialLine(
                number=row.number,
                settings=describe_choice(row.chosen),
                state=row.state,
                score=row.score,
                seconds=row.seconds,
                note=row.note,
            )
            for row in rows
        ]
        shown = [
            (
                str(line.number),
                "-" if line.score is None else f"{line.score:.4f}",
                f"{line.seconds:.0f}",
                "best" if line.number == best.number else line.state,
                line.settings,
            )
            for line in lines
        ]
        self.console.table(("trial", "score", "seconds", "outcome", "settings"), shown)
        self.console.say(verdict)
        self.console.say(CAVEAT)
        self.console.say(f"To train with these settings: {command}")
        report = SearchReport(
            verdict=verdict,
            options=tuple(chosen),
            command=command,
            searched=tuple(one.text for one in self.design.space),
            trials=tuple(lines),
            best=best.number,
            notes=(*METHOD, CAVEAT),
        )
        return write_search(self.folder, report, f"{real_path(self.folder).name}: search")

    def _difference(self, first: TrialRow, best: TrialRow) -> PairedComparison | None:
        """Compare the Dice of the validation groups in the best trial and in the first one."""
        if best is first:
            return None
        planned, found = (load_groups(trial_run(self.folder, row.number)) for row in (first, best))
        shared = [group for group in found if group in planned]
        if not shared:
            return None
        return compare_paired(
            [found[group] for group in shared], [planned[group] for group in shared], seed=0
        )

    def _command(self, chosen: Sequence[str]) -> str:
        """Return the command that trains with the chosen settings."""
        train, words = self.recipe.train, ["ushape", "train", str(self.data)]
        duration = ("minutes", train.minutes) if train.minutes else ("epochs", train.epochs)
        for key, value in {**self.given, duration[0]: f"{duration[1]:g}"}.items():
            words += [f"--{key}", value]
        for setting in (*self.fixed, *chosen):
            words += ["--set", setting]
        return shlex.join(words)


def _median_shape(found: DatasetStats, training: Sequence[str], plan: Plan) -> list[int]:
    """Return the median size of the training images along the axes of the network, in pixels."""
    shapes = [one.shape for one in select_cases(found.case_stats, training)]
    median = np.median(np.array(shapes), axis=0)
    return [int(size) for size in median[-plan.recipe.network.dims :]]
