"""Number the objects of a mask that was written in blocks, as those of the whole image."""

from __future__ import annotations

import numpy as np

from ushape.distributed.block_pieces import (
    PieceTable,
    describe_pieces,
    join_blocks,
    label_values,
)
from ushape.distributed.block_task import OBJECTS, PIECES, PREDICT, BlockTask
from ushape.io.streaming.ome_pyramid import read_box


def store_pieces(task: BlockTask, index: int) -> None:
    """Store the properties of the pieces of the classes within a block."""
    box = task.grid(PREDICT).box(index)
    describe_pieces(*_label(task, index), box, task.output.shape).store(
        task.pieces_path(PIECES, index)
    )


def number_parts(task: BlockTask) -> None:
    """Join the pieces of all blocks, and store the number of the object of each piece.

    Objects are numbered by their first pixel; those below the smallest size get the number 0.
    """
    parts = join_blocks(
        lambda index: task.pieces_path(PIECES, index),
        task.grid(PREDICT),
        corners_connect=task.corners_connect,
    )
    kept = np.flatnonzero(parts.sizes >= max(1, task.min_size_px))
    kept = kept[np.argsort(parts.first[kept])]
    numbers = np.zeros(len(parts.sizes), np.uint32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    PieceTable(task.table_folder(OBJECTS)).store(parts.starts, numbers[parts.of_piece])


def number_block(task: BlockTask, index: int) -> None:
    """Write the numbers of the objects of a block."""
    assert task.objects is not None, "a task of objects"
    if task.labels is None:
        labels, _ = _label(task, index)
    else:
        labels = read_box(task.labels, task.grid(PREDICT).box(index))
    own = PieceTable(task.table_folder(OBJECTS)).load(index)
    table = np.concatenate([np.zeros(1, np.uint32), own])
    task.write(task.objects.open(), task.grid(PREDICT).box(index), table[labels])


def _label(task: BlockTask, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the piece of each pixel of a block, and the value of each piece."""
    mask = read_box(task.output, task.grid(PREDICT).box(index))
    return label_values(mask, task.values[0], corners_connect=task.corners_connect)
