"""The border weight map: background between two near objects counts more."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from ushape.labels import IGNORE

NEGLIGIBLE = 1e-6
"""A border weight below this is left out."""

NEAR = 8
"""Pixels. Where objects are dense, two of them are nearly everywhere nearer than this, and the
small windows around each object are enough."""


def find_objects(classes: np.ndarray) -> np.ndarray:
    """Connected foreground of a class mask, as ids from 1; 0 is background.

    Pixels that touch at a corner only are two objects: so thin a line, one pixel wide, still
    separates. Ignored pixels belong to none.

    Shapes:
        classes: (*S) class indices -> (*S) int32.
    """
    ids, _ = ndimage.label((classes > 0) & (classes != IGNORE))
    return np.asarray(ids, dtype=np.int32)


def separate_touching(objects: np.ndarray) -> np.ndarray:
    """A background line between objects that touch, corners included, as in the paper.

    The line is taken from both sides: a pixel next to another object's becomes background.

    Shapes:
        objects: (*S) ids, 0 background -> the same without touching neighbours.
    """
    footprint = np.ones((3,) * objects.ndim, dtype=bool)
    highest = ndimage.maximum_filter(objects, footprint=footprint, mode="nearest")
    # The lowest object nearby: background must not count as the lowest.
    top = objects.max(initial=0) + 1
    lowest = ndimage.minimum_filter(
        np.where(objects == 0, top, objects), footprint=footprint, mode="nearest"
    )
    return np.where((objects > 0) & (highest == lowest), objects, 0)


def border_weights(objects: np.ndarray, *, w0: float, sigma: float) -> np.ndarray:
    """w0 exp(-(d1 + d2)^2 / (2 sigma^2)) on background, d1 and d2 the Euclidean distances to
    the two nearest objects; 0 on objects, and where there are fewer than two.

    Each object's distances are computed only as far as they matter: as far as `NEAR`, then,
    for pixels without two objects so near, as far as the weight is above `NEGLIGIBLE`.

    Args:
        objects: Ids, 0 background; touching ones are separated first (`separate_touching`).
        w0: Largest weight.
        sigma: Pixels.

    Shapes:
        objects: (*S) integer -> (*S) float32.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, equation 2.
    """
    if w0 <= NEGLIGIBLE:
        return np.zeros(objects.shape, dtype=np.float32)
    reach = math.ceil(sigma * math.sqrt(2 * math.log(w0 / NEGLIGIBLE)))
    ids = _without_gaps(objects)
    nearest, second = _two_nearest(ids, min(NEAR, reach), ids == 0)
    open_pixels = (ids == 0) & (second > NEAR)
    if reach > NEAR and open_pixels.any():
        far_nearest, far_second = _two_nearest(ids, reach, open_pixels)
        nearest = np.where(open_pixels, far_nearest, nearest)
        second = np.where(open_pixels, far_second, second)
    weights = w0 * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma**2))
    return np.where(objects == 0, weights, 0).astype(np.float32)


def _without_gaps(objects: np.ndarray) -> np.ndarray:
    """Ids 0 to n, 0 staying background."""
    if objects.min(initial=0) >= 0 and objects.max(initial=0) < 1 << 20:
        is_there = np.bincount(objects.ravel(), minlength=1) > 0
        is_there[0] = False
        return np.asarray(np.where(is_there, np.cumsum(is_there), 0)[objects])
    values, ids = np.unique(objects, return_inverse=True)  # Sorts, ten times as slow.
    return ids.reshape(objects.shape) + (0 if 0 in values else 1)


def _two_nearest(ids: np.ndarray, reach: int, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the two nearest objects, right where asked and not beyond the reach.

    Args:
        ids: (*S) 0 to n without gaps.
        asked: (*S) bool; objects that are near none of these pixels are left out.
    """
    nearest = np.full(ids.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    for index, box in enumerate(ndimage.find_objects(ids), start=1):
        window = tuple(slice(max(0, edge.start - reach), edge.stop + reach) for edge in box)
        if not asked[window].any():
            continue
        distance = ndimage.distance_transform_edt(ids[window] != index).astype(np.float32)
        closest = nearest[window]
        np.minimum(second[window], np.maximum(closest, distance), out=second[window])
        np.minimum(closest, distance, out=closest)
    return nearest, second
