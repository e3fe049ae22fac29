"""Flips, turns, scale, shift and elastic deformation, composed into one warp.

One interpolation only: images linear or cubic, masks nearest, both at the same coordinates.
Beyond the edges the image is mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from ushape.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SpaceConfig:
    """How patches are deformed."""

    flip_axes: tuple[int, ...] = ()
    """Axes of S that are mirrored in half of the patches."""

    rotation_degrees: float = 180.0
    """Largest angle, drawn evenly from -angle to angle, in the plane of the last two axes."""

    rotation_probability: float = 0.5

    scale: float = 0.25
    """Largest relative change of size: from 1 / (1 + scale) to 1 + scale."""

    scale_probability: float = 0.3

    shift_fraction: float = 0.0
    """Largest shift, as a share of the patch. Patches are drawn anywhere already."""

    elastic_px: float = 8.0
    """Standard deviation of the displacements on a coarse grid, pixels."""

    elastic_grid: int = 4
    """Points of the coarse grid along each axis; the paper has 3."""

    elastic_probability: float = 0.2

    interpolation: Literal["linear", "cubic"] = "linear"
    """Of the image; 3D is always linear."""

    def __post_init__(self) -> None:
        for name in ("rotation_probability", "scale_probability", "elastic_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"augment.space.{name} is {getattr(self, name)}, outside [0, 1].",
                    hint="0 switches it off.",
                )
        if self.elastic_grid < 2:
            raise ConfigError(
                f"augment.space.elastic_grid is {self.elastic_grid}, below 2.",
                hint="The paper uses 3.",
            )


@dataclass(frozen=True)
class Warp:
    """Where each pixel of a patch comes from, relative to the centres of patch and cut."""

    matrix: np.ndarray
    """(D, D): offset in the patch -> offset in the image, pixels."""

    shift: np.ndarray
    """(D,) pixels, added to it."""

    elastic: np.ndarray | None
    """(D, g, ..., g) pixels, displacements on a coarse grid over the patch."""

    interpolation: Literal["linear", "cubic"]

    @property
    def is_mirroring(self) -> bool:
        """Nothing but flips: pixels are moved, not mixed."""
        identity = np.eye(len(self.shift))
        return (
            self.elastic is None
            and not self.shift.any()
            and np.array_equal(np.abs(self.matrix), identity)
        )


def draw_warp(config: SpaceConfig, patch_shape: Sequence[int], rng: np.random.Generator) -> Warp:
    """Draws a warp; the same number of random numbers whatever comes out."""
    dims = len(patch_shape)
    flips, turn, scale, shift, elastic = (
        rng.random(dims),
        rng.random(2),
        rng.random(2),
        rng.uniform(-1, 1, dims),
        rng.random(),
    )
    matrix = np.eye(dims)
    for axis in config.flip_axes:
        if flips[axis] < 0.5:
            matrix[axis, axis] = -1
    if turn[0] < config.rotation_probability:
        angle = math.radians((2 * turn[1] - 1) * config.rotation_degrees)
        matrix = _rotation(angle, dims) @ matrix
    if scale[0] < config.scale_probability:
        # A larger image is read from closer by.
        matrix = matrix / (1 + config.scale) ** (2 * scale[1] - 1)
    grid = [config.elastic_grid] * dims
    displacements = rng.normal(0, config.elastic_px, (dims, *grid))
    has_elastic = elastic < config.elastic_probability and config.elastic_px > 0
    return Warp(
        matrix=matrix,
        shift=config.shift_fraction * shift * np.asarray(patch_shape),
        elastic=displacements if has_elastic else None,
        interpolation=config.interpolation,
    )


def cut(
    image: np.ndarray,
    classes: np.ndarray | None,
    centre: Sequence[float],
    patch_shape: Sequence[int],
    warp: Warp,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cuts a warped patch; only the part of the image that it shows is touched.

    Args:
        centre: Pixels; an unwarped patch begins at centre - patch_shape / 2.

    Shapes:
        image: (C, *S), any dtype -> (C, *patch_shape) float32.
        classes: (*S) uint8 -> (*patch_shape) uint8, no new values.
    """
    if warp.is_mirroring:
        return _cut_straight(image, classes, centre, patch_shape, warp)
    places = _find_places(centre, patch_shape, warp)
    flat = places.reshape(len(places), -1)
    lows = np.floor(flat.min(axis=1)).astype(int) - 2
    highs = np.ceil(flat.max(axis=1)).astype(int) + 3
    window = [
        _mirror(np.arange(low, high), size)
        for low, high, size in zip(lows, highs, image.shape[1:], strict=True)
    ]
    is_inside = (lows >= 0).all() and (highs <= image.shape[1:]).all()
    chosen: Any = tuple(map(slice, lows, highs)) if is_inside else np.ix_(*window)
    part = np.ascontiguousarray(image[(slice(None), *chosen)], dtype=np.float32)
    warped = _sample(part, places - lows.reshape(-1, *[1] * len(lows)), warp.interpolation)
    if classes is None:
        return warped, None
    nearest = tuple(
        axis_places[np.rint(place).astype(np.int64) - low]
        for axis_places, place, low in zip(window, places, lows, strict=True)
    )
    return warped, np.ascontiguousarray(classes[nearest])


def _find_places(centre: Sequence[float], patch_shape: Sequence[int], warp: Warp) -> np.ndarray:
    """(D, *patch_shape) image coordinates, pixel centres at whole numbers."""
    dims = len(patch_shape)
    axes = [np.arange(size, dtype=np.float32) - (size - 1) / 2 for size in patch_shape]
    places = np.empty((dims, *patch_shape), dtype=np.float32)
    for row in range(dims):
        # Offsets of each axis are added by broadcasting: no matrix product over all pixels.
        total: np.ndarray | float = float(centre[row]) - 0.5 + float(warp.shift[row])
        for column, axis in enumerate(axes):
            shape = [-1 if a == column else 1 for a in range(dims)]
            total = total + (np.float32(warp.matrix[row, column]) * axis).reshape(shape)
        places[row] = total
    if warp.elastic is not None:
        places += _spread(warp.elastic, patch_shape)
    return places


def _spread(coarse: np.ndarray, patch_shape: Sequence[int]) -> np.ndarray:
    """Displacements of the coarse grid at every pixel, cubic in 2D, linear in 3D."""
    values = torch.from_numpy(coarse.astype(np.float32))[None]
    mode = "bicubic" if len(patch_shape) == 2 else "trilinear"
    fine = functional.interpolate(values, size=tuple(patch_shape), mode=mode, align_corners=True)
    return fine[0].numpy()


def _sample(
    part: np.ndarray, places: np.ndarray, interpolation: Literal["linear", "cubic"]
) -> np.ndarray:
    """The values of part (C, *S) at places (D, *P), in pixels."""
    shape = np.asarray(part.shape[1:]).reshape(-1, *[1] * len(places))
    # grid_sample wants (x, y, z), -1 and 1 at the outer edges of the outer pixels.
    scaled = ((2 * places + 1) / shape - 1)[::-1].astype(np.float32)
    grid = torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled, 0, -1)))
    sampled = functional.grid_sample(
        torch.from_numpy(part)[None],
        grid[None],
        mode="bicubic" if interpolation == "cubic" and len(places) == 2 else "bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    return sampled[0].contiguous().numpy()


def _cut_straight(
    image: np.ndarray,
    classes: np.ndarray | None,
    centre: Sequence[float],
    patch_shape: Sequence[int],
    warp: Warp,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The patch by indexing alone: bit for bit what the file holds."""
    window = []
    for axis, (middle, size) in enumerate(zip(centre, patch_shape, strict=True)):
        places = _mirror(np.arange(size) + math.floor(middle - size / 2), image.shape[axis + 1])
        window.append(places[::-1] if warp.matrix[axis, axis] < 0 else places)
    chosen: Any = np.ix_(*window)
    patch = np.ascontiguousarray(image[(slice(None), *chosen)], dtype=np.float32)
    return patch, None if classes is None else np.ascontiguousarray(classes[chosen])


def _mirror(places: np.ndarray, size: int) -> np.ndarray:
    """Indices beyond the edges, mirrored about the outer pixels' centres, into 0 .. size - 1."""
    if size == 1:
        return np.zeros_like(places)
    period = 2 * (size - 1)
    folded = np.abs(places) % period
    return np.where(folded < size, folded, period - folded)


def _rotation(angle: float, dims: int) -> np.ndarray:
    """Turns the last two axes."""
    matrix = np.eye(dims)
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix[-2:, -2:] = [[cosine, -sine], [sine, cosine]]
    return matrix
