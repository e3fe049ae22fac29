"""Clean a mask in blocks, as `clean_classes` cleans that of the whole image.

Each step, for example the removal of small parts of one class, reads the output of the previous
step and writes a new array, so that a block can safely be processed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ushape.distributed.block_pieces import (
    Parts,
    PieceTable,
    describe_pieces,
    join_blocks,
    label_values,
)
from ushape.distributed.block_task import CLEAN, FIND, PREDICT, BlockTask, CleaningStep
from ushape.io.streaming.ome_pyramid import read_box
from ushape.labels import Region
from ushape.transforms.morphology import Cleaning, classes_beneath


def find_components(task: BlockTask, step: int, index: int) -> None:
    """Store the properties of the pieces of a class, or of the gaps between them, in a block."""
    box = task.grid(PREDICT).box(index)
    labels, values = _label(task.cleanings[step], read_box(task.classes[step], box))
    describe_pieces(labels, values, box, task.output.shape).store(
        task.pieces_path(f"{FIND}{step}", index)
    )


def choose_components(task: BlockTask, step: int) -> None:
    """Join the pieces of all blocks to parts, and store which pieces are changed."""
    how = task.cleanings[step]
    parts = join_blocks(
        lambda index: task.pieces_path(f"{FIND}{step}", index),
        task.grid(PREDICT),
        corners_connect=how.fills,
    )
    chosen = _is_hole(parts, how) if how.fills else ~_is_kept(parts, how)
    PieceTable(task.table_folder(f"{CLEAN}{step}")).store(parts.starts, chosen[parts.of_piece])


def clean_block(task: BlockTask, step: int, index: int) -> None:
    """Write the classes of a block after a step, or the mask after the last one."""
    how, box = task.cleanings[step], task.grid(PREDICT).box(index)
    classes = read_box(task.classes[step], box)
    labels, _ = _label(how, classes)
    own = PieceTable(task.table_folder(f"{CLEAN}{step}")).load(index)
    chosen = np.concatenate([np.zeros(1, bool), own])[labels]
    if how.fills:
        classes[chosen & np.isin(classes, how.beneath)] = how.classes[0]
    else:
        classes[chosen] = how.beneath[-1]
    if step + 1 < len(task.classes):
        task.write(task.classes[step + 1].open(), box, classes)
    else:
        task.write(task.output.open(), box, task.values_of(classes))


def cleaning_steps(
    regions: Sequence[Region], cleanings: Sequence[Cleaning]
) -> tuple[CleaningStep, ...]:
    """Return the steps of `clean_classes`, in its order."""
    removed, filled = [], []
    for region, own, beneath in zip(regions, cleanings, classes_beneath(regions), strict=True):
        step = CleaningStep(
            fills=False,
            classes=region.classes,
            beneath=tuple(beneath),
            largest_only=own.largest_only,
            min_size_px=own.min_size_px,
            max_hole_size_px=own.max_hole_size_px,
        )
        if own.largest_only or own.min_size_px > 1:
            removed.append(step)
        if own.max_hole_size_px:
            filled.append(replace(step, fills=True))
    return (*removed, *filled)


def _label(how: CleaningStep, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the components of a step, or the gaps; gaps are also connected by their corners."""
    is_own = np.isin(classes, how.classes)
    return label_values((is_own != how.fills).astype(np.uint8), 0, corners_connect=how.fills)


def _is_kept(parts: Parts, how: CleaningStep) -> np.ndarray:
    is_kept = parts.sizes >= how.min_size_px
    if how.largest_only and len(parts.sizes):
        is_largest = parts.sizes == parts.sizes.max()
        first = parts.first[is_largest].min()  # Of equal ones, the first one.
        is_kept &= parts.first == first
    return is_kept


def _is_hole(parts: Parts, how: CleaningStep) -> np.ndarray:
    is_hole = ~parts.touches_edge
    if how.max_hole_size_px != "all":
        is_hole &= parts.sizes <= how.max_hole_size_px
    return is_hole
