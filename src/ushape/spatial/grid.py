"""Resampling and padding. Arrays in, arrays out; images (C, *S), classes (*S)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from ushape.labels import IGNORE


def resample_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An image on another grid: averages over areas where smaller, linear where larger.

    Integers are rounded back to their dtype; floats come out as float32.

    Shapes:
        image: (C, *S) -> (C, *shape).
    """
    is_integer = np.issubdtype(image.dtype, np.integer)
    if tuple(image.shape[1:]) == tuple(shape):
        return image if is_integer else image.astype(np.float32, copy=False)
    result = _shrink(image.astype(np.float32, order="C"), shape)
    if result.shape[1:] != tuple(shape):
        result = resample_probabilities(result, shape)
    if is_integer:
        limits = np.iinfo(image.dtype)
        return np.rint(result).clip(limits.min, limits.max).astype(image.dtype)
    return result


def resample_probabilities(probabilities: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Probabilities on another grid, linear.

    Shapes:
        probabilities: (K, *S) -> (K, *shape) float32.
    """
    # torch warns of memory that it may not write to, such as a file mapped for reading.
    values = np.require(probabilities, dtype=np.float32, requirements=["C", "W"])
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return functional.interpolate(
        torch.from_numpy(values)[None], size=tuple(shape), mode=mode, align_corners=False
    )[0].numpy()


def resample_classes(classes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Class indices on another grid: the class of the largest area, the lower one if equal.

    Along an axis that grows, the nearest pixel's. IGNORE where more than half is ignored.

    Shapes:
        classes: (*S) -> (*shape), the same dtype.
    """
    for axis, new in enumerate(shape):
        old = classes.shape[axis]
        if new > old:
            classes = classes.take((2 * np.arange(new) + 1) * old // (2 * new), axis=axis)
    if classes.shape == tuple(shape):
        return classes
    best = np.zeros(tuple(shape), dtype=np.float32)
    result = np.zeros(tuple(shape), dtype=classes.dtype)
    for value in np.unique(classes):  # Rising, so IGNORE comes last.
        share = _shrink((classes == value)[None].astype(np.float32), shape)[0]
        # Sums of areas are not exact: equal ones must not be told apart by their last digit.
        wins = share > (0.5 if value == IGNORE else best) + 1e-6
        result[wins] = value
        best[wins] = share[wins]
    return result


def pad_mirrored(array: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Mirrors the edges outwards, again and again where the padding is longer than the image.

    Shapes:
        array: (C, *S); before, after: pixels along each axis of S, at least 0.
    """
    if not any(before) and not any(after):
        return array
    widths = [(0, 0), *zip(before, after, strict=True)]
    return np.pad(array, widths, mode="reflect")


def _shrink(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Averages (C, *S) float32 over areas, along the axes where `shape` is smaller."""
    sizes = image.shape[1:]
    whole = [new if old % new == 0 else old for old, new in zip(sizes, shape, strict=True)]
    if tuple(whole) != sizes:
        pooled = functional.interpolate(torch.from_numpy(image)[None], size=whole, mode="area")
        image = pooled[0].numpy()
    # torch's "area" bins whole pixels only: from 1918 to 480, it is off by up to half a pixel.
    for axis, new in enumerate(shape, start=1):
        if new < image.shape[axis]:
            image = _average_along(image, axis, new)
    return image


def _average_along(image: np.ndarray, axis: int, new: int) -> np.ndarray:
    """Means over `new` equal stretches of an axis; a pixel cut in two counts in parts."""
    old = image.shape[axis]
    edges = np.arange(new + 1) * old / new
    starts, ends = edges[:-1], edges[1:]
    first, last = np.floor(starts).astype(int), np.ceil(ends).astype(int) - 1
    column = [-1 if a == axis else 1 for a in range(image.ndim)]
    total = np.zeros([new if a == axis else s for a, s in enumerate(image.shape)], np.float32)
    for tap in range(int((last - first).max()) + 1):
        pixel = first + tap
        length = (np.minimum(ends, pixel + 1) - np.maximum(starts, pixel)).clip(min=0)
        weight = (length * new / old).astype(np.float32).reshape(column)
        # Where the stretch has ended, its last pixel counts 0 times: a NaN next door stays there.
        total += weight * image.take(np.minimum(pixel, last), axis=axis)
    return total
