"""Resampling of images and probabilities, and normalization of intensities, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

HALF_ERROR, HALF_ERROR_SHARE = 1e-4, 5e-7
"""Largest difference from a half, absolute and as a share, that is taken for a rounding error."""


@dataclass(frozen=True)
class Normalization:
    """Clip and standardize each channel: (clip(x, low, high) - mean) / std."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Normalize an image (C, *S) to float32; NaN becomes 0."""
        column = (-1, *[1] * (image.ndim - 1))
        low, high, mean, std = (
            np.asarray(values, dtype=np.float32).reshape(column)
            for values in (self.low, self.high, self.mean, self.std)
        )
        scaled = np.clip(image, low, high).astype(np.float32, copy=False)
        scaled -= mean
        scaled /= std
        return np.nan_to_num(scaled, copy=False)


@dataclass(frozen=True)
class Intensity:
    """How the intensities of an image are normalized."""

    kind: Literal["data", "image", "min_max"]
    """data: with statistics of the training images; image: clipped at percentiles of the image,
    then standardized; min_max: from the range of the image to 0 to 1."""

    percentiles: tuple[float, float]
    normalization: Normalization | None = None
    """Statistics of the training images."""

    def of(self, image: np.ndarray) -> Normalization:
        """Return the normalization of an image (C, *S)."""
        if self.normalization is not None:
            return self.normalization
        pixels = _thin_out(image).astype(np.float32)
        columns = [self._measure(own[np.isfinite(own)]) for own in pixels]
        low, high, mean, std = zip(*columns, strict=True)
        return Normalization(low, high, mean, std)

    def _measure(self, values: np.ndarray) -> tuple[float, float, float, float]:
        """Return low, high, mean and std from some pixels of a channel."""
        if values.size == 0:
            return 0.0, 1.0 if self.kind == "min_max" else 0.0, 0.0, 1.0
        if self.kind == "min_max":
            low = float(values.min())
            span = float(values.max()) - low or 1.0
            return low, low + span, low, span
        low, high = np.percentile(values, self.percentiles)
        clipped = values.clip(low, high)
        # A constant channel has no information: std 1 maps it to zeros.
        return float(low), float(high), float(clipped.mean()), float(clipped.std()) or 1.0


def _thin_out(image: np.ndarray, at_most: int = 16_384) -> np.ndarray:
    """Return about this many evenly spread pixels of an image (C, *S), as (C, N)."""
    flat = image.reshape(image.shape[0], -1)
    step = max(1, flat.shape[1] // at_most)
    while step > 1 and np.gcd(step, image.shape[-1]) != 1:
        step -= 1  # A step that shares no factor with the width visits every column.
    return flat[:, ::step]


def resample_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample (C, *S) to (C, *shape): areas are averaged, or values interpolated linearly.

    Integers are rounded back to their type; floats are returned as float32.
    """
    if image.shape[1:] == tuple(shape):
        return image if image.dtype.kind in "ui" else image.astype(np.float32, copy=False)
    result = _shrink(image.astype(np.float32, order="C"), shape)
    if result.shape[1:] != tuple(shape):
        result = resample_linearly(result, shape)
    if image.dtype.kind not in "ui":
        return result
    return _round(result, image.dtype)


def _round(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round to an integer type; values that a rounding error separates from a half are halves."""
    limits, halves = np.iinfo(dtype), np.rint(2 * values) / 2
    is_half = np.abs(values - halves) <= HALF_ERROR + HALF_ERROR_SHARE * np.abs(values)
    return np.rint(np.where(is_half, halves, values)).clip(limits.min, limits.max).astype(dtype)


def _shrink(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Average (C, *S) float32 over areas, along the axes where `shape` is smaller."""
    sizes = image.shape[1:]
    blocks = [old // new if old % new == 0 else 1 for old, new in zip(sizes, shape, strict=True)]
    if max(blocks) > 1:
        total = np.zeros((len(image), *map(int.__floordiv__, sizes, blocks)), np.float32)
        for place in np.ndindex(*blocks):
            steps = zip(place, blocks, strict=True)
            total += image[(slice(None), *(slice(first, None, step) for first, step in steps))]
        for block in blocks:
            total /= np.float32(block)
        image = total
    for axis, new in enumerate(shape, start=1):
        if new < image.shape[axis]:
            image = _average_along(image, axis, new)
    return image


def _average_along(image: np.ndarray, axis: int, new: int) -> np.ndarray:
    """Average over `new` equal intervals of an axis; a divided pixel counts in proportion."""
    old = image.shape[axis]
    edges = np.arange(new + 1) * old / new
    starts, ends = edges[:-1], edges[1:]
    first, last = np.floor(starts).astype(int), np.ceil(ends).astype(int) - 1
    total = np.zeros([new if a == axis else s for a, s in enumerate(image.shape)], np.float32)
    for tap in range(int((last - first).max()) + 1):
        pixel = first + tap
        length = (np.minimum(ends, pixel + 1) - np.maximum(starts, pixel)).clip(min=0)
        weight = _along(axis, image.ndim, (length * (new / old)).astype(np.float32))
        total += weight * image.take(np.minimum(pixel, last), axis=axis)
    return total


def resample_linearly(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Interpolate (K, y, x) linearly to (K, *shape) float32; the outermost pixels are repeated."""
    values = values.astype(np.float32, copy=False)
    for axis, new in enumerate(shape, start=1):
        old = values.shape[axis]
        if old != new:
            places = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0)
            below = np.floor(places).astype(int)
            weight = _along(axis, values.ndim, (places - below).astype(np.float32))
            lower = values.take(below, axis=axis)
            upper = values.take(np.minimum(below + 1, old - 1), axis=axis)
            values = lower + (upper - lower) * weight
    return values


def _along(axis: int, dims: int, values: np.ndarray) -> np.ndarray:
    """Return (N) values as an array of `dims` axes that varies along one of them."""
    return values.reshape([-1 if a == axis else 1 for a in range(dims)])


@dataclass(frozen=True)
class Grid:
    """Size of the images that the network receives."""

    square: bool
    """Whether the shorter side is padded with zeros to obtain a square."""

    shape: tuple[int, ...] | None
    """Size to which all images are resized; None: their own size divided by the factors."""

    factors: tuple[float, ...]
    """Factor along each axis by which images are reduced."""

    def place(self, image: np.ndarray) -> np.ndarray:
        """Pad and resample an image (C, *S) to the grid of the network."""
        padded = np.pad(image, [(0, 0), *self._padding(image.shape[1:])])
        sizes = zip(padded.shape[1:], self.factors, strict=True)
        shape = self.shape or [max(1, round(size / factor)) for size, factor in sizes]
        return np.ascontiguousarray(resample_image(padded, shape))

    def restore(self, probabilities: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Undo `place` for probabilities: (K, *working) to (K, *shape)."""
        padding = self._padding(shape)
        padded = tuple(
            before + size + after for size, (before, after) in zip(shape, padding, strict=True)
        )
        if probabilities.shape[1:] != padded:
            probabilities = resample_linearly(probabilities, padded)
        inner = (
            slice(before, before + size) for size, (before, _) in zip(shape, padding, strict=True)
        )
        return probabilities[(slice(None), *inner)]

    def _padding(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Return the zeros before and after each axis."""
        side = max(shape) if self.square else 0
        missing = [max(0, side - size) for size in shape]
        return [(pixels // 2, pixels - pixels // 2) for pixels in missing]
