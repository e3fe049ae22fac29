"""Predict a large image in blocks, which any number of processes share.

Each block writes only its own chunks, so it can be repeated at any time. Once they are on
the disk, a marker records that the block is finished.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from glob import escape
from pathlib import Path

from ushape.console import OnProgress
from ushape.distributed.block_cleaning import choose_components, clean_block, find_components
from ushape.distributed.block_objects import number_block, number_parts, store_pieces
from ushape.distributed.block_prediction import open_image, predict_block
from ushape.distributed.block_separation import (
    find_windows,
    number_objects,
    separate_block,
    store_parts,
)
from ushape.distributed.block_task import (
    CLEAN,
    FIND,
    LEVEL,
    OBJECTS,
    PARTS,
    PIECES,
    PREDICT,
    SEPARATE,
    BlockTask,
    open_current_task,
)
from ushape.distributed.parts import Part
from ushape.inference.predictor import Predictor
from ushape.io.files import remove_leftovers
from ushape.io.streaming import Bands
from ushape.io.streaming.ome_pyramid import reduce_box, remove_partial_chunks
from ushape.planning.custom_code import allow_code
from ushape.types import Box

_guard = threading.Lock()
"""Held while a block is computed: the threads of a process share its model and its open image."""


@dataclass(frozen=True)
class BlockResult:
    """What was done for a block."""

    index: int
    pixels: int
    """Number of pixels that were computed; 0 if the block was finished before."""

    seconds: float


BlockFunction = Callable[[int], BlockResult]
"""Function that computes the block with a number; it can be sent to another process."""

Execute = Callable[[BlockFunction, Sequence[int]], Iterable[BlockResult]]
"""Function that computes blocks anywhere and yields their results in any order."""


def run_serially(function: BlockFunction, indices: Sequence[int]) -> Iterator[BlockResult]:
    """Compute blocks one after the other in this process."""
    return map(function, indices)


def run_block(folder: str, token: str, device: str, stage: str, index: int) -> BlockResult:
    """Compute a block of a stage, unless it is finished.

    Args:
        folder: Folder of the task.
        token: Name of the task, which another one may have replaced in its folder.

    Raises:
        RunError: if the task was removed or replaced.
        UshapeError: if the image, the run or the device cannot be used.
    """
    started = time.monotonic()
    with _guard:
        task = open_current_task(Path(folder), token)
        is_new = not task.is_finished(stage, index) and _attempt(task, device, stage, index)
        if is_new:
            task.mark(stage, index)
    box = task.grid(stage).box(index)
    pixels = math.prod(last - first for first, last in box) if is_new else 0
    return BlockResult(index, pixels, time.monotonic() - started)


def _attempt(task: BlockTask, device: str, stage: str, index: int) -> bool:
    """Compute a block; return False if this fails, but another process has finished it."""
    try:
        _compute(task, device, stage, index)
    except OSError:
        task.check_current()  # If it was removed, so were the files.
        # Whoever completes the image removes the unfinished files of chunks, also those of a block
        # that is just computed for the second time.
        if not task.is_finished(stage, index):
            raise
        return False
    return True


def _compute(task: BlockTask, device: str, stage: str, index: int) -> None:
    """Compute a block of a stage."""
    box = task.grid(stage).box(index)
    if stage == PREDICT:
        predict_block(task, *_open_model(str(task.folder), device, task.token), box)
    elif stage.startswith(FIND):
        find_components(task, int(stage.removeprefix(FIND)), index)
    elif stage.startswith(CLEAN):
        clean_block(task, int(stage.removeprefix(CLEAN)), index)
    elif stage == PARTS:
        store_parts(task, index)
    elif stage == SEPARATE:
        predictor, _ = _open_model(str(task.folder), device, task.token)
        separate_block(task, predictor, index)
    elif stage == PIECES:
        store_pieces(task, index)
    elif stage == OBJECTS:
        number_block(task, index)
    else:
        _write_level(task, int(stage.removeprefix(LEVEL)), box)


def _join(task: BlockTask, stage: str) -> None:
    """Join what all blocks of a stage have found, for the blocks of the next one."""
    if stage.startswith(FIND):
        choose_components(task, int(stage.removeprefix(FIND)))
    elif stage == PARTS:
        find_windows(task)
    elif stage == SEPARATE and task.labels is not None:
        number_objects(task)
    elif stage == PIECES:
        number_parts(task)


def run_task(
    task: BlockTask, execute: Execute, device: str, part: Part, on_progress: OnProgress
) -> int:
    """Compute the blocks of a part that are not finished, stage by stage.

    A stage begins when all blocks of the previous one are finished. Each part predicts its own
    blocks only; whoever finds the prediction complete does the other stages, the own blocks first.

    Raises:
        RunError: if the task was removed or replaced.

    Returns:
        Number of blocks that other parts have not finished; 0 if everything is complete.
    """
    total = sum(map(task.count, task.stages))
    before = 0
    for stage in task.stages:
        left = task.left_blocks(stage)
        chosen = _choose_blocks(left, stage, part)
        done = before + task.count(stage) - len(left)
        function = partial(run_block, str(task.folder), task.token, device, stage)
        on_progress(done, total, stage)
        pixels, started = 0, time.monotonic()
        for result in execute(function, chosen):
            done, pixels = done + 1, pixels + result.pixels
            speed = pixels / 1e6 / max(1e-9, time.monotonic() - started)
            on_progress(done, total, f"{speed:.1f} Mpixel/s")
        task.check_current()
        if missing := task.left_blocks(stage):
            return len(missing)
        if not task.is_complete(stage):
            _join(task, stage)
            if stage == task.stages[-1]:
                _remove_unfinished(task)
            task.close(stage)
        before += task.count(stage)
    return 0


def _choose_blocks(left: Sequence[int], stage: str, part: Part) -> list[int]:
    """Return the blocks that a part computes, in order: of the prediction, its own ones.

    In later stages, those of the other parts follow, so that one process can complete the image.
    Their order is random, and another one for each part: two processes that did them in the same
    order would compute each of them twice.
    """
    own = [index for index in left if _belongs(index, part)]
    if stage == PREDICT:
        return own
    others = [index for index in left if not _belongs(index, part)]
    random.Random(part.number).shuffle(others)
    return own + others


def _belongs(index: int, part: Part) -> bool:
    """Whether a block belongs to a part; neighbors belong to different parts."""
    return index % part.count == part.number - 1


def _remove_unfinished(task: BlockTask) -> None:
    """Remove what killed processes left in the output and next to it; all blocks are finished."""
    for pyramid in task.pyramids:
        remove_partial_chunks(pyramid.path)
        remove_leftovers(pyramid.path.parent, f".{escape(pyramid.path.name)}.*")


@lru_cache(maxsize=1)
def _open_model(folder: str, device: str, token: str) -> tuple[Predictor, Bands]:
    """Open the model and the image of a task, once in each process.

    The token distinguishes a task from one that was in the same folder before.
    """
    task = open_current_task(Path(folder), token)
    allow_code(task.recipe)
    predictor = Predictor.open(
        list(task.runs), device, backend=task.backend, settings=task.settings
    )
    return predictor, open_image(task.image, predictor)


def _write_level(task: BlockTask, level: int, box: Box) -> None:
    """Sample a part of a level from the level above, of all images of the output."""
    above, own = task.output.factors[level - 1 : level + 1]
    factor = [b // a for a, b in zip(above, own, strict=True)]
    for pyramid in task.pyramids:
        values = reduce_box(pyramid.open(level - 1), box, factor)
        task.write(pyramid.open(level), box, values)
