"""Distance of pixels to the border of their object, which a network learns to separate objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def border_distance(
    objects: np.ndarray, max_distance_px: float, lengths: Sequence[float] | None = None
) -> np.ndarray:
    """Return the distance of each pixel to the border of its object, relative to the largest one.

    Distances grow up to `max_distance_px`, so that the inside of large objects has the value 1
    regardless of their shape; smaller objects are divided by their own largest distance. The edge
    of the array is no border, because objects may continue beyond it.

    The distances of all objects are computed together, one axis after the other. A pixel beyond the
    border of an object is farther away than the border itself, so it does not matter to which
    object it belongs.

    Args:
        objects: Number of the object of each pixel, at least 1, and 0 outside.
        max_distance_px: Distance from which the value is 1, in pixels of the axis with length 1.
        lengths: Length of a pixel along each axis of S; None: 1.

    Shapes:
        objects: (*S) integers -> (*S) float32, 0 outside of objects, up to 1.

    Source:
        Distances per object as in StarDist (Schmidt et al. 2018, arXiv 1806.03535) and Naylor et
        al. 2019, 10.1109/TMI.2018.2865709, who do not limit them. Axis after axis as in
        Felzenszwalb and Huttenlocher 2012, 10.4086/toc.2012.v008a019.
    """
    lengths = lengths or (1.0,) * objects.ndim
    squared = _straight_squared(objects, 0, max_distance_px, lengths)
    for axis in range(1, objects.ndim):
        straight = _straight_squared(objects, axis, max_distance_px, lengths)
        squared = np.minimum(_add_axis(squared, axis, lengths[axis]), straight)
    largest = np.zeros(int(objects.max(initial=0)) + 1, dtype=squared.dtype)
    np.maximum.at(largest, objects.ravel(), squared.ravel())
    unit = np.minimum(np.sqrt(largest, dtype=np.float32), np.float32(max_distance_px))
    unit[0] = 1
    return np.minimum(np.sqrt(squared, dtype=np.float32) / unit[objects], np.float32(1))


def _straight_squared(
    objects: np.ndarray, axis: int, max_distance_px: float, lengths: Sequence[float]
) -> np.ndarray:
    """Return the square of `_straight_distance`: float32, or integer if all lengths are 1."""
    # A distance within the array is below the sum of its sides.
    most = math.ceil(min(max_distance_px / lengths[axis], sum(objects.shape)))
    straight = _straight_distance(objects, axis, most)
    if all(length == 1 for length in lengths):
        return np.asarray(straight**2)
    return np.asarray((straight * np.float32(lengths[axis])) ** 2, dtype=np.float32)


def _straight_distance(objects: np.ndarray, axis: int, most: int) -> np.ndarray:
    """Return the distance along an axis to the nearest pixel of another object, 0 outside.

    Args:
        most: Value of larger distances.

    Shapes:
        objects: (*S) -> (*S) of the smallest type that can hold twice the square of `most`.
    """
    # The views and copies keep the order of the axes in memory, so that all operations are fast.
    labels = np.moveaxis(objects, axis, 0)
    distance = np.full_like(labels, most, dtype=np.min_scalar_type(2 * most**2))
    is_border = labels[1:] != labels[:-1]
    np.putmask(distance[1:], is_border, 1)
    np.putmask(distance[:-1], is_border, 1)
    np.putmask(distance, labels == 0, 0)
    step = 1
    while step < min(most, len(labels)):  # Twice as far each time.
        farther = distance + step
        np.minimum(distance[step:], farther[:-step], out=distance[step:])
        np.minimum(distance[:-step], farther[step:], out=distance[:-step])
        step *= 2
    return np.moveaxis(distance, 0, axis)


def _add_axis(squared: np.ndarray, axis: int, length: float) -> np.ndarray:
    """Return the smallest sum of a value and the square of its distance along an axis."""
    is_integer = squared.dtype.kind == "u"
    values = np.moveaxis(squared, axis, 0)
    smallest = values.copy(order="K")
    for step in range(1, len(values)):
        added = step**2 if is_integer else np.float32((step * length) ** 2)
        if added >= smallest.max():
            break
        farther = values + added
        np.minimum(smallest[step:], farther[:-step], out=smallest[step:])
        np.minimum(smallest[:-step], farther[step:], out=smallest[:-step])
    return np.moveaxis(smallest, 0, axis)
