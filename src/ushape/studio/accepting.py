"""Make a prediction the annotation of its image, with a few tiles of both in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from ushape.studio.annotations import Annotation
from ushape.studio.predictions import StoredPrediction
from ushape.studio.tile_grid import Key, TileGrid
from ushape.transforms.morphology import join_pieces, touching_pairs

ReadTile = Callable[[Key], np.ndarray]
"""Function that returns the values of a tile (z, y, x)."""


def accepted_tiles(
    annotation: Annotation, prediction: StoredPrediction, threshold: float | None
) -> Iterator[tuple[tuple[tuple[int, int], ...], np.ndarray]]:
    """Yield the boxes (z, y, x) of all tiles with their new values.

    Of an image that is annotated in part, only the other pixels change. Objects then get numbers
    that are free, and those that the user has drawn in large part already, or erased, are left out.

    Args:
        threshold: Probability from which pixels are foreground; None: as validation chose.
    """
    keeps_known = 0 < annotation.annotated < 1
    read = _reader(annotation, prediction, threshold)
    names = None
    if annotation.are_objects and keeps_known:
        names = _free_numbers(annotation, read)
    for key in annotation.grid.keys:
        box = annotation.grid.box_of(key)
        values = read(key) if names is None else names[read(key)]
        values = values.astype(annotation.dtype)
        if keeps_known:
            known = annotation.read(box)
            values = np.where(known == annotation.unknown, values, known)
        yield box, values


def _reader(
    annotation: Annotation, prediction: StoredPrediction, threshold: float | None
) -> ReadTile:
    """Return the function that reads predicted classes, or objects if masks number them.

    Objects are those that the network separates, otherwise the connected components.
    """
    grid = annotation.grid

    def read_classes(key: Key) -> np.ndarray:
        planes, rows, columns = grid.box_of(key)
        window = rows, columns
        found = [prediction.classes("z", z, window, 1, threshold) for z in range(*planes)]
        return np.stack(found)

    def read_objects(key: Key) -> np.ndarray:
        planes, rows, columns = grid.box_of(key)
        return np.stack([prediction.objects("z", z, (rows, columns), 1) for z in range(*planes)])

    if not annotation.are_objects:
        return read_classes
    if prediction.has_objects:
        return read_objects
    return _ConnectedParts.of(grid, read_classes).read


@dataclass(frozen=True)
class _ConnectedParts:
    """Numbers of the connected components; those of a tile are computed when it is read.

    Pixels are connected by their sides.
    """

    labeled: ReadTile
    """Function that returns the pieces in a tile, numbered from 1."""

    part_of: dict[Key, np.ndarray]
    """For each tile, the part of each of its pieces; that of piece 0 is 0."""

    @classmethod
    def of(cls, grid: TileGrid, read: ReadTile) -> _ConnectedParts:
        """Label each tile, and join the pieces that touch across the border between two tiles.

        Args:
            read: Function that returns values that are 0 outside of the foreground.
        """
        labeled = partial(_label, read)
        counts: dict[Key, int] = {}
        ends: dict[tuple[int, Key], np.ndarray] = {}
        pairs, used = [], 0
        for key in grid.keys:
            pieces = labeled(key)
            counts[key] = int(pieces.max(initial=0))
            numbers = np.where(pieces > 0, pieces + used, 0)
            used += counts[key]
            for axis, (_, stop) in enumerate(grid.box_of(key)):
                if (before := ends.pop((axis, key), None)) is not None:
                    first = np.take(numbers, 0, axis)
                    pairs.append(touching_pairs(before, first, corners_connect=False))
                if stop < grid.shape[axis]:
                    ends[axis, _after(key, axis)] = np.take(numbers, -1, axis)
        roots, start, part_of = join_pieces(used, pairs), 1, {}
        for key, count in counts.items():
            part_of[key] = np.concatenate([[0], roots[start : start + count]])
            start += count
        return cls(labeled, part_of)

    def read(self, key: Key) -> np.ndarray:
        """Return the numbers of the parts in a tile, 0 outside."""
        return np.asarray(self.part_of[key][self.labeled(key)])


def _label(read: ReadTile, key: Key) -> np.ndarray:
    pieces, _ = ndimage.label(read(key))
    return np.asarray(pieces)


def _after(key: Key, axis: int) -> Key:
    """Return the next tile along an axis."""
    z, y, x = (number + (place == axis) for place, number in enumerate(key))
    return z, y, x


def _free_numbers(annotation: Annotation, read: ReadTile) -> np.ndarray:
    """Return the new number of each predicted object; 0 for those that are left out."""
    sizes = covered = np.zeros(1, dtype=np.int64)
    for key in annotation.grid.keys:
        own = read(key)
        known = annotation.read(annotation.grid.box_of(key)) != annotation.unknown
        sizes = _add(sizes, np.bincount(own.ravel()))
        covered = _add(covered, np.bincount(own[known]))
    covered = _add(covered, np.zeros_like(sizes))
    names = np.arange(len(sizes)) + annotation.next_number - 1
    names[0] = 0
    names[covered > sizes // 2] = 0
    return names


def _add(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the sum of two arrays, the shorter of which is continued with zeros."""
    size = max(len(one), len(other))
    return np.pad(one, (0, size - len(one))) + np.pad(other, (0, size - len(other)))
