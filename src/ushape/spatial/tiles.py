"""How a large image is cut into tiles and blended together again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ushape.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TilingConfig:
    """How a large image is cut up and blended together."""

    overlap_fraction: float = 0.25
    """Share of a tile covered again by its neighbour, 0 <= value < 1."""

    blend: Literal["gaussian", "uniform"] = "gaussian"
    """Trust in a pixel by its distance from the tile's centre."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_fraction < 1:
            raise ConfigError(
                f"overlap_fraction is {self.overlap_fraction}, outside [0, 1).",
                hint="0.25 is usual; 0.5 is safer at seams and needs twice the tiles per axis.",
            )


def tile_starts(size: int, tile: int, overlap_fraction: float) -> list[int]:
    """First pixels of the tiles along one axis, evenly spread; neighbours overlap at least so far.

    Args:
        size: Pixels to cover.
        tile: Pixels of a tile.
    """
    if size <= tile:
        return [0]
    stride = max(1, int(tile * (1 - overlap_fraction)))
    count = math.ceil((size - tile) / stride) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def blend_window(shape: Sequence[int], blend: Literal["gaussian", "uniform"]) -> np.ndarray:
    """Trust in each pixel of a tile, at most 1, never 0.

    nnU-Net uses sigma = tile / 8 (sliding_window_prediction.py).

    Shapes:
        returns: (*shape) float32.
    """
    window = np.ones(tuple(shape), dtype=np.float32)
    if blend == "uniform":
        return window
    for axis, size in enumerate(shape):
        distance = (np.arange(size) - (size - 1) / 2) / (size / 8)
        profile = np.exp(-0.5 * distance**2).astype(np.float32)
        window *= profile.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.maximum(window / window.max(), 1e-4)


class TileAccumulator:
    """Weighted mean of overlapping tiles.

    Args:
        channels: K.
        shape: S of the whole.
        window: (*T) trust in each pixel of a tile.
    """

    def __init__(self, channels: int, shape: Sequence[int], window: np.ndarray):
        self.window = window
        self._sum = np.zeros((channels, *shape), dtype=np.float32)
        self._trust = np.zeros(tuple(shape), dtype=np.float32)

    def add(self, probabilities: np.ndarray, start: Sequence[int]) -> None:
        """Adds a tile (K, *T) whose first pixel lies at `start`."""
        place = tuple(
            slice(first, first + size) for first, size in zip(start, self.window.shape, strict=True)
        )
        self._sum[(slice(None), *place)] += probabilities * self.window
        self._trust[place] += self.window

    def result(self) -> np.ndarray:
        """(K, *S) float32; every pixel must have been covered."""
        assert (self._trust > 0).all(), "tiles leave a gap"
        return self._sum / self._trust
