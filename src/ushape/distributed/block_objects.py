"""Number the objects of a mask that was written in blocks, as those of the whole image.

Each block labels its pieces by itself. Pieces that touch across the border of two blocks are joined
once, and then each block writes the numbers of its objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ushape.distributed.block_task import PREDICT, BlockTask
from ushape.distributed.grid import BlockGrid
from ushape.io.files import replacing
from ushape.io.streaming.ome_pyramid import write_box
from ushape.transforms.morphology import join_pieces, touching_pairs
from ushape.types import Box


@dataclass(frozen=True)
class Pieces:
    """The connected parts of the classes within a block, numbered from 1."""

    sizes: np.ndarray
    """(N,) number of pixels of each piece."""

    first: np.ndarray
    """(N,) first pixel of each piece, counted in row-major order in the whole image."""

    values: np.ndarray
    """(N,) value of the mask of each piece."""

    faces: dict[str, np.ndarray]
    """Numbers of the pieces on each side of the block, by axis and end, such as 0low or 2high."""


def label_block(task: BlockTask, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the piece of each pixel of a block, and the value of each piece.

    Shapes:
        returns: (*box) int32, 0 for background; (N,).
    """
    mask = np.asarray(task.output.open()[tuple(slice(*edge) for edge in box)])
    labels = np.zeros(mask.shape, np.int32)
    values: list[Any] = []
    for value in np.unique(mask):
        if value == task.background:
            continue
        own, count = ndimage.label(mask == value)
        labels[own > 0] = own[own > 0] + len(values)
        values += [value] * count
    return labels, np.array(values, mask.dtype)


def store_pieces(task: BlockTask, index: int) -> None:
    """Store the facts about the pieces of a block that are needed to join them with others."""
    box = task.grid(PREDICT).box(index)
    labels, values = label_block(task, box)
    inside = np.flatnonzero(labels)
    _, place, sizes = np.unique(labels.ravel()[inside], return_index=True, return_counts=True)
    local = np.unravel_index(inside[place], labels.shape)
    own = [axis + edge[0] for axis, edge in zip(local, box, strict=True)]
    first = np.ravel_multi_index(own, task.output.shape)
    faces = {}
    for axis in range(labels.ndim):
        faces[f"{axis}low"], faces[f"{axis}high"] = labels.take(0, axis), labels.take(-1, axis)
    path = _pieces_path(task, index)
    with replacing(path) as file:
        np.savez_compressed(file, sizes=sizes, first=first, values=values, **faces)


def join_blocks(task: BlockTask) -> None:
    """Join the pieces of all blocks, and store the number of the object of each piece.

    Objects are numbered by their first pixel; those below the smallest size get the number 0.
    """
    grid = task.grid(PREDICT)
    counts, sizes, first = [], [], []
    for index in range(len(grid)):
        pieces = _load_pieces(task, index)
        counts.append(len(pieces.sizes))
        sizes.append(pieces.sizes)
        first.append(pieces.first)
    starts = np.concatenate([[0], np.cumsum(counts)])
    pairs = [pair + np.array([starts[low], starts[high]]) for low, high, pair in _pairs(task, grid)]
    parts = join_pieces(int(starts[-1]), pairs)[1:]
    total = np.bincount(parts, weights=np.concatenate(sizes), minlength=1).astype(np.int64)
    begin = np.full(len(total), np.iinfo(np.int64).max)
    np.minimum.at(begin, parts, np.concatenate(first))
    kept = np.flatnonzero(total >= max(1, task.smallest_px))
    kept = kept[np.argsort(begin[kept])]
    numbers = np.zeros(len(total), np.uint32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    with replacing(_numbers_path(task)) as file:
        np.savez(file, starts=starts, numbers=numbers[parts])


def number_block(task: BlockTask, index: int) -> None:
    """Write the numbers of the objects of a block."""
    assert task.objects is not None, "a task of objects"
    box = task.grid(PREDICT).box(index)
    labels, _ = label_block(task, box)
    with np.load(_numbers_path(task)) as stored:
        first, last = stored["starts"][index : index + 2]
        own = stored["numbers"][first:last]
    table = np.concatenate([np.zeros(1, np.uint32), own])
    write_box(task.objects.open(), box, table[labels])


def _pairs(task: BlockTask, grid: BlockGrid) -> list[tuple[int, int, np.ndarray]]:
    """Return the numbers of neighboring blocks with the pairs of their pieces that touch."""
    found = []
    for index in range(len(grid)):
        place, own = grid.place(index), _load_pieces(task, index)
        for axis, count in enumerate(grid.counts):
            if place[axis] + 1 == count:
                continue
            next_place = tuple(p + (a == axis) for a, p in enumerate(place))
            other_index = grid.index(next_place)
            other = _load_pieces(task, other_index)
            pairs = touching_pairs(
                own.faces[f"{axis}high"], other.faces[f"{axis}low"], corners_connect=False
            )
            is_same = own.values[pairs[:, 0] - 1] == other.values[pairs[:, 1] - 1]
            found.append((index, other_index, pairs[is_same]))
    return found


def _load_pieces(task: BlockTask, index: int) -> Pieces:
    with np.load(_pieces_path(task, index)) as stored:
        values = dict(stored)
    facts = {name: values.pop(name) for name in ("sizes", "first", "values")}
    return Pieces(**facts, faces=values)


def _pieces_path(task: BlockTask, index: int) -> Path:
    return task.folder / "pieces" / f"{index // 1000:06}" / f"{index:09}.npz"


def _numbers_path(task: BlockTask) -> Path:
    return task.folder / "objects.npz"
