"""Border weight map: higher loss weights for background between two close objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError, DataError
from ushape.labels import IGNORE

NEGLIGIBLE = 1e-6
"""Border weights below this value are set to 0."""

NEAR = 8
"""Distance in pixels that is searched first. In dense images two objects are almost everywhere
closer than this, so that small windows around the objects suffice."""


def find_objects(label_map: np.ndarray) -> np.ndarray:
    """Label the connected foreground of a label map with ids from 1; 0 is background.

    Pixels are connected by their sides, not corners (4 neighbors in 2D, 6 in 3D): cells are often
    separated by a line one pixel wide, and touch at corners across a diagonal one. Ignored pixels
    do not belong to an object.

    Shapes:
        label_map: (*S) class indices -> (*S) int32.
    """
    ids, _ = ndimage.label((label_map > 0) & (label_map != IGNORE))
    return np.asarray(ids, dtype=np.int32)


def separate_touching(objects: np.ndarray) -> np.ndarray:
    """Insert a line of background between objects that touch, corners included.

    The line is taken from both objects: each pixel next to another object becomes background.

    Shapes:
        objects: (*S) integer ids, 0 background -> the same shape and type.

    Raises:
        DataError: if the ids are not integers.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, section 3.
    """
    ids = _without_gaps(objects)
    size = (3,) * ids.ndim
    highest = ndimage.maximum_filter(ids, size=size, mode="nearest")
    # Background must not count as the lowest id nearby, so it is replaced by the highest one.
    lowest = ndimage.minimum_filter(
        np.where(ids == 0, ids.max(initial=0), ids), size=size, mode="nearest"
    )
    return np.where((ids > 0) & (highest == lowest), objects, objects.dtype.type(0))


def border_weights(
    objects: np.ndarray, *, w0: float, sigma: float, lengths: Sequence[float] | None = None
) -> np.ndarray:
    """Return w0 exp(-(d1 + d2)^2 / (2 sigma^2)) on background, and 0 on objects.

    d1 and d2 are the Euclidean distances to the two nearest objects. Where there are fewer than
    two, the weight is 0. Distances are computed as far as `NEAR` first; for pixels without two
    objects that close, as far as the weight is above `NEGLIGIBLE`.

    Args:
        objects: Ids, 0 for background. Touching objects have no background between them to weight:
            call `separate_touching` first.
        w0: Largest weight, at least 0; 0 disables the weights.
        sigma: Decay length, above 0, in pixels of the axis with length 1.
        lengths: Length of a pixel along each axis of S; None: 1.

    Shapes:
        objects: (*S) integer -> (*S) float32.

    Raises:
        ConfigError: if w0 or sigma is out of range.
        DataError: if the ids are not integers.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597, equation 2.
    """
    _check_curve(w0, sigma)
    ids = _without_gaps(objects)
    if w0 <= NEGLIGIBLE:
        return np.zeros(objects.shape, dtype=np.float32)
    reach = math.ceil(sigma * math.sqrt(2 * math.log(w0 / NEGLIGIBLE)))
    nearest, second = _two_nearest(ids, min(NEAR, reach), ids == 0, lengths)
    open_pixels = (ids == 0) & (second > NEAR)
    if reach > NEAR and open_pixels.any():
        far_nearest, far_second = _two_nearest(ids, reach, open_pixels, lengths)
        nearest = np.where(open_pixels, far_nearest, nearest)
        second = np.where(open_pixels, far_second, second)
    weights = w0 * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma**2))
    return np.where(ids == 0, weights, 0).astype(np.float32)


def _check_curve(w0: float, sigma: float) -> None:
    if not 0 <= w0 < math.inf:
        raise ConfigError(
            f"w0 is {w0}; it must be a number of at least 0.",
            code="value_out_of_range",
            hint="The paper uses 10; 0 disables the border weights.",
        )
    if not 0 < sigma < math.inf:
        raise ConfigError(
            f"sigma is {sigma}; it must be a number above 0.",
            code="value_out_of_range",
            hint="The paper uses 5 pixels.",
        )


def _without_gaps(objects: np.ndarray) -> np.ndarray:
    """Renumber ids to 0 to n; 0 stays background."""
    if not np.issubdtype(objects.dtype, np.integer):
        raise DataError(
            f"The objects have type {objects.dtype}; ids must be integers.",
            code="unsupported_values",
            hint="Use `find_objects` to get ids from a label map.",
        )
    if objects.min(initial=0) >= 0 and objects.max(initial=0) < 1 << 20:
        is_object = np.bincount(objects.ravel().astype(np.intp), minlength=1) > 0
        is_object[0] = False
        ranks = objects
    else:  # Sorting is ten times slower.
        values, ranks = np.unique(objects, return_inverse=True)
        is_object = values != 0
    numbers = np.where(is_object, np.cumsum(is_object), 0)
    return np.asarray(numbers[ranks]).reshape(objects.shape)


def _two_nearest(
    ids: np.ndarray, reach: int, requested: np.ndarray, lengths: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances to the two nearest objects, exact where requested and within reach.

    Args:
        ids: (*S) 0 to n without gaps.
        reach: Largest distance, in pixels of the axis with length 1.
        requested: (*S) bool; objects that are not near any of these pixels are skipped.
    """
    lengths = lengths or (1.0,) * ids.ndim
    steps = [math.ceil(reach / length) for length in lengths]
    nearest = np.full(ids.shape, np.inf, dtype=np.float32)
    second = nearest.copy()
    for index, box in enumerate(ndimage.find_objects(ids), start=1):
        window = tuple(
            slice(max(0, edge.start - step), edge.stop + step)
            for edge, step in zip(box, steps, strict=True)
        )
        if not requested[window].any():
            continue
        distance = ndimage.distance_transform_edt(ids[window] != index, sampling=lengths)
        distance = distance.astype(np.float32)
        closest = nearest[window]
        np.minimum(second[window], np.maximum(closest, distance), out=second[window])
        np.minimum(closest, distance, out=closest)
    return nearest, second
