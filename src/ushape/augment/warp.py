"""Which way a patch is bent: flips, turns, scale, shift and elastic deformation as one warp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SpaceConfig:
    """How patches are deformed."""

    flip_axes: tuple[int, ...] = ()
    """Axes of S that are mirrored in half of the patches."""

    transpose_probability: float = 0.0
    """Of exchanging the last two axes."""

    quarter_turn_probability: float = 0.0
    """Of 1, 2 or 3 quarter turns in the plane of the last two axes, each as likely."""

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

    elastic_sigma_px: float | None = None
    """Where given, displacements are drawn at every pixel instead, evenly from -elastic_px to
    elastic_px, and smoothed by a Gaussian of this standard deviation (Simard et al. 2003: alpha
    is elastic_px)."""

    elastic_probability: float = 0.2

    interpolation: Literal["linear", "cubic"] = "linear"
    """Of the image; volumes are always linear."""

    def __post_init__(self) -> None:
        for name in (
            "transpose_probability",
            "quarter_turn_probability",
            "rotation_probability",
            "scale_probability",
            "elastic_probability",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"augment.space.{name} is {getattr(self, name)}, outside [0, 1].",
                    hint="0 switches it off.",
                )
        for name in ("rotation_degrees", "scale", "shift_fraction", "elastic_px"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"augment.space.{name} is {getattr(self, name)}, below 0.",
                    hint="It is the largest amount, drawn to both sides. 0 switches it off.",
                )
        if self.elastic_sigma_px is not None and not self.elastic_sigma_px > 0:
            raise ConfigError(
                f"augment.space.elastic_sigma_px is {self.elastic_sigma_px}.",
                hint="Above 0 pixels; leave it out for displacements on a coarse grid.",
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
    """(D, g, ..., g) pixels, displacements on a coarse grid over the patch, or at each pixel."""

    interpolation: Literal["linear", "cubic"]

    @property
    def is_grid_aligned(self) -> bool:
        """Flips, quarter turns and whole shifts: pixels are moved, not mixed."""
        turns = np.rint(self.matrix)
        return (
            self.elastic is None
            and np.array_equal(self.shift, np.rint(self.shift))
            # A sine of half a turn is 1e-16, not 0.
            and np.allclose(self.matrix, turns, rtol=0, atol=1e-9)
            and np.array_equal(np.abs(turns) @ np.abs(turns).T, np.eye(len(turns)))
        )

    @property
    def is_identity(self) -> bool:
        """Nothing moves."""
        is_upright = np.array_equal(np.rint(self.matrix), np.eye(len(self.matrix)))
        return self.is_grid_aligned and is_upright and not self.shift.any()


def draw_warp(config: SpaceConfig, patch_shape: Sequence[int], rng: np.random.Generator) -> Warp:
    """Draws a warp; the same number of random numbers whatever comes out.

    Raises:
        ConfigError: flip_axes names an axis that the patch does not have.
    """
    dims = len(patch_shape)
    if not all(-dims <= axis < dims for axis in config.flip_axes):
        raise ConfigError(
            f"augment.space.flip_axes is {config.flip_axes}, but the patches have {dims} axes.",
            hint="Axes count from 0: y, x in images; z, y, x in volumes.",
        )
    matrix = _draw_symmetry(config, dims, rng)
    turn, scale, shift = rng.random(2), rng.random(2), rng.uniform(-1, 1, dims)
    if turn[0] < config.rotation_probability:
        angle = math.radians((2 * turn[1] - 1) * config.rotation_degrees)
        matrix = _rotation(angle, dims) @ matrix
    if scale[0] < config.scale_probability:
        # A larger image is read from closer by.
        matrix = matrix / (1 + config.scale) ** (2 * scale[1] - 1)
    return Warp(
        matrix=matrix,
        shift=config.shift_fraction * shift * np.asarray(patch_shape),
        elastic=_draw_elastic(config, patch_shape, rng),
        interpolation=config.interpolation,
    )


def _draw_symmetry(config: SpaceConfig, dims: int, rng: np.random.Generator) -> np.ndarray:
    """(D, D): mirrored axes, transposition, quarter turns."""
    flips, transpose, turn = rng.random(dims), rng.random(), rng.random()
    quarters = int(rng.integers(1, 4))
    matrix = np.eye(dims)
    for axis in config.flip_axes:
        if flips[axis] < 0.5:
            matrix[axis, axis] = -1
    if transpose < config.transpose_probability:
        matrix[[-2, -1]] = matrix[[-1, -2]]
    if turn < config.quarter_turn_probability:
        matrix = np.rint(_rotation(quarters * math.pi / 2, dims)) @ matrix
    return matrix


def _draw_elastic(
    config: SpaceConfig, patch_shape: Sequence[int], rng: np.random.Generator
) -> np.ndarray | None:
    """Displacements (D, g, ..., g) on a coarse grid, or (D, *patch_shape) where smoothed."""
    own = np.random.default_rng(rng.integers(2**63))
    if rng.random() >= config.elastic_probability or config.elastic_px == 0:
        return None
    dims = len(patch_shape)
    if config.elastic_sigma_px is None:
        return own.normal(0, config.elastic_px, (dims, *[config.elastic_grid] * dims))
    drawn = own.uniform(-1, 1, (dims, *patch_shape)).astype(np.float32)
    sigma = [0.0, *[config.elastic_sigma_px] * dims]
    return config.elastic_px * np.asarray(ndimage.gaussian_filter(drawn, sigma, mode="reflect"))


def _rotation(angle: float, dims: int) -> np.ndarray:
    """Turns the last two axes."""
    matrix = np.eye(dims)
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix[-2:, -2:] = [[cosine, -sine], [sine, cosine]]
    return matrix
