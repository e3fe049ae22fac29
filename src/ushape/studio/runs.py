"""Runs of a project: their folders, their predictions, and what images they keep for the score."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from ushape.errors import RunError
from ushape.io.files import real_path
from ushape.planning.run import Run

Part = Literal["train", "validation", "test", "new"]


class RunFolders:
    """Folders of the runs that were trained on the page, and of the run that was opened.

    Args:
        state: State folder of the project.
        first: Run that was opened, if one was.
        moved: Folders in which the data were before, and their folder now.
    """

    def __init__(self, state: Path, first: Run | None, moved: Sequence[tuple[Path, Path]] = ()):
        self._moved = moved
        self._state, self._first = state, first
        self._parts: tuple[str, dict[Path, Part]] = ("", {})
        self._trained: dict[Path, set[Path]] = {}
        self._groups: dict[Path, dict[Path, str]] = {}
        self._no_groups: dict[Path, str] = {}
        self._held = threading.local()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Look for runs only once while the block runs, in this thread."""
        former = getattr(self._held, "runs", None)
        self._held.runs = former or (self.all(), self.usable())
        try:
            yield
        finally:
            self._held.runs = former

    def all(self) -> list[Path]:
        """Return the folders of the runs, the oldest first."""
        if (held := getattr(self._held, "runs", None)) is not None:
            return list(held[0])
        own = self._state / "runs"
        found = sorted(own.iterdir(), key=_number_of) if own.is_dir() else []
        found = [path for path in found if (path / "plan.json").is_file()]
        if self._first is None or real_path(self._first.folder) in map(real_path, found):
            return found
        return [self._first.folder, *found]

    def usable(self) -> list[Path]:
        """Return the folders of the runs that can predict, the oldest first."""
        if (held := getattr(self._held, "runs", None)) is not None:
            return list(held[1])
        return [path for path in self.all() if Run(path).weights_path.is_file()]

    def unfinished(self) -> Run | None:
        """Return the run of the last training on the page if it can be continued, otherwise None.

        Trainings that ended before they had a checkpoint or weights are passed over.
        """
        own = real_path(self._state / "runs")
        for folder in reversed(self.all()):
            run = Run(folder)
            has_checkpoint = run.checkpoint_path.is_file()
            has_begun = has_checkpoint or run.weights_path.is_file()
            if real_path(folder).parent != own or not has_begun:
                continue
            with suppress(RunError):
                if has_checkpoint and not run.has_ended(run.load_plan()):
                    return run
            return None
        return None

    def new_folder(self) -> Path:
        """Return a folder for the next run."""
        own = self._state / "runs"
        numbers = [_number_of(path) for path in own.iterdir()] if own.is_dir() else []
        return own / f"run-{max(numbers, default=0) + 1}"

    def predictions_of(self, run: Path) -> Path:
        """Return the folder of the predictions of a run."""
        real = real_path(run)
        name = real.name
        if real.parent != real_path(self._state / "runs"):
            name += "-" + hashlib.sha1(str(real).encode(), usedforsecurity=False).hexdigest()[:8]
        return self._state / "predictions" / name

    def parts(self) -> dict[Path, Part]:
        """Return the part of each image in the newest run, by its file."""
        runs = self.usable()
        newest = str(runs[-1]) if runs else ""
        if self._parts[0] != newest:
            self._parts = newest, self.parts_of(runs[-1]) if runs else {}
        return self._parts[1]

    def groups(self) -> dict[Path, str]:
        """Return the group of each image in the oldest run, by its file."""
        for folder in self.all()[:1]:
            if folder not in self._groups:
                with suppress(RunError):
                    run = Run(folder)
                    paths = run.image_paths()
                    pairs = run.groups().items()
                    self._groups[folder] = {
                        self._place_now(paths[name]): group for name, group in pairs
                    }
            return self._groups.get(folder, self._no_groups)
        return self._no_groups

    def trained(self) -> set[Path]:
        """Return the files of the images that any run was trained or validated on."""
        found = set[Path]()
        for folder in self.all():
            if not self._trained.get(folder):
                parts = self.parts_of(folder).items()
                self._trained[folder] = {
                    path for path, part in parts if part in ("train", "validation")
                }
            found |= self._trained[folder]
        return found

    def parts_of(self, folder: Path) -> dict[Path, Part]:
        """Return the part of each image in a run, by its file; {} if the run has no split."""
        found: dict[Path, Part] = {}
        with suppress(RunError):
            run = Run(folder)
            splits, paths = run.load_splits(), run.image_paths()
            named: Sequence[tuple[Part, Sequence[str]]] = (
                ("train", splits.train),
                ("validation", splits.validation),
                ("test", splits.test),
            )
            for part, ids in named:
                found.update({self._place_now(paths[case_id]): part for case_id in ids})
        return found

    def _place_now(self, image: Path) -> Path:
        """Return the current path of an image file listed in a run."""
        path = real_path(image)
        for before, now in self._moved:
            if path.is_relative_to(before):
                moved = real_path(now / path.relative_to(before))
                if moved.exists():
                    return moved
        return path


def _number_of(path: Path) -> int:
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0
