"""Fit masks to photographs with an EXIF orientation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ushape import io
from ushape.io.orientation import as_displayed
from ushape.types import MaskPixels, Turn

CLEARLY = 1.2
"""Ratio of edge strengths from which one of two orientations of a mask fits clearly better."""


def turn_with_image(mask: MaskPixels, path: Path, image: Path) -> MaskPixels:
    """Return a mask as its image is displayed, if only the image has an EXIF orientation.

    Most programs draw masks on the displayed image, some on the stored pixels. The sizes decide
    which it was; if both are possible, the edges of the image under the outline of the mask do.
    """
    orientation = io.read_orientation(image)
    if orientation == 1 or mask.codes.ndim != 2 or io.read_orientation(path) != 1:
        return mask
    size = io.read_size(image)
    turned = as_displayed(mask.codes, orientation)
    if size not in (mask.codes.shape, turned.shape):
        return mask
    turn: Turn = "displayed" if size == mask.codes.shape else "stored"
    if mask.codes.shape == turned.shape:
        gray = io.read(image).array.mean(axis=0, dtype=np.float32)
        turn = _compare(_edges_under(mask.codes, gray), _edges_under(turned, gray))
    return replace(mask, codes=turned if turn == "stored" else mask.codes, turn=turn)


def _compare(displayed: float, stored: float) -> Turn:
    if displayed >= CLEARLY * stored:
        return "displayed"
    return "stored" if stored >= CLEARLY * displayed else "unclear"


def _edges_under(codes: np.ndarray, gray: np.ndarray) -> float:
    """Return the mean difference of neighboring pixels across the outline of a mask."""
    total, count = 0.0, 0
    for axis in (0, 1):
        across = np.diff(codes.astype(np.int64), axis=axis) != 0
        total += float(np.abs(np.diff(gray, axis=axis))[across].sum())
        count += int(across.sum())
    return total / count if count else 0.0
