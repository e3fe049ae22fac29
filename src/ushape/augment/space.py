"""A warped patch of an image: one interpolation, images linear or cubic, masks nearest.

Both are read at the same coordinates. Beyond the edges the image is mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from ushape.augment.warp import Warp


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
    if warp.is_grid_aligned:
        return _cut_straight(image, classes, centre, patch_shape, warp)
    # Measured from a whole pixel nearby: far from 0, float32 would lose the fractions.
    middle = np.asarray(centre) - 0.5 + warp.shift
    origin = np.floor(middle).astype(int)
    places = _find_places(middle - origin, patch_shape, warp)
    flat = places.reshape(len(places), -1)
    # Cubic interpolation looks at one pixel before and two after; one more for rounding.
    lows = np.floor(flat.min(axis=1)).astype(int) - 2
    highs = np.ceil(flat.max(axis=1)).astype(int) + 3
    grid = _scale_to_box(places, lows, highs)

    is_cubic = warp.interpolation == "cubic" and len(patch_shape) == 2
    part = _take_box(image, origin + lows, origin + highs)
    patch = _sample(part, grid, "bicubic" if is_cubic else "bilinear")
    if classes is None:
        return patch, None
    part = _take_box(classes[None], origin + lows, origin + highs)
    return patch, _sample(part, grid, "nearest")[0].astype(classes.dtype)


def _find_places(middle: Sequence[float], patch_shape: Sequence[int], warp: Warp) -> np.ndarray:
    """(D, *patch_shape) float32, where each pixel comes from; the patch's centre from `middle`."""
    dims = len(patch_shape)
    axes = [np.arange(size, dtype=np.float32) - (size - 1) / 2 for size in patch_shape]
    places = np.empty((dims, *patch_shape), dtype=np.float32)
    for row in range(dims):
        # Offsets of each axis are added by broadcasting: no matrix product over all pixels.
        total: np.ndarray | float = float(middle[row])
        for column, axis in enumerate(axes):
            shape = [-1 if a == column else 1 for a in range(dims)]
            total = total + (np.float32(warp.matrix[row, column]) * axis).reshape(shape)
        places[row] = total
    if warp.elastic is not None:
        places += _spread(warp.elastic, patch_shape)
    return places


def _spread(coarse: np.ndarray, patch_shape: Sequence[int]) -> np.ndarray:
    """Displacements (D, g, ..., g) of the coarse grid at every pixel, cubic.

    An axis at a time, as matrix products: some 25 times as fast as interpolating all pixels.
    """
    fine = coarse.astype(np.float32)
    if fine.shape[1:] == tuple(patch_shape):
        return fine
    for size in patch_shape:
        # Each product moves one fine axis to the end: after all, they are in order again.
        # Not by BLAS, which would wake all its threads for so little.
        fine = np.einsum("da...,sa->d...s", fine, _cubic_weights(fine.shape[1], size))
    return fine


def _cubic_weights(points: int, size: int) -> np.ndarray:
    """(size, points) share of each coarse point in each pixel; outer points on outer pixels."""
    unit = torch.eye(points)[None, None]
    weights = functional.interpolate(unit, size=(size, points), mode="bicubic", align_corners=True)
    return weights[0, 0].numpy()


def _scale_to_box(places: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> torch.Tensor:
    """(*P, D) as grid_sample wants it: (x, y, z), -1 and 1 at the outer edges of the box."""
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
    """The values of part (C, *S) at the places of the grid, (C, *P) float32."""
    values = torch.from_numpy(np.array(part, dtype=np.float32, order="C"))
    sampled = functional.grid_sample(
        values[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )
    return sampled[0].contiguous().numpy()


def _cut_straight(
    image: np.ndarray,
    classes: np.ndarray | None,
    centre: Sequence[float],
    patch_shape: Sequence[int],
    warp: Warp,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The patch by indexing alone: bit for bit what the file holds.

    A corner between pixels is moved down to the next whole one.
    """
    turns = np.rint(warp.matrix).astype(int)
    # Row: axis of the image; its entry that is not 0: the patch's axis that runs along it.
    shown = np.abs(turns).argmax(axis=1)
    sizes = np.asarray(patch_shape)[shown]
    lows = np.floor(np.asarray(centre) - sizes / 2 + warp.shift).astype(int)
    steps = tuple(slice(None, None, int(sign)) for sign in turns.sum(axis=1))
    order = (0, *(np.abs(turns).argmax(axis=0) + 1))

    def turn(array: np.ndarray) -> np.ndarray:
        return _take_box(array, lows, lows + sizes)[(slice(None), *steps)].transpose(order)

    patch = np.array(turn(image), dtype=np.float32, order="C")
    return patch, None if classes is None else np.array(turn(classes[None])[0], order="C")


def _take_box(array: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """The box [lows, highs) of array (C, *S), mirrored beyond the edges; a view where inside."""
    windows = [
        _mirror(np.arange(low, high), size)
        for low, high, size in zip(lows, highs, array.shape[1:], strict=True)
    ]
    ranges = [(int(window.min()), int(window.max()) + 1) for window in windows]
    part = array[(slice(None), *(slice(*touched) for touched in ranges))]
    for axis, (window, touched) in enumerate(zip(windows, ranges, strict=True)):
        if touched != (lows[axis], highs[axis]):
            part = part.take(window - touched[0], axis=axis + 1)
    return part


def _mirror(places: np.ndarray, size: int) -> np.ndarray:
    """Indices beyond the edges, mirrored about the outer pixels' centres, into 0 .. size - 1."""
    if size == 1:
        return np.zeros_like(places)
    period = 2 * (size - 1)
    folded = np.abs(places) % period
    return np.where(folded < size, folded, period - folded)
