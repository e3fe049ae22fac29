"""Trials of a search for settings. Several processes can run trials of the same search."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ushape import config
from ushape.api._compare_slices import FAILURES
from ushape.api._trainer import open_cases
from ushape.api._trial_score import TrialScore, score_trial
from ushape.config import resolved
from ushape.console import Clock, Console
from ushape.data.cache import SampleStore
from ushape.data.scan import DatasetStats
from ushape.data.splits import Splits
from ushape.errors import ConfigError, PlanError, RunError, UshapeError
from ushape.io.files import read_json, write_json
from ushape.io.lock import locked
from ushape.planning.plan import Plan
from ushape.planning.planner import Measured, make_plan
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run
from ushape.planning.search_space import SearchedSetting, describe_choice, settings_of
from ushape.training.study import CHECKS, RunningTrial, StoppedEarlyError, Study
from ushape.training.trainer import FitResult, train_within_memory
from ushape.training.trials import Train, plan_trial
from ushape.types import select_cases

POLL_S = 0.5
"""Seconds between two checks of what other processes do."""

SILENT_S = 3600.0
"""Seconds without a change after which a trial of another machine is considered lost, if locks of
the file system do not show whether its process is still running."""


@dataclass(frozen=True, kw_only=True)
class SearchDesign:
    """What is decided before the first trial, and is the same for all trials and processes."""

    space: tuple[SearchedSetting, ...]
    minutes: float | None
    """Minutes of the final training; None: the number of epochs is fixed."""

    search_s: float | None
    """Seconds of all trials together, summed over processes; None: their number is fixed."""

    trial_s: float | None
    """Seconds of training of each trial; None: an eighth of the epochs."""

    trials: int | None
    """Maximum number of trials."""

    before_s: float
    """Seconds that reading the data and planning took."""

    times: tuple[float, float | None] | None
    """Seconds of a planned training step and of its loading, if they were measured."""

    checksum: str
    """Checksum of the data."""


def trial_run(folder: Path, number: int) -> Run:
    """Return the run of a trial of a search."""
    return Run(folder / "trials" / f"{number:03d}")


def save_score(run: Run, score: TrialScore) -> None:
    """Store the scores of a trial."""
    write_json(run.folder / "score.json", config.to_dict(score))


def load_groups(run: Run) -> dict[str, float]:
    """Return the Dice of each validation group in a finished trial."""
    hint = "Copy the complete folder again, or choose another folder with -o."
    path = run.folder / "score.json"
    values = read_json(path, RunError, code="damaged_run", hint=hint)
    return config.from_dict(TrialScore, values, source=str(path)).groups  # type: ignore[return-value]


@contextmanager
def locked_in_turn(folder: Path, is_over: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Lock a folder; wait while another process has locked it, unless something is over.

    Raises:
        RunError: if it is over, or if the folder cannot be locked at all.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except RunError as error:
                if error.code != "folder_in_use" or is_over():
                    raise
                time.sleep(POLL_S)
        yield


class TrialRunner:
    """Runs the trials of a search in this process.

    Trials are trained on the training cases and scored on the validation cases. Test cases are not
    read.

    Args:
        study: Trials of all processes.
        recipe: Recipe of the final training, to which the settings of a trial are added.
        plan: Plan of the first trial.
        folder: Folder of the search, with splits.json.
    """

    def __init__(
        self,
        study: Study,
        design: SearchDesign,
        found: DatasetStats,
        recipe: Recipe,
        plan: Plan,
        folder: Path,
        console: Console,
    ):
        self.study, self.design, self.found = study, design, found
        self.plan, self.folder, self.console = plan, folder, console
        self.recipe = _with_common_settings(recipe, plan)
        splits = Splits.load(self.splits_path)
        self._training = select_cases(found.facts, splits.train)
        self._validation = select_cases(found.facts, splits.validation)
        self._opened: tuple[Any, Train, SampleStore] | None = None
        self._running: RunningTrial | None = None
        self._trained_s = 0.0

    @property
    def splits_path(self) -> Path:
        return self.folder / "splits.json"

    def run_all(self, is_over: Callable[[], bool]) -> None:
        """Run trials until the time is used, and wait for those of other processes.

        Args:
            is_over: Returns whether another process has begun the final training.

        Raises:
            KeyboardInterrupt: if Ctrl-C ended a trial.
            UshapeError: if the first trial fails, or if a trial fails for another reason than its
                settings.
        """
        while not is_over():
            with ExitStack() as stack:
                try:
                    with locked_in_turn(self.folder, is_over):
                        trial = self._begin(stack)
                except RunError:
                    if is_over():
                        return
                    raise
                if trial is not None:
                    self._run(trial)
                elif any(row.state == "running" for row in self.study.rows):
                    time.sleep(POLL_S)
                else:
                    return

    def _begin(self, stack: ExitStack) -> RunningTrial | None:
        """Begin the next trial, and lock its folder until the stack is closed."""
        self._give_up_lost_trials()
        trial = self.study.next_trial() if self._has_time() else None
        if trial is not None:
            stack.enter_context(locked(trial_run(self.folder, trial.number).folder))
        return trial

    def _give_up_lost_trials(self) -> None:
        """Find the trials whose process has ended, so that they are repeated.

        Without locks between machines, a trial of another machine may still be running: its files
        decide.
        """
        for row in self.study.rows:
            if row.state != "running":
                continue
            folder = trial_run(self.folder, row.number).folder
            try:
                with locked(folder, silent_s=SILENT_S):
                    self.study.lose(row.number)
                    shutil.rmtree(folder, ignore_errors=True)
            except RunError as error:
                if error.code != "folder_in_use":
                    raise

    def _has_time(self) -> bool:
        """Return whether another trial may begin."""
        rows = [row for row in self.study.rows if row.state != "lost"]
        if self.design.trials is not None and len(rows) >= self.design.trials:
            return False
        if not rows or self.design.search_s is None:
            return True
        whole = [row.seconds for row in rows if row.state == "finished"]
        expected_s = max(self.design.trial_s or 0.0, statistics.median(whole) if whole else 0.0)
        used_s = sum(expected_s if row.state == "running" else row.seconds for row in rows)
        return used_s + expected_s <= self.design.search_s

    def _run(self, trial: RunningTrial) -> None:
        """Run one trial and store how it ended."""
        clock = Clock()
        self.console.say(f"Trial {trial.number}: {describe_choice(trial.chosen)}")
        try:
            score = self._train(trial, trial_run(self.folder, trial.number))
        except StoppedEarlyError:
            self.study.stop(trial, clock.elapsed_s)
            self.console.say(f"Trial {trial.number} was stopped early.")
        except UshapeError as error:
            is_of_settings = isinstance(error, ConfigError | PlanError) or error.code in FAILURES
            if trial.number == 1 or not is_of_settings:
                raise
            self.study.fail(trial, clock.elapsed_s, error.message)
            self.console.say(f"Trial {trial.number} is skipped: {error.message}")
        else:
            self.study.finish(trial, score.value, clock.elapsed_s)
            self.console.say(f"Trial {trial.number}: validation score {score.value:.4f}")
        finally:
            _keep_facts(trial_run(self.folder, trial.number))

    def _train(self, trial: RunningTrial, run: Run) -> TrialScore:
        plan, whole_s = self._plan(trial.chosen), self.design.trial_s
        train_in, store = self._open(plan)
        self._running, self._trained_s = trial, 0.0
        clock = Clock()

        def attempt(plan: Plan, resume: bool) -> FitResult:
            left_s = None if whole_s is None else max(1.0, whole_s - clock.elapsed_s)
            return train_in(plan_trial(plan, CHECKS), run, None, left_s, resume)

        result, plan = train_within_memory(attempt, plan, run, self.console, resume=False)
        if result.was_interrupted:
            raise KeyboardInterrupt
        run.save_plan(plan)
        score = score_trial(plan, run, self._validation, store, self.console)
        save_score(run, score)
        return score

    def _plan(self, chosen: Mapping[str, str]) -> Plan:
        """Return the plan with the settings of a trial, for the time of the final training."""
        recipe = config.override(self.recipe, settings_of(self.study.space, chosen))
        planned = make_plan(
            self.found,
            recipe,
            self.plan.machine,
            elapsed_s=lambda: self.design.before_s,
            given_splits=self.splits_path,
            measured=Measured(times=self.design.times),
        )
        return planned.plan

    def _open(self, plan: Plan) -> tuple[Train, SampleStore]:
        """Load the cases, unless those of the last trial were prepared in the same way."""
        key = plan.preprocessing, plan.recipe.network.dims, plan.recipe.train.patch_source
        if self._opened is None or self._opened[0] != key:
            self._opened = None  # Free the memory first.
            opened = open_cases(
                plan, self._training, self._validation, self.console, on_row=self._check
            )
            self._opened = (key, *opened)
        return self._opened[1:]

    def _check(self, row: dict[str, Any]) -> None:
        """Compare the trial with the others after an epoch that ended with a validation.

        Raises:
            StoppedEarlyError: if its score is too low.
        """
        assert self._running is not None, "a trial is running"
        self._trained_s += row["seconds"]
        budget_s = self.design.trial_s
        progress = row["epoch"] / CHECKS if budget_s is None else self._trained_s / budget_s
        score = row.get("validation_ap", row["validation_dice"])
        if score is not None:  # The epoch was not validated, or no validation case has foreground.
            self._running.report(score, progress)


def _with_common_settings(recipe: Recipe, plan: Plan) -> Recipe:
    """Return the recipe with what was measured or decided once for all trials."""
    planned = plan.recipe.train
    train = replace(
        recipe.train,
        precision=resolved(planned.precision),
        channels_last=resolved(planned.channels_last),
    )
    labels = replace(recipe.labels, objects=plan.recipe.labels.objects)
    return replace(recipe, train=train, labels=labels)


def _keep_facts(run: Run) -> None:
    """Remove the weights and logs of a trial, which are not needed once it is scored."""
    for path in (run.checkpoint_path.parent, run.folder / "tensorboard"):
        shutil.rmtree(path, ignore_errors=True)
    run.weights_path.unlink(missing_ok=True)
