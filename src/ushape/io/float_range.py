"""Range of the values of images: all computations with pixels use 32-bit floats."""

from __future__ import annotations

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
"""Largest absolute value of a pixel, about 3.4e38."""


def limit_to_float32(image: np.ndarray) -> np.ndarray:
    """Return an image whose values beyond the range of 32-bit floats are infinite.

    They are then counted, reported and replaced as infinite pixels are, before a conversion to
    float32 makes them infinite unnoticed. All other values, and the type, stay as they are.

    Shapes:
        image: any; it is returned itself if nothing is too large.
    """
    if image.dtype.kind != "f" or image.dtype.itemsize <= 4:
        return image
    # fmin and fmax skip NaN; infinite values need no change, but do not hide others.
    low, high = np.fmin.reduce(image, axis=None), np.fmax.reduce(image, axis=None)
    if (low >= -LARGEST and high <= LARGEST) or np.isnan(low):
        return image
    limited = np.where(image > LARGEST, np.inf, image)
    return np.where(limited < -LARGEST, -np.inf, limited).astype(image.dtype)


def mean_of_channels(image: np.ndarray) -> np.ndarray:
    """Return the mean of the channels for a picture: NaN and infinity are 0.

    An image with values beyond 1e12 is divided by the largest, so that sums of squares of 32-bit
    floats do not overflow.

    Shapes:
        image: (C, *S) -> (*S) float32.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        gray = image.mean(axis=0, dtype=np.float32)
    gray[~np.isfinite(gray)] = 0
    largest = max(-float(gray.min()), float(gray.max()))
    return np.asarray(gray / np.float32(largest) if largest > 1e12 else gray)
