"""Coarser levels of a large image, collected while its rows are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ushape.io.temporary import temporary_map

STEP = 4
"""Factor between the sizes of neighboring levels."""

LARGE_PX = 4096
"""Length in pixels of the longer side above which an image has several levels."""

SMALL_PX = 1024
"""Length in pixels of the longer side of the coarsest level, at most."""


def level_shapes(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return (y, x) of each level below the finest one; none for images that are not large.

    Args:
        shape: (y, x) of the image.
    """
    found, (height, width) = list[tuple[int, int]](), shape
    if max(height, width) <= LARGE_PX:
        return found
    while max(height, width) > SMALL_PX:
        height, width = max(1, height // STEP), max(1, width // STEP)
        found.append((height, width))
    return found


def nearest_indices(old: int, new: int) -> np.ndarray:
    """Return the index of the source pixel at the center of each target pixel."""
    return np.minimum((2 * np.arange(new) + 1) * old // (2 * new), old - 1)


@dataclass
class PyramidLevels:
    """Levels that are sampled at the nearest pixel of the finest one, so that values stay values.

    Shapes:
        levels: (y, x) or (y, x, C) each.
    """

    shape: tuple[int, ...]
    """(y, x) or (y, x, C) of the image."""

    levels: list[np.ndarray]
    done: int = field(default=0, init=False)

    def offset_of(self, level: np.ndarray) -> list[float]:
        """Return the mean distance of the pixels of a level from multiples of its factor.

        The distance is in pixels of the finest level, along y and x. If the factor is an integer,
        all pixels have this distance: 2 for a factor of 4.
        """
        sizes = zip(self.shape[:2], level.shape[:2], strict=True)
        return [
            float(np.mean(nearest_indices(old, new) - np.arange(new) * (old / new)))
            for old, new in sizes
        ]

    def add(self, rows: np.ndarray) -> None:
        """Take the pixels of the levels from the next rows of the image."""
        first, last = self.done, self.done + len(rows)
        for level in self.levels:
            down = nearest_indices(self.shape[0], level.shape[0])
            across = nearest_indices(self.shape[1], level.shape[1])
            start, end = np.searchsorted(down, (first, last))
            level[start:end] = rows[down[start:end] - first][:, across]
        self.done = last


@contextmanager
def collect_levels(shape: Sequence[int], dtype: np.dtype, folder: Path) -> Iterator[PyramidLevels]:
    """Collect the levels below the finest one on the disk.

    Args:
        shape: (y, x) or (y, x, C) of the image.
        folder: Folder with space for a fifteenth of the image.

    Raises:
        OSError: if the disk has too little space.
    """
    with ExitStack() as stack:
        levels = [
            stack.enter_context(temporary_map((*space, *shape[2:]), folder, dtype))
            for space in level_shapes(shape[:2])
        ]
        yield PyramidLevels(tuple(shape), levels)
