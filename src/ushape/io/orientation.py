"""Rotate pixels by the orientation in EXIF and TIFF."""

from __future__ import annotations

import numpy as np


def as_displayed(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or flip stored pixels (..., y, x) by an orientation from 1 to 8, as viewers do."""
    turned = np.swapaxes(array, -1, -2) if orientation >= 5 else array
    return np.ascontiguousarray(_mirror(turned, orientation))


def as_stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the orientation of displayed pixels (..., y, x); inverse of `as_displayed`."""
    mirrored = _mirror(array, orientation)
    return np.ascontiguousarray(np.swapaxes(mirrored, -1, -2) if orientation >= 5 else mirrored)


def _mirror(array: np.ndarray, orientation: int) -> np.ndarray:
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return array[..., ::down, ::right]
