"""Search for settings: which trial comes next, and which one is stopped early.

Optuna stores all trials in a file to which it only appends. Several processes on several machines
can work on the same file, and none of them can damage it by being killed.
"""

from __future__ import annotations

import itertools
import json
import random
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ushape.errors import RunError, require_package
from ushape.planning.search_space import PLANNED, SearchedSetting

NAME = "ushape"
"""Name of the study in its file."""

CHECKS = 5
"""Number of evenly spaced points of a trial at which its score is compared; the last is its end."""

UNSTOPPED_CHECKS = 2
"""Number of first points at which no trial is stopped, because scores are still rising steeply."""

UNSTOPPED_TRIALS = 3
"""Number of finished trials that others are compared with; before that, no trial is stopped."""

DRAWS = 10
"""Number of already known proposals after which any unknown choice is taken."""

MAX_CHOICES = 100_000
"""Number of choices that are searched for an unknown one."""

MAX_LOSSES = 3
"""Number of attempts for a choice if the process is killed each time."""

State = Literal["finished", "stopped early", "failed", "lost", "running"]


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial of a search."""

    number: int
    """Number of the trial, from 1."""

    chosen: Mapping[str, str]
    """Name of the value of each setting."""

    state: State
    """Lost trials were interrupted; they are repeated under another number."""

    score: float | None
    """Score on the validation cases; of a trial that was stopped early, the best one until then."""

    seconds: float
    """Duration in seconds; 0 if it has not ended or was lost."""

    note: str = ""
    """Reason why it failed."""

    @property
    def is_planned(self) -> bool:
        """Whether all settings have the values of the plan."""
        return all(name == PLANNED for name in self.chosen.values())


def require_optuna() -> Any:
    """Import Optuna.

    Raises:
        MissingPackageError: if it is not installed.
    """
    return require_package("optuna", "tune", "A search for settings")


class StoppedEarlyError(Exception):
    """The trial is worse than half of the others were at the same point."""


class RunningTrial:
    """A trial of this process."""

    def __init__(self, trial: Any, number: int):
        self._trial, self.number, self._checked = trial, number, 0
        self.chosen: dict[str, str] = dict(trial.params)
        trial.set_user_attr("number", number)

    def report(self, score: float, progress: float) -> None:
        """Store the score at a point of the trial, and end the trial if it is too low.

        Args:
            progress: Share of the trial that is done, 0 to 1.

        Raises:
            StoppedEarlyError: if its best score so far is below the median of the finished trials.
        """
        reached = min(CHECKS, int(CHECKS * progress + 0.25))
        for check in range(self._checked + 1, reached + 1):
            self._trial.report(score, check)
        if reached > self._checked and reached < CHECKS and self._trial.should_prune():
            raise StoppedEarlyError
        self._checked = max(self._checked, reached)


class Study:
    """Trials of a search in a file.

    The first trial is the plan. Then one setting after the other is changed, starting from the best
    trial so far, until each value has been tried; with few trials, this uses the fact that the plan
    is usually near the best settings. Then a tree-structured Parzen estimator proposes choices.

    Args:
        path: File of the study, which is created if it does not exist.

    Raises:
        MissingPackageError: if Optuna is not installed.
        RunError: if the file is damaged.

    Source:
        Bergstra et al. 2011 (TPE); Golovin et al. 2017 (median stopping), 10.1145/3097983.3098043.
    """

    def __init__(self, path: Path, space: Iterable[SearchedSetting], seed: int):
        self._optuna = require_optuna()
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self.space, self._random = tuple(space), random.Random(seed)
        journal = self._optuna.storages.journal
        lock = journal.JournalFileOpenLock(str(path))
        _remove_torn_line(path, lock)
        try:
            storage = self._optuna.storages.JournalStorage(
                journal.JournalFileBackend(str(path), lock_obj=lock)
            )
            self._study = self._optuna.create_study(
                storage=storage,
                study_name=NAME,
                direction="maximize",
                sampler=self._sampler(seed),
                pruner=self._optuna.pruners.MedianPruner(
                    n_startup_trials=UNSTOPPED_TRIALS, n_warmup_steps=UNSTOPPED_CHECKS
                ),
                load_if_exists=True,
            )
        except (ValueError, KeyError) as error:
            raise RunError(
                f"{path} is damaged: {error}.",
                code="damaged_run",
                hint="Copy the complete folder again, or choose another folder with -o.",
            ) from None

    def _sampler(self, seed: int) -> Any:
        with warnings.catch_warnings():  # "multivariate" is experimental in some versions.
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            return self._optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=UNSTOPPED_TRIALS, multivariate=True, constant_liar=True
            )

    @property
    def rows(self) -> list[TrialRow]:
        """Trials in the order in which they began."""
        return [_row_of(one) for one in self._trials() if "number" in one.user_attrs]

    @property
    def best(self) -> TrialRow | None:
        """Finished trial with the highest score, the earlier one if scores are equal; None: none
        yet."""
        finished = [row for row in self.rows if row.state == "finished" and row.score is not None]
        return max(finished, key=lambda row: (row.score or 0.0, -row.number), default=None)

    def next_trial(self) -> RunningTrial | None:
        """Begin the next trial; None if all choices were tried.

        Only one process may call this at a time.
        """
        states = self._optuna.trial.TrialState
        distributions = {
            one.key: self._optuna.distributions.CategoricalDistribution([PLANNED, *one.values])
            for one in self.space
        }
        for one in self._trials():  # The process was killed before the trial had its number.
            if one.state == states.RUNNING and "number" not in one.user_attrs:
                self._study.tell(one.number, state=states.FAIL)
                self._enqueue(one.params, one.user_attrs.get("change", ""))
        if not self._is_waiting() and (change := self._next_change()) is not None:
            self._enqueue(*change)
        known = {_key_of(one.params) for one in self._trials() if _counts(one)}
        number = len(self.rows) + 1
        for _ in range(DRAWS):
            was_waiting = self._is_waiting()
            trial = self._study.ask(distributions)
            if was_waiting or _key_of(trial.params) not in known:
                return RunningTrial(trial, number)
            self._study.tell(trial, state=states.FAIL)
        names = [[PLANNED, *one.values] for one in self.space]
        choices = itertools.islice(itertools.product(*names), MAX_CHOICES)
        made = (dict(zip([o.key for o in self.space], own, strict=True)) for own in choices)
        new = [choice for choice in made if _key_of(choice) not in known]
        if not new:
            return None
        self._enqueue(self._random.choice(new), "")
        return RunningTrial(self._study.ask(distributions), number)

    def finish(self, trial: RunningTrial, score: float, seconds: float) -> None:
        """Store the score of a trial that has ended."""
        trial._trial.set_user_attr("seconds", round(seconds, 2))
        self._study.tell(trial._trial, score)

    def stop(self, trial: RunningTrial, seconds: float) -> None:
        """Store that a trial was stopped early."""
        trial._trial.set_user_attr("seconds", round(seconds, 2))
        self._study.tell(trial._trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, trial: RunningTrial, seconds: float, note: str) -> None:
        """Store that a choice cannot be trained."""
        trial._trial.set_user_attr("seconds", round(seconds, 2))
        trial._trial.set_user_attr("note", note)
        self._study.tell(trial._trial, state=self._optuna.trial.TrialState.FAIL)

    def lose(self, number: int) -> None:
        """Store that a trial was interrupted, and repeat its choice, unless this happened often.

        Only one process may call this at a time.
        """
        states = self._optuna.trial.TrialState
        lost = next(one for one in self._trials() if one.user_attrs.get("number") == number)
        if lost.state != states.RUNNING:
            return
        self._study.tell(lost.number, state=states.FAIL)
        times = sum(row.state == "lost" and row.chosen == lost.params for row in self.rows)
        if times < MAX_LOSSES:
            self._enqueue(lost.params, lost.user_attrs.get("change", ""))

    def _next_change(self) -> tuple[dict[str, str], str] | None:
        """Return the first choice of the sweep that was not tried yet, and its name."""
        begun = {one.user_attrs.get("change") for one in self._trials()}
        choice = dict.fromkeys((one.key for one in self.space), PLANNED)
        if PLANNED not in begun:
            return choice, PLANNED
        choice |= self.best.chosen if self.best else {}
        for one in self.space:
            for name in one.values:
                change = f"{one.key}={name}"
                if change not in begun and choice[one.key] != name:
                    return choice | {one.key: name}, change
        return None

    def _is_waiting(self) -> bool:
        waiting = (self._optuna.trial.TrialState.WAITING,)
        return bool(self._study.get_trials(deepcopy=False, states=waiting))

    def _enqueue(self, choice: Mapping[str, str], change: str) -> None:
        self._study.enqueue_trial(dict(choice), user_attrs={"change": change})

    def _trials(self) -> list[Any]:
        return list(self._study.get_trials(deepcopy=False))


def _remove_torn_line(path: Path, lock: Any) -> None:
    """Remove an unfinished line at the end, which a full disk or a power failure leaves."""
    lock.acquire()
    try:
        content = path.read_bytes() if path.exists() else b""
        if content and not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _key_of(params: Mapping[str, str]) -> str:
    return json.dumps(dict(params), sort_keys=True)


def _counts(trial: Any) -> bool:
    """Return whether the choice of a trial does not have to be tried again."""
    return "number" in trial.user_attrs and _row_of(trial).state != "lost"


def _row_of(trial: Any) -> TrialRow:
    note = trial.user_attrs.get("note", "")
    names: dict[str, State] = {
        "COMPLETE": "finished",
        "PRUNED": "stopped early",
        "FAIL": "failed" if note else "lost",
        "RUNNING": "running",
    }
    values = trial.intermediate_values.values()
    score = trial.value if trial.state.name == "COMPLETE" else max(values, default=None)
    return TrialRow(
        number=int(trial.user_attrs["number"]),
        chosen=dict(trial.params),
        state=names[trial.state.name],
        score=score,
        seconds=float(trial.user_attrs.get("seconds", 0.0)),
        note=note,
    )
