"""Geometry of sliding-window prediction: tiles, their blending, and test-time augmentation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ushape.errors import check_range

Blend = Literal["gaussian", "uniform"]

MAX_OVERLAP = 0.9
"""Largest overlap of tiles. With 0.9, a pixel of an image is predicted 100 times, and a voxel of a
volume 1000 times."""

STRETCH = 1.25
"""Largest ratio of a tile's length to the requested length, by default."""


@dataclass(frozen=True, kw_only=True)
class TilingConfig:
    """Division of large images into overlapping tiles, and blending of their predictions."""

    overlap_fraction: float | Literal["auto"] = "auto"
    """Fraction of a tile that the next tile overlaps, from 0 to 0.9. auto: 64 pixels, but at most a
    quarter of the tile."""

    blend: Blend = "gaussian"
    """Weight of the pixels of a tile. gaussian: decreases from the center; uniform: constant."""

    def __post_init__(self) -> None:
        if self.overlap_fraction != "auto":
            hint = "0.25 is usual; 0.5 blends seams better but needs twice as many tiles per axis."
            check_range("overlap_fraction", self.overlap_fraction, 0, MAX_OVERLAP, hint=hint)


@dataclass(frozen=True)
class TiledAxis:
    """Tiles along one axis."""

    tile: int
    """Length of each tile in pixels."""

    starts: tuple[int, ...]
    """First pixel of each tile, in increasing order."""

    shares: np.ndarray
    """(tiles, tile) float32: weight of each pixel of each tile. The weights of all tiles that
    cover a pixel add up to 1, so that no division is needed."""

    @property
    def size(self) -> int:
        """Number of pixels that are covered."""
        return self.starts[-1] + self.tile

    def touching(self, first: int, last: int) -> tuple[int, TiledAxis]:
        """Return the tiles that touch the pixels from `first` to before `last`.

        Returns:
            First pixel of the first of them, and the tiles with their starts counted from there.
        """
        near = [k for k, start in enumerate(self.starts) if first - self.tile < start < last]
        origin, kept = self.starts[near[0]], slice(near[0], near[-1] + 1)
        starts = tuple(start - origin for start in self.starts[kept])
        return origin, TiledAxis(self.tile, starts, self.shares[kept])


def cut_axis(size: int, tile: int, overlap_fraction: float, blend: Blend) -> TiledAxis:
    """Spread tiles evenly over an axis, with at least the given overlap.

    Args:
        size: Pixels to cover; an axis shorter than a tile is covered by one tile.
        tile: Length of a tile in pixels.
    """
    starts = tile_starts(size, tile, overlap_fraction)
    weights = np.broadcast_to(blend_profile(tile, blend), (len(starts), tile))
    total = np.zeros(max(size, tile))
    for start in starts:
        total[start : start + tile] += weights[0]
    shares = [own / total[start : start + tile] for own, start in zip(weights, starts, strict=True)]
    return TiledAxis(tile, tuple(starts), np.stack(shares).astype(np.float32))


def tile_starts(size: int, tile: int, overlap_fraction: float) -> list[int]:
    """Return the first pixels of evenly spread tiles with at least the given overlap.

    Args:
        size: Pixels to cover.
        tile: Length of a tile in pixels.
    """
    if size <= tile:
        return [0]
    stride = max(1, int(tile * (1 - overlap_fraction)))
    count = math.ceil((size - tile) / stride) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def even_tile(size: int, most: int, overlap_fraction: float, stretch: float = STRETCH) -> int:
    """Return the tile length that covers an axis with few tiles and little redundant overlap.

    Example: 4096 pixels in tiles of about 1024 that overlap by 64 need five tiles of 1024, or four
    of 1072.

    Args:
        size: Pixels to cover.
        most: Approximate tile length in pixels.
        stretch: Largest ratio of the result to `most`.
    """
    longest = int(stretch * most)
    if size <= longest:
        return size
    overlap = overlap_fraction * most
    count = math.ceil((size - overlap) / (longest - overlap))
    return math.ceil((size + (count - 1) * overlap) / count)


def blend_profile(tile: int, blend: Blend) -> np.ndarray:
    """Return the weight of each pixel along a tile, at most 1 and never 0.

    nnU-Net uses sigma = tile / 8 (sliding_window_prediction.py).

    Shapes:
        returns: (tile,).
    """
    if blend == "uniform":
        return np.ones(tile)
    distance = (np.arange(tile) - (tile - 1) / 2) / (tile / 8)
    return np.maximum(np.exp(-0.5 * distance**2), 1e-4)


Average = Literal["none", "mirrored", "rotated_7", "all_8"]
"""Symmetries over which predictions are averaged (test-time augmentation)."""


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """A transposition of the last two axes, or none, followed by mirrored axes."""

    mirror_axes: tuple[int, ...] = ()
    """Axes of S that are mirrored, counted from 0, or backwards from -1."""

    is_transposed: bool = False

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Transform (C, *S) to (C, *S'), contiguous."""
        turned = array.swapaxes(-1, -2) if self.is_transposed else array
        return np.ascontiguousarray(np.flip(turned, self._axes))

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Transform (K, *S') back to (K, *S), exactly; a view."""
        turned = np.flip(array, self._axes)
        return turned.swapaxes(-1, -2) if self.is_transposed else turned

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(axis + 1 if axis >= 0 else axis for axis in self.mirror_axes)


def symmetries(average: Average, mirror_axes: Sequence[int], dims: int) -> tuple[Symmetry, ...]:
    """Return the symmetries whose predictions are averaged; the identity comes first.

    Args:
        average: none; mirrored, all combinations of `mirror_axes`; all_8 symmetries of the square;
            rotated_7, seven of these: four rotations, two reflections and one transposition.
        dims: Number of axes of S; the square is in the last two.
    """
    if average == "none":
        return (Symmetry(),)
    if average == "mirrored":
        return tuple(Symmetry(mirror_axes=axes) for axes in _subsets(mirror_axes))
    y, x = dims - 2, dims - 1
    every = tuple(
        Symmetry(mirror_axes=axes, is_transposed=is_transposed)
        for is_transposed in (False, True)
        for axes in _subsets((y, x))
    )
    return every if average == "all_8" else every[:-1]


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all combinations of axes, starting with none."""
    counts = range(len(axes) + 1)
    return [found for count in counts for found in itertools.combinations(axes, count)]
