"""Averages over areas of images (C, *S), which may be computed part by part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ushape.types import Box

HALF_ERROR, HALF_ERROR_SHARE = 1e-4, 5e-7
"""Largest difference from a half, absolute and as a share, that is taken for a rounding error."""


def round_to_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round back to an integer type; float32 is returned as is.

    Halves are rounded to even. So are values that a rounding error separates from a half:
    otherwise, the result would depend on the order in which areas are added up.
    """
    if not np.issubdtype(dtype, np.integer):
        return values
    limits = np.iinfo(dtype)
    halves = np.rint(2 * values) / 2
    is_half = np.abs(values - halves) <= HALF_ERROR + HALF_ERROR_SHARE * np.abs(values)
    return np.rint(np.where(is_half, halves, values)).clip(limits.min, limits.max).astype(dtype)


def pixels_beneath(edge: tuple[int, int], old: int, new: int) -> tuple[int, int]:
    """Return the first source pixel that some target pixels cover, and the one after the last.

    Args:
        edge: First of the target pixels, and the one after the last.
        old: Number of pixels of the whole source.
        new: Number of pixels of the whole target.
    """
    return edge[0] * old // new, -(-edge[1] * old // new)


def shrink_box(part: np.ndarray, box: Box, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """Compute a box of an image that shrinks, from the source pixels beneath it.

    Args:
        part: (C, *S), the source pixels given by `pixels_beneath` along each axis.
        box: Box of the target.
        old: S of the whole source.
        new: S of the whole target, no axis larger.

    Shapes:
        returns: (C, *box), of the type of the part if integer, else float32.
    """
    values = part
    for axis, (edge, source, target) in enumerate(zip(box, old, new, strict=True), start=1):
        if source != target:
            start = pixels_beneath(edge, source, target)[0]
            edges = np.arange(edge[0], edge[1] + 1) * source / target - start
            values = average_stretches(values, axis, edges, target / source)
    return round_to_type(values, part.dtype)


def average_stretches(
    image: np.ndarray, axis: int, edges: np.ndarray, per_pixel: float
) -> np.ndarray:
    """Average over the intervals between neighboring edges, given in pixels of the axis.

    Args:
        per_pixel: 1 / length of an interval.

    Shapes:
        image: (C, *S) -> the same with len(edges) - 1 pixels along the axis, float32.
    """
    starts, ends, new = edges[:-1], edges[1:], len(edges) - 1
    first, last = np.floor(starts).astype(int), np.ceil(ends).astype(int) - 1
    column = [-1 if a == axis else 1 for a in range(image.ndim)]
    total = np.zeros([new if a == axis else s for a, s in enumerate(image.shape)], np.float32)
    for tap in range(int((last - first).max()) + 1):
        pixel = first + tap
        length = (np.minimum(ends, pixel + 1) - np.maximum(starts, pixel)).clip(min=0)
        weight = (length * per_pixel).astype(np.float32).reshape(column)
        # Beyond its end, an interval repeats its last pixel with weight 0: a NaN in the neighboring
        # pixel has no effect.
        total += weight * image.take(np.minimum(pixel, last), axis=axis)
    return total
