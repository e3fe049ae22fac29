"""Tiles into which an image is divided, and boxes of pixels (z, y, x)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

Plane = Literal["z", "y", "x"]
Window = tuple[tuple[int, int], tuple[int, int]]
"""First row and the one after the last one, and the same of columns, in a plane."""

Key = tuple[int, int, int]
"""Number of a tile along each axis."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First pixel along each axis (z, y, x), and the one after the last one."""

FLAT_TILE, DEEP_TILE = (1, 512, 512), (16, 128, 128)
"""Pixels (z, y, x) of a tile of an image and of a volume."""


def plane_box(plane: Plane, index: int, window: Window) -> tuple[tuple[int, int], ...]:
    """Return the box (z, y, x) of a window of a plane."""
    axes = list[tuple[int, int]](window)
    axes.insert("zyx".index(plane), (index, index + 1))
    return tuple(axes)


@dataclass(frozen=True)
class TileGrid:
    """Tiles of an image; those at its edges may be smaller."""

    shape: Key
    """Pixels of the image (z, y, x)."""

    tile: Key
    """Pixels of a tile (z, y, x)."""

    @classmethod
    def of_image(cls, shape: Sequence[int]) -> Self:
        """Return the tiles of an image (y, x) or a volume (z, y, x)."""
        if len(shape) == 2:
            return cls((1, *shape), FLAT_TILE)  # type: ignore[arg-type]
        return cls(tuple(shape), DEEP_TILE)  # type: ignore[arg-type]

    def keys_in(self, box: Sequence[tuple[int, int]]) -> list[Key]:
        """Return the tiles that a box covers, in part or completely."""
        spans = (
            range(first // size, -(-last // size))
            for (first, last), size in zip(box, self.tile, strict=True)
        )
        return list(itertools.product(*spans))  # type: ignore[arg-type]

    @property
    def keys(self) -> list[Key]:
        """All tiles."""
        return self.keys_in([(0, size) for size in self.shape])

    def shape_of(self, key: Key) -> tuple[int, ...]:
        """Return the pixels of a tile along each axis."""
        return tuple(
            min(size, whole - number * size)
            for number, size, whole in zip(key, self.tile, self.shape, strict=True)
        )

    def box_of(self, key: Key) -> tuple[tuple[int, int], ...]:
        """Return the box of a tile."""
        return tuple(
            (number * size, number * size + own)
            for number, size, own in zip(key, self.tile, self.shape_of(key), strict=True)
        )

    def box_around(self, keys: Iterable[Key]) -> Box | None:
        """Return the smallest box that contains tiles; None if there are none."""
        found = np.array(list(keys))
        if not len(found):
            return None
        low = found.min(axis=0) * self.tile
        high = np.minimum((found.max(axis=0) + 1) * self.tile, self.shape)
        pairs = zip(low.tolist(), high.tolist(), strict=True)
        return tuple(pairs)  # type: ignore[return-value]

    def overlap(
        self, key: Key, box: Sequence[tuple[int, int]]
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the pixels that a tile and a box share, as slices of the tile and of the box."""
        in_tile, in_box = [], []
        for number, size, (first, last) in zip(key, self.tile, box, strict=True):
            start = number * size
            low, high = max(first, start), min(last, start + size)
            in_tile.append(slice(low - start, high - start))
            in_box.append(slice(low - first, high - first))
        return tuple(in_tile), tuple(in_box)

    def places(self, key: Key, rows: Sequence[range]) -> tuple[tuple[slice, ...], list[np.ndarray]]:
        """Return which of the wanted pixels lie in a tile, and where.

        Args:
            rows: Wanted pixels along each axis.

        Returns:
            Their places among the wanted ones, and their numbers inside the tile.
        """
        target, source = [], []
        for number, size, own in zip(key, self.tile, rows, strict=True):
            start = number * size
            first = max(0, -(-(start - own.start) // own.step))
            last = min(len(own), max(first, -(-(start + size - own.start) // own.step)))
            target.append(slice(first, last))
            source.append(np.arange(own.start, own.stop, own.step)[first:last] - start)
        return tuple(target), source
