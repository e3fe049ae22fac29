"""Several runs that belong together: cross-validation folds and points of a learning curve.

They can be interrupted at any moment, and the same call continues them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ushape.api._requests import complete_recipe
from ushape.api.plan import optional_path
from ushape.api.train import TrainResult, resume
from ushape.console import Console
from ushape.data.checksum import has_checksum
from ushape.data.discovery import discover
from ushape.errors import RunError, UshapeError
from ushape.interrupts import REPEAT, hint_after_interrupt
from ushape.io.files import read_json, remove_leftovers, write_json
from ushape.io.lock import is_unused, locked
from ushape.planning.run import Run


@dataclass(frozen=True)
class Series:
    """A folder of runs, and the file in it that stores the request.

    The file is written before the first run begins.
    """

    path: Path
    noun: str
    """Name of the series in error messages, such as "cross-validation"."""

    has_jobs: bool = False
    """Whether jobs, possibly on other machines, write into the runs."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Lock the folder, and say how to continue if the block is interrupted.

        Raises:
            RunError: if another process uses the folder.
        """
        with locked(self.path.parent), hint_after_interrupt(REPEAT):
            yield

    def find(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what `begin` stored, or None if the folder is new or empty.

        A recipe of an earlier version is completed by the defaults of that version.

        Raises:
            RunError: if the folder contains other files, or runs of another request.
        """
        folder = self.path.parent
        # Whether a process of another machine runs is not known.
        remove_leftovers(folder, ".*" if self.has_jobs else "**/.*")
        if is_unused(folder):
            return None
        if not self.path.exists():
            raise RunError(
                f"{folder} is not empty and does not contain a {self.noun}.",
                code="not_a_series",
                hint="Choose another folder with -o.",
            )
        return self.compare(request)

    def compare(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `begin` stored, as `find` does; other processes may use the folder.

        Raises:
            RunError: if it is that of another request.
        """
        folder, stored = self.path.parent, self._read()
        recipe = stored.get("recipe")
        if isinstance(recipe, dict):
            recipe = complete_recipe(recipe, request["recipe"])
        same = {key: value for key, value in request.items() if key != "recipe"}
        other = next((key for key, value in same.items() if stored.get(key) != value), None)
        if other is None and not isinstance(recipe, dict):
            other = "recipe"
        if other is not None:
            raise RunError(
                f"{folder} contains another {self.noun}, with a different value of {other}.",
                code="other_request",
                hint="Repeat the command that started it, or choose another folder with -o.",
            )
        return {**stored, "recipe": recipe}

    def refuse_changed_data(
        self, data: Path | str, masks: Path | str | None, runs: Sequence[Run]
    ) -> None:
        """Check that the data are those of the existing runs; their groups might differ.

        Raises:
            RunError: if the data have changed since the first run.
        """
        known = {run.data_checksum for run in runs if run.plan_path.exists()} - {""}
        if not known:
            return
        path = Path(data)
        cases = discover(path, optional_path(masks)).cases
        if not all(has_checksum(cases, path, one) for one in known):
            raise RunError(
                f"{data} has changed since {self.path.parent} was started: files were added, "
                "removed or modified.",
                code="data_changed",
                hint="Restore the data, or choose another folder with -o.",
            )

    def begin(self, request: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Store the request, and other values that must stay the same when it continues."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**request, **more})
        return self._read()

    def train(
        self,
        runs: Sequence[Run],
        start: Callable[[int], TrainResult],
        console: Console,
        *,
        titles: Sequence[str],
    ) -> int | None:
        """Train the unfinished runs one after another.

        Args:
            start: Trains the run of this index from the beginning.
            titles: Name of each run, e.g. "fold 1 of 5".

        Returns:
            Index of a run that Ctrl-C stopped, or None.
        """
        for number, (run, title) in enumerate(zip(runs, titles, strict=True)):
            before = ": already finished" if is_finished(run) else ""
            console.say(f"{title[0].upper()}{title[1:]}{before}")
            if before:
                continue
            if run.plan_path.exists():
                result = resume(run.folder, quiet=console.is_quiet)
            else:
                drop_unplanned(run)
                try:
                    result = start(number)
                except UshapeError:
                    if number == 0 and not run.plan_path.exists():
                        self.path.unlink()  # Nothing has begun: another request may follow.
                    raise
            if result.was_interrupted:
                console.say(f"Stopped in {title}. To continue, run the same command again.")
                return number
        return None

    def _read(self) -> dict[str, Any]:
        hint = "Choose another folder with -o."
        stored = read_json(self.path, RunError, code="damaged_run", hint=hint)
        if not isinstance(stored, dict):
            raise RunError(f"{self.path} has no settings.", code="damaged_run", hint=hint)
        return stored


def is_finished(run: Run) -> bool:
    """Return whether the report exists and the training was not interrupted."""
    return run.report_path.exists() and (
        run.has_ended(run.load_plan()) or not run.checkpoint_path.exists()
    )


def drop_unplanned(run: Run) -> None:
    """Remove the files of a run that was killed before its plan was made."""
    for path in (run.cases_path, run.splits_path, run.seen_images_path):
        path.unlink(missing_ok=True)
