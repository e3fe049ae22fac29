"""Geometric augmentation: flips, rotation, scaling, shift and elastic deformation in one warp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from ushape.errors import ConfigError, check_range
from ushape.transforms.resampling import mirror_indices

POINT_DISTANCE_SIGMAS = 4.5
"""Smallest distance between points of the elastic grid, in standard deviations of a displacement.
The image folds where the displacements of two neighbors differ by more than their distance; at this
distance, that happens to 0.15% of the pairs."""


@dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """How patches are deformed."""

    RENAMED: ClassVar = {"quarter_turn_probability": "rotate90_probability"}

    flip_axes: tuple[int, ...] = ()
    """Axes of S that are mirrored, each with a probability of 0.5."""

    still_axes: tuple[int, ...] = ()
    """Axes of S that are only mirrored and shifted, because voxels are much longer along them than
    along the other axes, which are rotated, scaled and deformed within each slice."""

    transpose_probability: float = 0.0
    """Probability of exchanging the last two axes, except for still ones."""

    rotate90_probability: float = 0.0
    """Probability of a rotation by 90, 180 or 270 degrees in the plane of the last two axes, except
    for still ones."""

    rotation_degrees: float = 180.0
    """Largest rotation angle; drawn uniformly from -angle to angle, in the plane of the last two
    axes, except for still ones."""

    rotation_probability: float = 0.5
    """Probability of a rotation."""

    scale: float = 0.25
    """Largest relative change of size: factors from 1 / (1 + scale) to 1 + scale."""

    scale_probability: float = 0.3
    """Probability of a change of size."""

    shift_fraction: float = 0.0
    """Largest shift, as a fraction of the patch size. It is rarely needed, since patches are drawn
    at random positions."""

    elastic_px: float = 8.0
    """Standard deviation of the elastic displacements on a coarse grid, in pixels; it is reduced
    along axes on which the grid points are so close that the image would fold."""

    elastic_grid: int = 4
    """Number of points of the coarse grid along each axis (3 in the U-Net paper)."""

    elastic_sigma_px: float | None = None
    """Standard deviation, in pixels, of a Gaussian that smooths displacements drawn uniformly at
    every pixel, from -elastic_px to elastic_px (Simard et al. 2003: alpha is elastic_px); null:
    displacements on a coarse grid."""

    elastic_probability: float = 0.2
    """Probability of an elastic deformation."""

    interpolation: Literal["linear", "cubic"] = "linear"
    """Interpolation of the image; volumes are always interpolated linearly."""

    def __post_init__(self) -> None:
        for name in ("transpose", "rotate90", "rotation", "scale", "elastic"):
            name = f"{name}_probability"
            check_range(f"augment.geometry.{name}", getattr(self, name), 0, 1)
        hint = "The value is the largest amount in both directions; 0 disables it."
        for name in ("rotation_degrees", "scale", "shift_fraction", "elastic_px"):
            check_range(f"augment.geometry.{name}", getattr(self, name), 0, hint=hint)
        check_range("augment.geometry.elastic_grid", self.elastic_grid, 2, hint="The paper uses 3.")
        if self.elastic_sigma_px is not None and not self.elastic_sigma_px > 0:
            raise ConfigError(
                f"augment.geometry.elastic_sigma_px is {self.elastic_sigma_px}; it must be above "
                "0.",
                code="value_out_of_range",
                hint="Omit it for displacements on a coarse grid.",
            )


@dataclass(frozen=True)
class Warp:
    """Mapping from the pixels of a patch to positions in the image, relative to their centers."""

    matrix: np.ndarray
    """(D, D): maps an offset in the patch to an offset in the image, in pixels."""

    shift: np.ndarray
    """(D,) shift in pixels, added to the mapped offset."""

    elastic: np.ndarray | None
    """(D, g, ..., g) displacements in pixels on a coarse grid over the patch, or at each pixel."""

    interpolation: Literal["linear", "cubic"]

    @property
    def is_grid_aligned(self) -> bool:
        """Whether pixels are only moved: by flips, rotations by 90 degrees and integer shifts."""
        turns = np.rint(self.matrix)
        return (
            self.elastic is None
            and np.array_equal(self.shift, np.rint(self.shift))
            # A sine of half a turn is 1e-16, not 0.
            and np.allclose(self.matrix, turns, rtol=0, atol=1e-9)
            and np.array_equal(np.abs(turns) @ np.abs(turns).T, np.eye(len(turns)))
        )

    @property
    def is_planar(self) -> bool:
        """Whether all planes across the first of three axes are deformed in the same way."""
        mixed = self.matrix[0, 1:].any() or self.matrix[1:, 0].any()
        return len(self.matrix) == 3 and self.elastic is None and not mixed


def draw_warp(config: GeometryConfig, patch_shape: Sequence[int], rng: np.random.Generator) -> Warp:
    """Draw a warp. It always takes the same number of random numbers from the generator.

    Raises:
        ConfigError: if flip_axes or still_axes names an axis that the patch does not have.
    """
    dims = len(patch_shape)
    for name in ("flip_axes", "still_axes"):
        if not all(-dims <= axis < dims for axis in getattr(config, name)):
            raise ConfigError(
                f"augment.geometry.{name} is {getattr(config, name)}, but the patches have {dims} "
                "axes.",
                code="unknown_axis",
                hint="Axes are counted from 0: y, x in images; z, y, x in volumes.",
            )
    moving = [axis for axis in range(dims) if not {axis, axis - dims} & {*config.still_axes}]
    plane = moving[-2:] if len(moving) > 1 else []
    matrix = _draw_symmetry(config, dims, plane, rng)
    turn, scale, shift = rng.random(2), rng.random(2), rng.uniform(-1, 1, dims)
    if turn[0] < config.rotation_probability:
        angle = math.radians((2 * turn[1] - 1) * config.rotation_degrees)
        matrix = _rotation(angle, dims, plane) @ matrix
    if scale[0] < config.scale_probability:
        # To enlarge the image, positions are moved closer to the center.
        matrix[moving] = matrix[moving] / (1 + config.scale) ** (2 * scale[1] - 1)
    elastic = _draw_elastic(config, patch_shape, rng)
    if elastic is not None:
        elastic[[axis for axis in range(dims) if axis not in moving]] = 0
    return Warp(
        matrix=matrix,
        shift=config.shift_fraction * shift * np.asarray(patch_shape),
        elastic=elastic,
        interpolation=config.interpolation,
    )


def _draw_symmetry(
    config: GeometryConfig, dims: int, plane: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Draw mirrored axes, transposition and rotation by 90 degrees in a plane, (D, D)."""
    flips, transpose, turn = rng.random(dims), rng.random(), rng.random()
    quarters = int(rng.integers(1, 4))
    matrix = np.eye(dims)
    for axis in config.flip_axes:
        if flips[axis] < 0.5:
            matrix[axis, axis] = -1
    if transpose < config.transpose_probability:
        matrix[plane] = matrix[plane[::-1]]
    if turn < config.rotate90_probability:
        matrix = np.rint(_rotation(quarters * math.pi / 2, dims, plane)) @ matrix
    return matrix


def _draw_elastic(
    config: GeometryConfig, patch_shape: Sequence[int], rng: np.random.Generator
) -> np.ndarray | None:
    """Draw displacements (D, g, ..., g) on a coarse grid, or smoothed (D, *patch_shape)."""
    own = np.random.default_rng(rng.integers(2**63))
    if rng.random() >= config.elastic_probability or config.elastic_px == 0:
        return None
    dims = len(patch_shape)
    if config.elastic_sigma_px is None:
        distances = (np.asarray(patch_shape) - 1) / (config.elastic_grid - 1)
        sigma = np.minimum(config.elastic_px, distances / POINT_DISTANCE_SIGMAS)
        drawn = own.normal(0, 1, (dims, *[config.elastic_grid] * dims))
        return drawn * sigma.reshape(-1, *[1] * dims)
    drawn = own.uniform(-1, 1, (dims, *patch_shape)).astype(np.float32)
    blur = [0.0, *[config.elastic_sigma_px] * dims]
    return config.elastic_px * np.asarray(ndimage.gaussian_filter(drawn, blur, mode="reflect"))


def _rotation(angle: float, dims: int, plane: Sequence[int]) -> np.ndarray:
    """Return the matrix that rotates two axes; the unit matrix for an empty plane."""
    matrix = np.eye(dims)
    if plane:
        cosine, sine = math.cos(angle), math.sin(angle)
        matrix[np.ix_(plane, plane)] = [[cosine, -sine], [sine, cosine]]
    return matrix


def cut(
    image: np.ndarray,
    label_map: np.ndarray | None,
    center: Sequence[float],
    patch_shape: Sequence[int],
    warp: Warp,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cut a warped patch; only the part of the image that it shows is read.

    Args:
        center: Position in pixels; an unwarped patch begins at center - patch_shape / 2.

    Shapes:
        image: (C, *S), any type -> (C, *patch_shape) float32.
        label_map: (*S) uint8 -> (*patch_shape) uint8, without new values.
    """
    maps = () if label_map is None else (label_map,)
    patch, found = cut_together(image, maps, center, patch_shape, warp)
    return patch, found[0] if found else None


def cut_together(
    image: np.ndarray,
    label_maps: Sequence[np.ndarray],
    center: Sequence[float],
    patch_shape: Sequence[int],
    warp: Warp,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cut a warped patch of an image and of several label maps, as `cut` does for one.

    Shapes:
        image: (C, *S), any type -> (C, *patch_shape) float32.
        label_maps: (*S) integers below 2^24 each -> (*patch_shape) of the same type.
    """
    if warp.is_grid_aligned:
        return _cut_straight(image, label_maps, center, patch_shape, warp)
    # Relative to an integer position nearby: far from 0, float32 would lose the fractions.
    middle = np.asarray(center) - 0.5 + warp.shift
    origin = np.floor(middle).astype(int)
    places = _find_places(middle - origin, patch_shape, warp)
    flat = places.reshape(len(places), -1)
    # Cubic interpolation uses one pixel before and two after; one more for rounding.
    lows = np.floor(flat.min(axis=1)).astype(int) - 2
    highs = np.ceil(flat.max(axis=1)).astype(int) + 3
    grid = _scale_to_box(places, lows, highs)
    sample = _sample_planes if warp.is_planar else _sample

    is_cubic = warp.interpolation == "cubic" and len(patch_shape) == 2
    part = _take_box(image, origin + lows, origin + highs)
    patch = sample(part, grid, "bicubic" if is_cubic else "bilinear")
    found = []
    for label_map in label_maps:
        part = _take_box(label_map, origin + lows, origin + highs)[None]
        found.append(sample(part, grid, "nearest")[0].astype(label_map.dtype))
    return patch, found


def _find_places(middle: Sequence[float], patch_shape: Sequence[int], warp: Warp) -> np.ndarray:
    """Return the source position of each pixel, (D, *patch_shape) float32, around `middle`."""
    dims = len(patch_shape)
    axes = [np.arange(size, dtype=np.float32) - (size - 1) / 2 for size in patch_shape]
    places = np.empty((dims, *patch_shape), dtype=np.float32)
    for row in range(dims):
        # The offsets of the axes are added by broadcasting, which avoids a matrix product.
        total: np.ndarray | float = float(middle[row])
        for column, axis in enumerate(axes):
            shape = [-1 if a == column else 1 for a in range(dims)]
            total = total + (np.float32(warp.matrix[row, column]) * axis).reshape(shape)
        places[row] = total
    if warp.elastic is not None:
        places += _interpolate_displacements(warp.elastic, patch_shape)
    return places


def _interpolate_displacements(coarse: np.ndarray, patch_shape: Sequence[int]) -> np.ndarray:
    """Interpolate displacements (D, g, ..., g) of a coarse grid at every pixel, cubic.

    Matrix products along one axis after the other are about 25 times faster than interpolating
    each pixel.
    """
    fine = coarse.astype(np.float32)
    if fine.shape[1:] == tuple(patch_shape):
        return fine
    for size in patch_shape:
        # Each product moves one fine axis to the end, so that they are finally in order again.
        # Without BLAS, which would start all its threads for a small product.
        fine = np.einsum("da...,sa->d...s", fine, _cubic_weights(fine.shape[1], size))
    return fine


def _cubic_weights(points: int, size: int) -> np.ndarray:
    """Return the weight of each coarse point in each pixel, (size, points)."""
    unit = torch.eye(points)[None, None]
    weights = functional.interpolate(unit, size=(size, points), mode="bicubic", align_corners=True)
    return weights[0, 0].numpy()


def _scale_to_box(places: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> torch.Tensor:
    """Return positions (*P, D) as in grid_sample: (x, y, z), -1 and 1 at the edges of the box."""
    grid = np.empty((*places.shape[1:], len(places)), dtype=np.float32)
    for axis, place in enumerate(places):
        low, size = int(lows[axis]), int(highs[axis] - lows[axis])
        column = grid[..., -1 - axis]
        np.multiply(place, 2 / size, out=column)
        column += (1 - 2 * low) / size - 1
    return torch.from_numpy(grid)


def _sample(
    part: np.ndarray, grid: torch.Tensor, mode: Literal["nearest", "bilinear", "bicubic"]
) -> np.ndarray:
    """Sample part (C, *S) at the positions of the grid, (C, *P) float32."""
    values = torch.from_numpy(np.array(part, dtype=np.float32, order="C"))
    sampled = functional.grid_sample(
        values[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )
    return sampled[0].contiguous().numpy()


def _sample_planes(
    part: np.ndarray, grid: torch.Tensor, mode: Literal["nearest", "bilinear", "bicubic"]
) -> np.ndarray:
    """Sample a volume (C, *S) as `_sample`, at the positions of a planar warp.

    PyTorch samples the planes as channels of an image several times as fast as a volume.
    """
    places = ((grid[:, 0, 0, -1].numpy() + 1) * part.shape[1] - 1) / 2
    if mode == "nearest":
        planes = part[:, np.rint(places).astype(int)]
    else:
        lows = np.floor(places).astype(int)
        planes = part[:, lows].astype(np.float32)
        planes += (places - lows)[:, None, None] * (part[:, lows + 1] - planes)
    sampled = _sample(planes.reshape(-1, *planes.shape[2:]), grid[0, ..., :2], mode)
    return sampled.reshape(*planes.shape[:2], *sampled.shape[1:])


def _cut_straight(
    image: np.ndarray,
    label_maps: Sequence[np.ndarray],
    center: Sequence[float],
    patch_shape: Sequence[int],
    warp: Warp,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cut a patch by indexing, so that its pixels are exactly those of the file.

    A fractional corner is rounded down.
    """
    turns = np.rint(warp.matrix).astype(int)
    # The nonzero entry of each row tells which patch axis runs along that axis of the image.
    shown = np.abs(turns).argmax(axis=1)
    sizes = np.asarray(patch_shape)[shown]
    lows = np.floor(np.asarray(center) - sizes / 2 + warp.shift).astype(int)
    steps = tuple(slice(None, None, int(sign)) for sign in turns.sum(axis=1))
    order = (0, *(np.abs(turns).argmax(axis=0) + 1))

    def turn(box: np.ndarray) -> np.ndarray:
        return box[(slice(None), *steps)].transpose(order)

    patch = np.array(turn(_take_box(image, lows, lows + sizes)), dtype=np.float32, order="C")
    boxes = (_take_box(one, lows, lows + sizes)[None] for one in label_maps)
    return patch, [np.array(turn(box)[0], order="C") for box in boxes]


def _take_box(array: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """Return the box [lows, highs) of array (*S) or (C, *S), mirrored beyond the edges.

    It may be a view. Only one box of the array is taken, so that it may be read from a file.
    """
    dims = len(lows)
    windows = [
        mirror_indices(np.arange(low, high), size)
        for low, high, size in zip(lows, highs, array.shape[-dims:], strict=True)
    ]
    ranges = [(int(window.min()), int(window.max()) + 1) for window in windows]
    touched_box: Any = (..., *(slice(*touched) for touched in ranges))
    part: np.ndarray = array[touched_box]
    for axis, (window, touched) in enumerate(zip(windows, ranges, strict=True)):
        if touched != (lows[axis], highs[axis]):
            part = part.take(window - touched[0], axis=axis - dims)
    return part
