"""How a large image is cut into tiles and blended together again, axis by axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ushape.errors import ConfigError

Blend = Literal["gaussian", "uniform"]

STRETCH = 1.25
"""How many times longer than asked for a tile may be by default."""


@dataclass(frozen=True, kw_only=True)
class TilingConfig:
    """How a large image is cut up and blended together."""

    overlap_fraction: float | Literal["auto"] = "auto"
    """Share of a tile covered again by its neighbor, 0 <= value < 1. auto: 64 pixels, at most a
    quarter."""

    blend: Blend = "gaussian"
    """Trust in a pixel by its distance from the tile's center."""

    def __post_init__(self) -> None:
        if self.overlap_fraction != "auto" and not 0 <= self.overlap_fraction < 1:
            raise ConfigError(
                f"overlap_fraction is {self.overlap_fraction}, outside [0, 1).",
                hint="0.25 is usual; 0.5 is safer at seams and needs twice the tiles per axis.",
            )


@dataclass(frozen=True)
class TiledAxis:
    """Tiles along one axis."""

    tile: int
    """Pixels of each."""

    starts: tuple[int, ...]
    """First pixel of each, rising."""

    shares: np.ndarray
    """(tiles, tile) float32: what each tile counts at each of its pixels. Over all tiles that
    cover a pixel they add up to 1, so that a sum needs no division."""

    @property
    def size(self) -> int:
        """Pixels that are covered."""
        return self.starts[-1] + self.tile


def cut_axis(size: int, tile: int, overlap_fraction: float, blend: Blend) -> TiledAxis:
    """Tiles evenly spread over an axis; neighbors overlap at least so far.

    Args:
        size: Pixels to cover; an axis shorter than a tile is covered by one.
        tile: Pixels of a tile.
    """
    starts = tile_starts(size, tile, overlap_fraction)
    trust = np.broadcast_to(blend_profile(tile, blend), (len(starts), tile))
    total = np.zeros(max(size, tile))
    for start in starts:
        total[start : start + tile] += trust[0]
    shares = [own / total[start : start + tile] for own, start in zip(trust, starts, strict=True)]
    return TiledAxis(tile, tuple(starts), np.stack(shares).astype(np.float32))


def tile_starts(size: int, tile: int, overlap_fraction: float) -> list[int]:
    """First pixels of the tiles along one axis, evenly spread; neighbors overlap at least so far.

    Args:
        size: Pixels to cover.
        tile: Pixels of a tile.
    """
    if size <= tile:
        return [0]
    stride = max(1, int(tile * (1 - overlap_fraction)))
    count = math.ceil((size - tile) / stride) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def even_tile(size: int, most: int, overlap_fraction: float, stretch: float = STRETCH) -> int:
    """The tile with which few tiles cover an axis without covering much of it twice.

    4096 pixels in tiles of about 1024 that overlap by 64: five of 1024 would, four of 1072 do.

    Args:
        size: Pixels to cover.
        most: Pixels of a tile, about.
        stretch: How many times as long it may be.
    """
    longest = int(stretch * most)
    if size <= longest:
        return size
    overlap = overlap_fraction * most
    count = math.ceil((size - overlap) / (longest - overlap))
    return math.ceil((size + (count - 1) * overlap) / count)


def blend_profile(tile: int, blend: Blend) -> np.ndarray:
    """Trust in each pixel along a tile, at most 1, never 0.

    nnU-Net uses sigma = tile / 8 (sliding_window_prediction.py).

    Shapes:
        returns: (tile,).
    """
    if blend == "uniform":
        return np.ones(tile)
    distance = (np.arange(tile) - (tile - 1) / 2) / (tile / 8)
    return np.maximum(np.exp(-0.5 * distance**2), 1e-4)
