"""Connected components, found in blocks.

A piece is what is connected within one block; a part is what is connected in the whole image. Each
block labels its pieces by itself and stores their properties (size, first pixel, bounding box,
contact with the border). Pieces that touch across the border of two blocks are joined to parts
once, from these properties.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ushape.distributed.grid import BlockGrid
from ushape.io.files import replacing
from ushape.transforms.morphology import join_pieces, touching_pairs
from ushape.types import Box

KEPT_BLOCKS = 64
"""Number of blocks whose pieces are kept in memory while pieces are joined."""


@dataclass(frozen=True)
class Pieces:
    """The connected pieces within a block, numbered from 1."""

    sizes: np.ndarray
    """(N,) number of pixels of each piece."""

    first: np.ndarray
    """(N,) first pixel of each piece, counted in row-major order in the whole image."""

    values: np.ndarray
    """(N,) value of the pixels of each piece."""

    touches_edge: np.ndarray
    """(N,) whether each piece touches the border of the whole image."""

    boxes: np.ndarray
    """(N, D, 2) first pixel and the one after the last, along each axis of the whole image."""

    faces: dict[str, np.ndarray]
    """Numbers of the pieces on each side of the block, by axis and end, such as 0low or 2high."""

    def store(self, path: Path) -> None:
        """Write what `load_pieces` reads."""
        facts: dict[str, Any] = {**vars(self), **self.faces}
        del facts["faces"]
        with replacing(path) as file:
            np.savez_compressed(file, **facts)


def load_pieces(path: Path) -> Pieces:
    """Read the pieces of a block."""
    with np.load(path) as stored:
        values = dict(stored)
    names = ("sizes", "first", "values", "touches_edge", "boxes")
    return Pieces(**{name: values.pop(name) for name in names}, faces=values)


def label_values(
    values: np.ndarray, background: int, *, corners_connect: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Label the connected pieces of equal values.

    Shapes:
        values: (*S) integers.
        returns: (*S) int32 number of the piece of each pixel, 0 for background; (N,) value of each.
    """
    reach = ndimage.generate_binary_structure(values.ndim, values.ndim if corners_connect else 1)
    labels = np.zeros(values.shape, np.int32)
    found: list[Any] = []
    for value in np.unique(values):
        if value == background:
            continue
        own, count = ndimage.label(values == value, reach)
        labels[own > 0] = own[own > 0] + len(found)
        found += [value] * count
    return labels, np.array(found, values.dtype)


def describe_pieces(
    labels: np.ndarray, values: np.ndarray, box: Box, shape: tuple[int, ...]
) -> Pieces:
    """Return the properties of the pieces of a block that are needed to join them with others.

    Args:
        box: Position of the block.
        shape: (*S) of the whole image.

    Shapes:
        labels: (*box); values: (N,).
    """
    first = first_pixels(labels, len(values), box, shape)
    touches = np.zeros(len(values) + 1, dtype=bool)
    faces = {}
    for axis, (edge, size) in enumerate(zip(box, shape, strict=True)):
        low, high = labels.take(0, axis), labels.take(-1, axis)
        faces[f"{axis}low"], faces[f"{axis}high"] = low, high
        touches[low] |= edge[0] == 0
        touches[high] |= edge[1] == size
    found = [
        [(own.start + edge[0], own.stop + edge[0]) for own, edge in zip(one, box, strict=True)]
        for one in ndimage.find_objects(labels)
    ]
    return Pieces(
        sizes=np.bincount(labels.ravel(), minlength=len(values) + 1)[1:],
        first=first,
        values=values,
        touches_edge=touches[1:],
        boxes=np.array(found, np.int64).reshape(len(values), len(box), 2),
        faces=faces,
    )


def first_pixels(labels: np.ndarray, count: int, box: Box, shape: tuple[int, ...]) -> np.ndarray:
    """Return the first pixel of each number in a part, in row-major order in the whole image.

    Args:
        count: Highest number; each of them occurs.

    Shapes:
        labels: (*box), 0 outside; returns: (count,) int64.
    """
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    place = np.zeros(count + 1, np.int64)
    # NumPy keeps the last of several values for an index: in reverse order, the first pixel.
    place[flat[inside[::-1]]] = inside[::-1]
    local = np.unravel_index(place[1:], labels.shape)
    whole = [axis + edge[0] for axis, edge in zip(local, box, strict=True)]
    return np.asarray(np.ravel_multi_index(whole, shape), dtype=np.int64)


@dataclass(frozen=True)
class Parts:
    """The connected components of the whole image, in any order."""

    starts: np.ndarray
    """(blocks + 1,) number of pieces in all blocks before each one."""

    of_piece: np.ndarray
    """(pieces,) index of the part of each piece."""

    sizes: np.ndarray
    """(parts,) number of pixels."""

    first: np.ndarray
    """(parts,) first pixel, in row-major order."""

    touches_edge: np.ndarray
    """(parts,) whether each part touches the border of the image."""

    boxes: np.ndarray
    """(parts, D, 2) smallest box that contains each part."""

    pieces: np.ndarray
    """(parts,) number of pieces."""


def join_blocks(path_of: Callable[[int], Path], grid: BlockGrid, *, corners_connect: bool) -> Parts:
    """Join the pieces of all blocks.

    Args:
        path_of: Returns the file of the pieces of a block.
    """
    load = lru_cache(KEPT_BLOCKS)(lambda index: load_pieces(path_of(index)))
    facts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("sizes", "first", "touches_edge", "boxes")
    }
    for index in range(len(grid)):
        own = load(index)
        for name, values in facts.items():
            values.append(getattr(own, name))
    starts = np.concatenate([[0], np.cumsum([len(one) for one in facts["sizes"]])])
    pairs = [
        pair + np.array([starts[one], starts[other]])
        for one, other, pair in _pairs(load, grid, corners_connect=corners_connect)
    ]
    sizes, first, edge, boxes = (np.concatenate(values) for values in facts.values())
    of_piece = join_pieces(int(starts[-1]), pairs)[1:] - 1
    count = int(of_piece.max(initial=-1)) + 1
    begin = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(begin, of_piece, first)
    joined = np.zeros((count, len(grid.shape), 2), np.int64)
    joined[..., 0] = np.iinfo(np.int64).max
    np.minimum.at(joined[..., 0], of_piece, boxes[..., 0])
    np.maximum.at(joined[..., 1], of_piece, boxes[..., 1])
    return Parts(
        starts=starts,
        of_piece=of_piece,
        sizes=np.bincount(of_piece, weights=sizes, minlength=count).astype(np.int64),
        first=begin,
        touches_edge=np.bincount(of_piece, weights=edge, minlength=count) > 0,
        boxes=joined,
        pieces=np.bincount(of_piece, minlength=count),
    )


def _pairs(
    load: Callable[[int], Pieces], grid: BlockGrid, *, corners_connect: bool
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the numbers of neighboring blocks with the pairs of their pieces that touch."""
    dims = len(grid.shape)
    steps = [
        step
        for step in itertools.product((0, 1, -1), repeat=dims)
        if next((one for one in step if one), 0) == 1
        and (corners_connect or np.count_nonzero(step) == 1)
    ]
    for index in range(len(grid)):
        place, own = grid.place(index), load(index)
        for step in steps:
            beside = tuple(a + b for a, b in zip(place, step, strict=True))
            if not all(0 <= a < count for a, count in zip(beside, grid.counts, strict=True)):
                continue
            other_index = grid.index(beside)
            other = load(other_index)
            faces = _face(own, step), _face(other, [-one for one in step])
            pairs = touching_pairs(*faces, corners_connect=corners_connect)
            is_same = own.values[pairs[:, 0] - 1] == other.values[pairs[:, 1] - 1]
            yield index, other_index, pairs[is_same]


def _face(pieces: Pieces, step: Sequence[int]) -> np.ndarray:
    """Return the side, edge or corner of a block in a direction, at least one-dimensional."""
    axis = next(axis for axis, one in enumerate(step) if one)
    face = pieces.faces[f"{axis}{'high' if step[axis] > 0 else 'low'}"]
    others = [one for place, one in enumerate(step) if place != axis]
    end = {0: slice(None), 1: slice(-1, None), -1: slice(0, 1)}
    return face[tuple(end[one] for one in others)]


@dataclass(frozen=True)
class PieceTable:
    """Values of all pieces, or objects, of the blocks, of which each block reads its own."""

    folder: Path

    def store(self, starts: np.ndarray, values: np.ndarray) -> None:
        """Write the values of all pieces, (pieces, ...)."""
        for name, own in (("values", values), ("starts", starts)):
            with replacing(self.folder / f"{name}.npy") as file:
                np.save(file, own)

    def load(self, index: int) -> np.ndarray:
        """Return the values of the pieces of a block."""
        starts = np.load(self.folder / "starts.npy", mmap_mode="r")
        values = np.load(self.folder / "values.npy", mmap_mode="r")
        return np.array(values[int(starts[index]) : int(starts[index + 1])])
