"""Description of the prediction of a large image in blocks, which all processes read."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ushape.distributed.grid import BlockGrid
from ushape.errors import RunError
from ushape.io.files import read_sealed_json, remove_quietly, temporary_name, write_sealed_json
from ushape.io.streaming.ome_pyramid import Pyramid
from ushape.normalization import Normalization

PREDICT, LEVEL, PIECES, OBJECTS = "predict", "level_", "pieces", "objects"
"""Names of the stages: prediction, sampling of each further resolution level, connected parts
within each block, and numbers of the objects."""

TASK_FILE, DONE = "task.json", "done"

MARKERS_PER_FOLDER = 1000


@dataclass(frozen=True, kw_only=True)
class BlockTask:
    """Prediction of an image in blocks of whole chunks of the output."""

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

    states_codes: bool
    """Whether the output has the values of the user's masks instead of class indices."""

    probabilities: Pyramid | None
    objects: Pyramid | None
    """Label image of the objects; None if they are not numbered."""

    smallest_px: int
    """Size in pixels below which objects are left out."""

    background: int
    """Value of the output at pixels of no class."""

    normalizations: tuple[Normalization, ...]
    """Normalization of the intensities for each run, the same in all blocks."""

    measured: str
    """What the intensities were measured from; '' if they are those of the training."""

    origin: Mapping[str, Any] = field(default_factory=dict)
    """What determines the output: digests of the runs, facts about the image, settings."""

    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Name of this task, which differs from that of a later task in the same folder."""

    @property
    def has_begun(self) -> bool:
        """Whether any block has been finished."""
        return (self.folder / DONE).exists()

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order; each of them has blocks of its own."""
        levels = range(1, len(self.output.factors))
        objects = () if self.objects is None else (PIECES, OBJECTS)
        return (PREDICT, *objects, *(f"{LEVEL}{number}" for number in levels))

    @property
    def pyramids(self) -> list[Pyramid]:
        """Images that are written."""
        return [one for one in (self.output, self.probabilities, self.objects) if one is not None]

    def grid(self, stage: str) -> BlockGrid:
        """Return the blocks of a stage; those of all stages but the levels are the same."""
        level = int(stage.removeprefix(LEVEL)) if stage.startswith(LEVEL) else 0
        return BlockGrid(self.output.shape_at(self.output.factors[level]), self.block)

    def count(self, stage: str) -> int:
        """Return the number of blocks of a stage."""
        return len(self.grid(stage))

    def marker(self, stage: str, index: int) -> Path:
        """Return the path of the file that exists once a block is finished."""
        return self.folder / DONE / stage / f"{index // MARKERS_PER_FOLDER:06}" / f"{index:09}"

    def is_complete(self, stage: str) -> bool:
        """Whether all blocks of a stage are finished."""
        return self._closed(stage).exists()

    def left_blocks(self, stage: str) -> list[int]:
        """Return the numbers of the blocks of a stage that are not finished, in order."""
        if self.is_complete(stage):
            return []
        folder = self.folder / DONE / stage
        done = {int(path.name) for path in folder.glob("*/*") if path.name.isdigit()}
        return [index for index in range(self.count(stage)) if index not in done]

    def mark(self, stage: str, index: int) -> None:
        """State that a block is finished, whose chunks are on the disk."""
        marker = self.marker(stage, index)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()

    def close(self, stage: str) -> None:
        """Replace the markers of a stage whose blocks are all finished by a single one."""
        self._closed(stage).parent.mkdir(parents=True, exist_ok=True)
        self._closed(stage).touch()
        shutil.rmtree(self.folder / DONE / stage, ignore_errors=True)

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
            temporary.rename(self.folder)
        except OSError:
            if not (self.folder / TASK_FILE).exists():  # Otherwise, another process was faster.
                raise
        finally:
            remove_quietly(temporary)

    def _closed(self, stage: str) -> Path:
        return self.folder / DONE / f"{stage}.all"


def task_folder(output: Path) -> Path:
    """Return the folder of the description of a prediction, beside its output."""
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
        return BlockTask(
            folder=folder,
            image=Path(values["image"]),
            runs=tuple(map(Path, values["runs"])),
            recipe=values["recipe"],
            backend=values["backend"],
            settings=tuple(values["settings"]),
            block=tuple(values["block"]),
            output=_pyramid(values["output"]),
            states_codes=values["states_codes"],
            probabilities=_pyramid(values["probabilities"]) if values["probabilities"] else None,
            objects=_pyramid(values["objects"]) if values["objects"] else None,
            smallest_px=values["smallest_px"],
            background=values["background"],
            normalizations=tuple(
                Normalization(**{key: tuple(own) for key, own in one.items()})
                for one in values["normalizations"]
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


def same_origin(task: BlockTask, origin: Mapping[str, Any]) -> bool:
    """Whether a task has this origin, after both have been stored as JSON."""
    plain = json.loads(json.dumps(dict(origin), default=str))
    return bool(task.origin == plain)


def _pyramid(values: Mapping[str, Any]) -> Pyramid:
    plain: dict[str, Any] = {
        key: tuple(own) if isinstance(own, list) else own for key, own in values.items()
    }
    return Pyramid(**{**plain, "path": Path(values["path"])})
