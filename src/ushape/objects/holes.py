"""Holes in predicted classes."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import measure


def fill_holes(
    classes: np.ndarray, largest_px: int, *, corners_connect: bool = False
) -> np.ndarray:
    """Gives a hole to the class around it.

    A hole is background that is not connected to the image's edge and touches pixels of a single
    class. Where two classes enclose it, nobody can say whose it is: it stays.

    Args:
        largest_px: Larger holes stay.
        corners_connect: Foreground connects at corners, so background does not.

    Shapes:
        classes: (*S) uint8 class indices -> the same.
    """
    reach = 1 if corners_connect else classes.ndim
    parts = measure.label(classes == 0, background=0, connectivity=reach)
    is_hole = np.bincount(parts.ravel()) <= largest_px
    is_hole[0] = False
    for axis in range(classes.ndim):
        is_hole[np.take(parts, [0, -1], axis=axis)] = False
    pixels = is_hole[parts]
    if not pixels.any():
        return classes
    lowest, highest = _classes_beside(classes, parts, pixels)
    filled = classes.copy()
    filled[pixels] = np.where(lowest == highest, lowest, 0)[parts[pixels]]
    return filled


def _classes_beside(
    classes: np.ndarray, parts: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest foreground class that shares a side with each part.

    Args:
        pixels: Those of the parts that are asked for.

    Shapes:
        all (*S) -> (parts + 1,) twice.
    """
    sides = ndimage.generate_binary_structure(classes.ndim, 1)
    highest = np.zeros(int(parts.max()) + 1, dtype=np.uint8)
    lowest = np.full_like(highest, 255)
    nothing_as_most = np.where(classes == 0, 255, classes).astype(np.uint8)
    least = ndimage.minimum_filter(nothing_as_most, footprint=sides, mode="nearest")
    most = ndimage.maximum_filter(classes, footprint=sides, mode="nearest")
    np.minimum.at(lowest, parts[pixels], least[pixels])
    np.maximum.at(highest, parts[pixels], most[pixels])
    return lowest, highest
