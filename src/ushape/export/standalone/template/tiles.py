"""Sliding-window prediction: the probabilities of an image, in one tile or in overlapping ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

BATCH_PX = 1 << 18
"""Number of pixels up to which small tiles are computed together."""

MAX_STRIP_PX = 1 << 23
"""Largest number of pixels in one row of tiles; the tiles of wider images are made lower."""

MIN_TILE = 256
"""Height below which tiles of wide images are not reduced."""

Network = Callable[[np.ndarray], np.ndarray]
"""Function from tiles (B, C, *T) to the probabilities (B, K, *T') without the margin."""


@dataclass(frozen=True)
class Symmetry:
    """A transposition of the last two axes, or none, followed by mirrored axes."""

    mirror_axes: tuple[int, ...]
    """Axes of S that are mirrored, counted from 0, or backwards from -1."""

    is_transposed: bool

    def apply(self, tiles: np.ndarray) -> np.ndarray:
        """Transform (B, C, *S) to (B, C, *S'), contiguous."""
        turned = tiles.swapaxes(-1, -2) if self.is_transposed else tiles
        return np.ascontiguousarray(np.flip(turned, self._axes))

    def undo(self, tiles: np.ndarray) -> np.ndarray:
        """Transform (B, K, *S') back to (B, K, *S)."""
        turned = np.flip(tiles, self._axes)
        return turned.swapaxes(-1, -2) if self.is_transposed else turned

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(axis + 2 if axis >= 0 else axis for axis in self.mirror_axes)


@dataclass(frozen=True)
class LegalSizes:
    """Sizes that the network accepts along one axis: smallest, smallest + step, ..."""

    smallest: int
    step: int

    def at_least(self, size: int) -> int:
        """Return the smallest legal size that is not below `size`."""
        return self.smallest + self.step * max(0, math.ceil((size - self.smallest) / self.step))


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles, and their predictions are blended."""

    margin: int
    """Number of pixels that the output of the network lacks on each side of the input."""

    legal_sizes: tuple[LegalSizes, ...]
    """Sizes that the network accepts along each axis of S."""

    shape: tuple[int, ...]
    """Approximate size of a tile in pixels, without the margin."""

    overlap_fraction: float
    stretch: float
    """Factor by which a tile may be longer if fewer tiles then suffice."""

    blend: Literal["gaussian", "uniform"]
    symmetries: tuple[Symmetry, ...]
    """Transformed versions of each tile whose predictions are averaged."""


@dataclass(frozen=True)
class TiledAxis:
    """Tiles along one axis."""

    tile: int
    starts: tuple[int, ...]
    shares: np.ndarray
    """(tiles, tile) float32: weights, which add up to 1 in each pixel."""

    @property
    def size(self) -> int:
        """Number of pixels that are covered."""
        return self.starts[-1] + self.tile


def predict_image(network: Network, image: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Return the probabilities of a normalized image, which is mirrored at its edges.

    Shapes:
        image: (C, *S) float32.
        returns: (K, *S) float32.
    """
    shape, margin = image.shape[1:], tiling.margin
    axes = cut_axes(shape, tiling)
    widths = [(margin, axis.size - size + margin) for axis, size in zip(axes, shape, strict=True)]
    padded = np.pad(image, [(0, 0), *widths], mode="reflect")
    inside = (slice(None), *map(slice, shape))
    if all(len(axis.starts) == 1 for axis in axes):
        found = _average_symmetries(network, padded[None], tiling)[0]
        return np.minimum(found, 1)[inside]
    total: np.ndarray | None = None
    for row in range(len(axes[0].starts)):
        places = list(itertools.product([row], *(range(len(axis.starts)) for axis in axes[1:])))
        together = max(1, BATCH_PX // math.prod(axis.tile for axis in axes))
        for first in range(0, len(places), together):
            some = places[first : first + together]
            batch = np.stack([padded[_slices(place, axes, 2 * margin)] for place in some])
            found = _average_symmetries(network, batch, tiling)
            if total is None:
                total = np.zeros((found.shape[1], *(axis.size for axis in axes)), np.float32)
            for tile, place in zip(found, some, strict=True):
                for number, (k, axis) in enumerate(zip(place, axes, strict=True), start=1):
                    column = [-1 if a == number else 1 for a in range(tile.ndim)]
                    tile *= axis.shares[k].reshape(column)
                total[_slices(place, axes)] += tile
    assert total is not None
    # Weights in float32 may add up to slightly more than 1.
    return np.minimum(total, 1)[inside]


def _slices(place: Sequence[int], axes: Sequence[TiledAxis], further: int = 0) -> tuple[slice, ...]:
    """Return where a tile lies in (C, *S), with some more pixels at its end."""
    starts = [axis.starts[k] for k, axis in zip(place, axes, strict=True)]
    ends = [start + axis.tile + further for start, axis in zip(starts, axes, strict=True)]
    return (slice(None), *map(slice, starts, ends))


def _average_symmetries(network: Network, tiles: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Return the probabilities (B, K, *T') of tiles (B, C, *T), averaged over the symmetries."""
    total: np.ndarray | None = None
    for symmetry in tiling.symmetries:
        found = symmetry.undo(network(symmetry.apply(tiles)))
        total = found.copy() if total is None else np.add(total, found, out=total)
    assert total is not None
    total /= np.float32(len(tiling.symmetries))
    return total


def cut_axes(shape: Sequence[int], tiling: Tiling) -> list[TiledAxis]:
    """Return the tiles along each axis, of sizes that are legal for the network."""
    wanted = []
    for place, (size, most) in enumerate(zip(shape, tiling.shape, strict=True)):
        if place == 0:
            most = min(most, max(MIN_TILE, MAX_STRIP_PX // shape[1]))
        tile = even_tile(size, most, _overlap_of(tiling, place, most), tiling.stretch)
        wanted.append(tile + 2 * tiling.margin)
    legal = _legal_shape(wanted, tiling)
    if any(symmetry.is_transposed for symmetry in tiling.symmetries):
        *others, y, x = legal  # Each of the two must also be legal along the other axis.
        *_, x, y = _legal_shape((*others, x, y), tiling)
        legal = [*others, y, x]
    tiles = [size - 2 * tiling.margin for size in legal]
    return [
        cut_axis(size, tile, _overlap_of(tiling, place, tile), tiling.blend)
        for place, (size, tile) in enumerate(zip(shape, tiles, strict=True))
    ]


def _legal_shape(at_least: Sequence[int], tiling: Tiling) -> list[int]:
    pairs = zip(tiling.legal_sizes, at_least, strict=True)
    return [legal.at_least(size) for legal, size in pairs]


def _overlap_of(tiling: Tiling, axis: int, tile: int) -> float:
    """Return the fraction that gives tiles of another size the intended overlap in pixels."""
    fraction = tiling.overlap_fraction
    return min(max(fraction, 0.5), fraction * tiling.shape[axis] / tile)


def even_tile(size: int, most: int, overlap_fraction: float, stretch: float) -> int:
    """Return the tile length that covers an axis with few tiles and little redundant overlap."""
    longest = int(stretch * most)
    if size <= longest:
        return size
    overlap = overlap_fraction * most
    count = math.ceil((size - overlap) / (longest - overlap))
    return math.ceil((size + (count - 1) * overlap) / count)


def cut_axis(
    size: int, tile: int, overlap_fraction: float, blend: Literal["gaussian", "uniform"]
) -> TiledAxis:
    """Spread tiles evenly over an axis, with at least the given overlap."""
    starts = [0]
    if size > tile:
        stride = max(1, int(tile * (1 - overlap_fraction)))
        count = math.ceil((size - tile) / stride) + 1
        starts = [round(index * (size - tile) / (count - 1)) for index in range(count)]
    profile = np.ones(tile)
    if blend == "gaussian":
        distance = (np.arange(tile) - (tile - 1) / 2) / (tile / 8)
        profile = np.maximum(np.exp(-0.5 * distance**2), 1e-4)
    total = np.zeros(max(size, tile))
    for start in starts:
        total[start : start + tile] += profile
    shares = [profile / total[start : start + tile] for start in starts]
    return TiledAxis(tile, tuple(starts), np.stack(shares).astype(np.float32))
