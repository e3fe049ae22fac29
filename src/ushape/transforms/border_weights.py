"""The border weight map: background between two near objects counts more."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError, DataError
from ushape.labels import IGNORE

NEGLIGIBLE = 1e-6
"""A border weight below this is left out."""

NEAR = 8
"""Pixels. Where objects are dense, two of them are nearly everywhere nearer than this, and the
small windows around each object are enough."""


def find_objects(classes: np.ndarray) -> np.ndarray:
    """Connected foreground of a class mask, as ids from 1; 0 is background.

    Sides connect, corners do not (4 neighbors in 2D, 6 in 3D): cells are often parted by a line
    one pixel wide, and across a slanting one they meet at corners. Ignored pixels belong to none.

    Shapes:
        classes: (*S) class indices -> (*S) int32.
    """
    ids, _ = ndimage.label((classes > 0) & (classes != IGNORE))
    return np.asarray(ids, dtype=np.int32)


def separate_touching(objects: np.ndarray) -> np.ndarray:
    """A background line between objects that touch, corners included, as in the paper.

    The line is taken from both sides: a pixel next to another object's becomes background.

    Shapes:
        objects: (*S) integer ids, 0 background -> the same, dtype too, without touching neighbors.

    Raises:
        DataError: the ids are not integers.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, section 3.
    """
    ids = _without_gaps(objects)
    size = (3,) * ids.ndim
    highest = ndimage.maximum_filter(ids, size=size, mode="nearest")
    # The lowest object nearby: background must not count as the lowest, so it stands as the top.
    lowest = ndimage.minimum_filter(
        np.where(ids == 0, ids.max(initial=0), ids), size=size, mode="nearest"
    )
    return np.where((ids > 0) & (highest == lowest), objects, objects.dtype.type(0))


def border_weights(objects: np.ndarray, *, w0: float, sigma: float) -> np.ndarray:
    """w0 exp(-(d1 + d2)^2 / (2 sigma^2)) on background, d1 and d2 the Euclidean distances to
    the two nearest objects; 0 on objects, and where there are fewer than two.

    Each object's distances are computed only as far as they matter: as far as `NEAR`, then,
    for pixels without two objects so near, as far as the weight is above `NEGLIGIBLE`.

    Args:
        objects: Ids, 0 background. Touching ones stay as they are, with no background between
            them to weigh: call `separate_touching` before.
        w0: Largest weight, at least 0; 0 switches it off.
        sigma: Pixels, above 0.

    Shapes:
        objects: (*S) integer -> (*S) float32.

    Raises:
        ConfigError: w0 or sigma is out of range.
        DataError: the ids are not integers.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, equation 2.
    """
    _check_curve(w0, sigma)
    ids = _without_gaps(objects)
    if w0 <= NEGLIGIBLE:
        return np.zeros(objects.shape, dtype=np.float32)
    reach = math.ceil(sigma * math.sqrt(2 * math.log(w0 / NEGLIGIBLE)))
    nearest, second = _two_nearest(ids, min(NEAR, reach), ids == 0)
    open_pixels = (ids == 0) & (second > NEAR)
    if reach > NEAR and open_pixels.any():
        far_nearest, far_second = _two_nearest(ids, reach, open_pixels)
        nearest = np.where(open_pixels, far_nearest, nearest)
        second = np.where(open_pixels, far_second, second)
    weights = w0 * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma**2))
    return np.where(ids == 0, weights, 0).astype(np.float32)


def _check_curve(w0: float, sigma: float) -> None:
    if not 0 <= w0 < math.inf:
        raise ConfigError(
            f"w0 is {w0}, no number from 0 up.", hint="The paper has 10; 0 is no border."
        )
    if not 0 < sigma < math.inf:
        raise ConfigError(f"sigma is {sigma}, no number above 0.", hint="The paper has 5 pixels.")


def _without_gaps(objects: np.ndarray) -> np.ndarray:
    """Ids 0 to n, 0 staying background."""
    if not np.issubdtype(objects.dtype, np.integer):
        raise DataError(
            f"Objects are {objects.dtype}, not integer ids.",
            hint="`find_objects` makes ids of a mask.",
        )
    if objects.min(initial=0) >= 0 and objects.max(initial=0) < 1 << 20:
        is_object = np.bincount(objects.ravel().astype(np.intp), minlength=1) > 0
        is_object[0] = False
        ranks = objects
    else:  # Sorts, ten times as slow.
        values, ranks = np.unique(objects, return_inverse=True)
        is_object = values != 0
    numbers = np.where(is_object, np.cumsum(is_object), 0)
    return np.asarray(numbers[ranks]).reshape(objects.shape)


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
