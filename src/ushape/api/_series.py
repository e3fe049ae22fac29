"""Several runs that answer one question: begun, killed at any moment, gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ushape import config
from ushape.api.train import TrainResult, resume
from ushape.console import Console
from ushape.data.checksum import dataset_checksum
from ushape.data.discovery import discover
from ushape.errors import RunError, UshapeError
from ushape.formatting import reason
from ushape.io.files import remove_leftovers
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run, write_json


def ask(data: Path | str, masks: Path | str | None, recipe: Recipe, **more: Any) -> dict[str, Any]:
    """A question, as JSON gives it back."""
    return {
        "data": str(Path(data).resolve()),
        "masks": str(Path(masks).resolve()) if masks else None,
        **more,
        "recipe": config.to_dict(recipe),
    }


@dataclass(frozen=True)
class Series:
    """A folder of runs, and the file in it that says what was asked for.

    The file is written before the first run begins.
    """

    path: Path
    noun: str
    """What the runs are together, for errors: "cross-validation"."""

    def find(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """What `begin` wrote, or None where nothing was begun.

        Raises:
            RunError: the folder holds something else, or an answer to another question.
        """
        folder = self.path.parent
        remove_leftovers(folder)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        if not self.path.exists():
            raise RunError(
                f"{folder} holds something that is no {self.noun}.",
                hint="Choose another folder with -o.",
            )
        stored = self._read()
        other = next((key for key, value in question.items() if stored.get(key) != value), None)
        if other is not None:
            raise RunError(
                f"{folder} holds another {self.noun}: {other} was not the same.",
                hint="Continue with the command that began it, or choose another folder with -o.",
            )
        return stored

    def refuse_changed_data(self, data: Path, masks: Path | None, runs: Sequence[Run]) -> None:
        """Some files are not what the runs that are there have seen: their groups might differ.

        Raises:
            RunError: so it is.
        """
        known = {run.data_checksum for run in runs if run.plan_path.exists()} - {""}
        if not known:
            return
        if known != {dataset_checksum(discover(data, masks).cases, data)}:
            raise RunError(
                f"{data} is not what {self.path.parent} was begun with: files were added, taken "
                "away or changed.",
                hint="Bring the data back, or choose another folder with -o.",
            )

    def begin(self, question: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Writes down the question, and more that is to be the same when it goes on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**question, **more})
        return self._read()

    def train(
        self,
        runs: Sequence[Run],
        start: Callable[[int], TrainResult],
        console: Console,
        *,
        titles: Sequence[str],
    ) -> int | None:
        """Trains what is not finished; returns the number of a run that Ctrl-C stopped.

        Args:
            start: Trains the run of this number, from 0, anew.
            titles: What each run is, e.g. "fold 1 of 5".
        """
        for number, (run, title) in enumerate(zip(runs, titles, strict=True)):
            before = ": finished before" if is_finished(run) else ""
            console.say(f"{title[0].upper()}{title[1:]}{before}")
            if before:
                continue
            if run.plan_path.exists():
                result = resume(run.folder)
            else:
                drop_unplanned(run)
                try:
                    result = start(number)
                except UshapeError:
                    if number == 0 and not run.plan_path.exists():
                        self.path.unlink()  # Nothing has begun: the question may be another.
                    raise
            if result.was_interrupted:
                console.say(f"Stopped in {title}; the same command goes on with it.")
                return number
        return None

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.path.read_text())
            if not isinstance(stored, dict):
                raise ValueError("not what was written here")
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path}: not readable: {reason(error)}.", hint="Choose another folder."
            ) from None
        return stored


def is_finished(run: Run) -> bool:
    """Its report, which is written last, is there, and Ctrl-C did not end the training early."""
    if not run.report_path.exists():
        return False
    return run.has_ended(run.load_plan()) or not run.checkpoint_path.exists()


def drop_unplanned(run: Run) -> None:
    """Killed before its plan was made: nothing in it is worth keeping."""
    for path in (run.cases_path, run.splits_path):
        path.unlink(missing_ok=True)
