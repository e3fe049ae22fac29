"""Description of the prediction of a large image in blocks, which all processes read."""

from __future__ import annotations

import json
import platform
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ushape.config import with_current_names
from ushape.distributed.grid import BlockGrid
from ushape.errors import RunError
from ushape.io.files import read_sealed_json, remove_quietly, temporary_name, write_sealed_json
from ushape.io.streaming.ome_pyramid import Pyramid, write_box
from ushape.normalization import Normalization
from ushape.types import Box

PREDICT, LEVEL, PIECES, OBJECTS = "predict", "level_", "pieces", "objects"
"""Names of the stages: prediction, sampling of each additional resolution level, components
within each block, and numbers of the objects."""

FIND, CLEAN = "find_", "clean_"
"""Names of the two stages of each step of the cleaning: components in each block, and changes."""

PARTS, SEPARATE = "parts", "separate"
"""Names of the stages of the separation: components in each block, and their division."""

TASK_FILE, DONE, FOUND, TABLES = "task.json", "done", "pieces", "tables"
"""Names in the folder: description, markers, pieces of the blocks, and decisions about them."""

SAVE_ATTEMPTS = 5
"""How often the folder is created if blocks of a former task write into it."""

MARKERS_PER_FOLDER = 1000


@dataclass(frozen=True, kw_only=True)
class CleaningStep:
    """Removal of components of one class or region, or filling of its holes."""

    RENAMED: ClassVar = {"smallest_px": "min_size_px", "largest_hole_px": "max_hole_size_px"}

    fills: bool
    """Whether holes are filled; otherwise components are removed."""

    classes: tuple[int, ...]
    """Class indices of the region; holes are filled with the first one."""

    beneath: tuple[int, ...]
    """Class indices beneath it, the closest one last."""

    largest_only: bool
    min_size_px: int
    max_hole_size_px: int | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class BlockTask:
    """Prediction of an image in blocks of whole chunks of the output."""

    RENAMED: ClassVar = {"smallest_px": "min_size_px"}

    folder: Path
    """Folder of the description and of the markers of finished blocks."""

    image: Path
    runs: tuple[Path, ...]
    recipe: str | None
    """File and function of the run's own network; None if it has none."""

    backend: str
    settings: tuple[str, ...]
    block: tuple[int, ...]
    """Size of a block along each axis of S."""

    output: Pyramid
    """Image of the mask values."""

    values: tuple[int, ...]
    """Value of the output for each class index, the background first."""

    probabilities: Pyramid | None
    objects: Pyramid | None
    """Label image of the objects; None if they are not numbered."""

    min_size_px: int
    """Size in pixels below which objects are left out."""

    corners_connect: bool
    """Whether pixels of an object that touch only at a corner are connected."""

    cleanings: tuple[CleaningStep, ...]
    """Steps of the cleaning of the mask."""

    classes: tuple[Pyramid, ...]
    """Classes before each step of the cleaning, and before the separation of objects."""

    distance: Pyramid | None
    """Predicted distance to the border of the object; None if objects are not separated by it."""

    labels: Pyramid | None
    """Objects of each block after the separation, numbered in each one by itself; None if they are
    not numbered."""

    window_px: int
    """Largest number of pixels of a window in which objects are separated."""

    normalizations: tuple[Normalization, ...]
    """Normalization of the intensities for each run, the same in all blocks."""

    measured: str
    """What the intensities were measured from; '' if they are those of training."""

    origin: Mapping[str, Any] = field(default_factory=dict)
    """What determines the output: digests of the runs, properties of the image, settings."""

    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Name of this task, which differs from that of a later task in the same folder."""

    @property
    def has_begun(self) -> bool:
        """Whether any block has been finished."""
        return self._markers.exists()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order; each of them has its own blocks."""
        cleaning = [f"{name}{n}" for n in range(len(self.cleanings)) for name in (FIND, CLEAN)]
        separation = () if self.distance is None else (PARTS, SEPARATE)
        objects: tuple[str, ...] = ()
        if self.objects is not None:
            objects = (PIECES, OBJECTS) if self.distance is None else (OBJECTS,)
        levels = [f"{LEVEL}{number}" for number in range(1, len(self.output.factors))]
        return (PREDICT, *cleaning, *separation, *objects, *levels)

    @property
    def pyramids(self) -> list[Pyramid]:
        """Images that are written."""
        return [one for one in (self.output, self.probabilities, self.objects) if one is not None]

    @property
    def intermediates(self) -> list[Pyramid]:
        """Images within the folder that later stages read."""
        return [*self.classes, *(one for one in (self.distance, self.labels) if one is not None)]

    @property
    def fills_nothing(self) -> bool:
        """Whether pixels of the background stay background."""
        return not any(step.fills for step in self.cleanings)

    def values_of(self, classes: np.ndarray) -> np.ndarray:
        """Return the values of the output for class indices."""
        return np.array(self.values, self.output.dtype)[classes]

    def pieces_path(self, stage: str, index: int) -> Path:
        """Return the path of the pieces of a block that a stage has found."""
        folder = self.folder / FOUND / stage / f"{index // MARKERS_PER_FOLDER:06}"
        return folder / f"{index:09}.npz"

    def table_folder(self, stage: str) -> Path:
        """Return the folder of what was decided for the pieces of all blocks, for a stage."""
        return self.folder / TABLES / stage

    def grid(self, stage: str) -> BlockGrid:
        """Return the blocks of a stage; those of all stages but the levels are the same."""
        level = int(stage.removeprefix(LEVEL)) if stage.startswith(LEVEL) else 0
        return BlockGrid(self.output.shape_at(self.output.factors[level]), self.block)

    def count(self, stage: str) -> int:
        """Return the number of blocks of a stage."""
        return len(self.grid(stage))

    def marker(self, stage: str, index: int) -> Path:
        """Return the path of the file that exists once a block is finished."""
        return self._markers / stage / f"{index // MARKERS_PER_FOLDER:06}" / f"{index:09}"

    def is_finished(self, stage: str, index: int) -> bool:
        """Whether a block of a stage is finished."""
        return self.is_complete(stage) or self.marker(stage, index).exists()

    def is_complete(self, stage: str) -> bool:
        """Whether all blocks of a stage are finished."""
        return self._closed(stage).exists()

    def left_blocks(self, stage: str) -> list[int]:
        """Return the numbers of the blocks of a stage that are not finished, in order."""
        folder = self._markers / stage
        done = {int(path.name) for path in folder.glob("*/*") if path.name.isdigit()}
        if self.is_complete(stage):  # Only now: another process may have just removed the markers.
            return []
        return [index for index in range(self.count(stage)) if index not in done]

    def check_current(self) -> None:
        """Check that this task is still the one in its folder.

        Raises:
            RunError: if it was removed, or replaced by another one.
        """
        open_current_task(self.folder, self.token)

    def write(self, array: Any, box: Box, values: np.ndarray) -> None:
        """Write chunks of a block, as `write_box`, unless the output is that of another task.

        Raises:
            RunError: if this task was removed, or replaced by another one.
        """
        self.check_current()
        write_box(array, box, values)

    def mark(self, stage: str, index: int) -> None:
        """State that a block is finished, whose chunks are on the disk.

        Raises:
            RunError: if this task was removed, or replaced by another one.
        """
        self.check_current()
        marker = self.marker(stage, index)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()

    def close(self, stage: str) -> None:
        """Replace the markers of a stage whose blocks are all finished by a single one."""
        self._closed(stage).parent.mkdir(parents=True, exist_ok=True)
        self._closed(stage).touch()
        shutil.rmtree(self._markers / stage, ignore_errors=True)

    def save(self) -> None:
        """Write the description into a new folder, unless another process has done so.

        Raises:
            RunError: if the folder holds something else.
        """
        values = asdict(self)
        del values["folder"]
        temporary = temporary_name(self.folder)
        temporary.mkdir(parents=True, exist_ok=True)
        try:
            write_sealed_json(temporary / TASK_FILE, values)
            for _ in range(SAVE_ATTEMPTS):
                with suppress(OSError):
                    temporary.rename(self.folder)
                if has_task(self.folder):  # Another process may have been faster.
                    return
                self._remove_former()
        finally:
            remove_quietly(temporary)
        raise RunError(
            f"{self.folder} cannot be created.",
            code="task_folder_occupied",
            hint="If there is a file or folder of this name that you do not need, remove it. Check "
            "that you have write permission in the output folder.",
        )

    def _remove_former(self) -> None:
        """Remove what blocks of a former task wrote into the folder after it had been removed."""
        names = [one.path.name for one in self.intermediates]
        for name in (DONE, FOUND, TABLES, *names):
            remove_quietly(self.folder / name)
        with suppress(OSError):  # Files of others are kept.
            self.folder.rmdir()

    @property
    def _markers(self) -> Path:
        """Folder of the markers, of this task only: blocks of a former one may still be running."""
        return self.folder / DONE / self.token

    def _closed(self, stage: str) -> Path:
        return self._markers / f"{stage}.all"


def task_folder(output: Path) -> Path:
    """Return the folder of the description of a prediction, next to its output."""
    return output.with_name(f"{output.name}.blocks")


def has_task(folder: Path) -> bool:
    """Whether a folder holds a description."""
    return (folder / TASK_FILE).exists()


def open_task(folder: Path) -> BlockTask:
    """Read the description of a prediction in blocks.

    Raises:
        RunError: if it is missing, damaged or of another version.
    """
    values = read_sealed_json(
        folder / TASK_FILE,
        RunError,
        code="damaged_task",
        hint="Remove the folder and the output, and start again.",
    )
    try:
        values = with_current_names(BlockTask, values)
        return BlockTask(
            folder=folder,
            image=Path(values["image"]),
            runs=tuple(map(Path, values["runs"])),
            recipe=values["recipe"],
            backend=values["backend"],
            settings=tuple(values["settings"]),
            block=tuple(values["block"]),
            output=_pyramid(values["output"]),
            values=tuple(values["values"]),
            probabilities=_optional_pyramid(values["probabilities"]),
            objects=_optional_pyramid(values["objects"]),
            min_size_px=values["min_size_px"],
            corners_connect=values["corners_connect"],
            cleanings=tuple(CleaningStep(**_as_tuples(one)) for one in values["cleanings"]),
            classes=tuple(map(_pyramid, values["classes"])),
            distance=_optional_pyramid(values["distance"]),
            labels=_optional_pyramid(values["labels"]),
            window_px=values["window_px"],
            normalizations=tuple(
                Normalization(**_as_tuples(one)) for one in values["normalizations"]
            ),
            measured=values["measured"],
            origin=values["origin"],
            token=values["token"],
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RunError(
            f"{folder / TASK_FILE} does not describe a prediction in blocks of this version.",
            code="damaged_task",
            hint="Remove the folder and the output, and start again.",
        ) from None


def open_current_task(folder: Path, token: str) -> BlockTask:
    """Read the description of the task with a token.

    Raises:
        RunError: if its folder does not exist on this computer, or if it was removed, or replaced
            by another one, or is damaged.
    """
    if not folder.exists():
        raise RunError(
            f"The folder {folder} does not exist on {platform.node()}.",
            code="task_folder_missing",
            hint="All processes and Dask workers need the output, the image and the runs at the "
            "same paths, for example on a shared file system. If the folder was removed, run the "
            "command again.",
        )
    task = open_task(folder) if has_task(folder) else None
    if task is None or task.token != token:
        raise RunError(
            f"The prediction of {folder} was removed or replaced while its blocks were computed.",
            code="task_replaced",
            hint="Another call with --overwrite has started again, or the folder was removed. Run "
            "the command of the prediction that you want to keep.",
        )
    return task


def same_origin(task: BlockTask, origin: Mapping[str, Any]) -> bool:
    """Whether a task has this origin, after both have been stored as JSON."""
    plain = json.loads(json.dumps(dict(origin), default=str))
    return bool(task.origin == plain)


def _pyramid(values: Mapping[str, Any]) -> Pyramid:
    return Pyramid(**{**_as_tuples(values), "path": Path(values["path"])})


def _optional_pyramid(values: Mapping[str, Any] | None) -> Pyramid | None:
    return None if values is None else _pyramid(values)


def _as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of JSON with tuples instead of lists."""
    return {key: tuple(own) if isinstance(own, list) else own for key, own in values.items()}
