"""Resampling and padding. Arrays in, arrays out; images (C, *S), classes (*S)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional


def resample_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An image on another grid: averages over areas when smaller, linear when larger.

    Integers are rounded back to their dtype; floats come out as float32.

    Shapes:
        image: (C, *S) -> (C, *shape).
    """
    if tuple(image.shape[1:]) == tuple(shape):
        return image
    values = torch.from_numpy(image.astype(np.float32))[None]
    shrinks = all(new <= old for new, old in zip(shape, image.shape[1:], strict=True))
    if shrinks:
        resampled = functional.interpolate(values, size=tuple(shape), mode="area")
    else:
        resampled = _interpolate_linear(values, shape)
    result = resampled[0].numpy()
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        return np.rint(result).clip(limits.min, limits.max).astype(image.dtype)
    return result


def resample_probabilities(probabilities: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Probabilities on another grid, linear.

    Shapes:
        probabilities: (K, *S) -> (K, *shape) float32.
    """
    values = torch.from_numpy(np.ascontiguousarray(probabilities, dtype=np.float32))[None]
    return _interpolate_linear(values, shape)[0].numpy()


def resample_classes(classes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Class indices on another grid: the class of the largest area, the lower one if equal.

    Shapes:
        classes: (*S) -> (*shape), the same dtype.
    """
    if tuple(classes.shape) == tuple(shape):
        return classes
    values = np.unique(classes)
    best = np.full(tuple(shape), -1.0, dtype=np.float32)
    result = np.zeros(tuple(shape), dtype=classes.dtype)
    for value in values:
        share = resample_image((classes == value)[None].astype(np.float32), shape)[0]
        wins = share > best + 1e-6
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


def _interpolate_linear(values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return functional.interpolate(values, size=tuple(shape), mode=mode, align_corners=False)
