"""Draw ground truth and prediction on an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ushape.labels import IGNORE

TRUTH_COLOR = (0, 158, 255)
PREDICTION_COLOR = (255, 140, 0)
HIT_COLOR = (0, 158, 115)
"""Blue, orange and bluish green, distinguishable with every kind of color vision (after Okabe and
Ito 2008)."""


Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

DISTINCT: tuple[Color, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
"""Colors that can be distinguished with every kind of color vision (Okabe and Ito 2008, without
black)."""


def overlay(
    image: np.ndarray,
    predicted: np.ndarray,
    colors: Sequence[Color] = (),
    tint: float = 0.2,
) -> np.ndarray:
    """Outline and tint the classes on an image.

    Args:
        colors: Color of each class, the background first (default: orange for all classes).
        tint: Opacity of the color inside the outlines, 0 to 1.

    Shapes:
        image: (C, *S), any type; predicted: (*S) class indices.
        returns: (y, x, 3) uint8; for a volume, the plane with the most predicted foreground.
    """
    plane, (predicted,) = _choose_plane(image, predicted)
    picture = as_rgb(plane)
    table = np.full((256, 3), PREDICTION_COLOR, dtype=np.float32)
    table[: len(colors)] = np.reshape(colors, (-1, 3))
    inside = (predicted > 0) & (predicted != IGNORE)
    own = table[predicted]
    picture[inside] = ((1 - tint) * picture[inside] + tint * own[inside]).astype(np.uint8)
    edge = _outline(predicted)
    picture[edge] = own[edge].astype(np.uint8)
    return picture


def outline(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Outline ground truth (blue) and prediction (orange) on an image; white where they coincide.

    Shapes:
        image: (C, *S), any type; truth, predicted: (*S) class indices.
        returns: (y, x, 3) uint8; for a volume, the plane with the most annotated foreground.
    """
    plane, (truth, predicted) = _choose_plane(image, truth, predicted)
    picture = as_rgb(plane)
    wanted, found = _outline(truth), _outline(predicted)
    picture[wanted] = TRUTH_COLOR
    picture[found] = PREDICTION_COLOR
    picture[wanted & found] = (255, 255, 255)
    return picture


def tint_errors(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Tint an image: true positives green, false negatives blue, false positives orange.

    Shapes:
        image: (C, *S), any type; truth, predicted: (*S) class indices.
        returns: (y, x, 3) uint8; for a volume, the plane with the most annotated foreground.
    """
    plane, (truth, predicted) = _choose_plane(image, truth, predicted)
    picture = as_rgb(plane)
    counted = truth != IGNORE
    for where, color in (
        ((truth > 0) & (predicted == truth), HIT_COLOR),
        ((truth > 0) & (predicted != truth), TRUTH_COLOR),
        ((truth == 0) & (predicted > 0), PREDICTION_COLOR),
    ):
        tint = 0.55 * picture[where & counted] + 0.45 * np.asarray(color, dtype=np.float32)
        picture[where & counted] = tint.astype(np.uint8)
    return picture


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Convert (C, y, x) of any type to (y, x, 3) uint8, from the 1st to the 99th percentile."""
    chosen = image[:3] if image.shape[0] >= 3 else image[:1].repeat(3, axis=0)
    values = np.nan_to_num(chosen.astype(np.float32))
    if image.dtype == np.uint8 and image.shape[0] >= 3:
        return np.moveaxis(chosen, 0, -1).copy()
    low, high = np.percentile(values[:, ::4, ::4], (1, 99))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-9) * 255
    return np.moveaxis(scaled.clip(0, 255).astype(np.uint8), 0, -1).copy()


def _outline(classes: np.ndarray) -> np.ndarray:
    """Return the foreground pixels that touch another class."""
    foreground = (classes > 0) & (classes != IGNORE)
    lowest = ndimage.minimum_filter(classes, size=3, mode="nearest")
    highest = ndimage.maximum_filter(classes, size=3, mode="nearest")
    return np.asarray(foreground & (lowest != highest))


def _choose_plane(image: np.ndarray, *masks: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a 2D image, or the plane of a volume with the most foreground in the first mask."""
    if image.ndim == 3:
        return image, list(masks)
    plane = int((masks[0] > 0).sum(axis=(1, 2)).argmax())
    return image[:, plane], [mask[plane] for mask in masks]
