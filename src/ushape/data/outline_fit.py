"""Alignment of the outline of a mask with the edges of its image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ushape.io.float_range import mean_of_channels

REACH = 8
"""Largest shift of a mask that is tried against the edges of the image, in pixels."""

MAX_EDGE_PIXELS = 600
"""Number of evenly spread outline pixels of a mask that are compared with the image."""


@dataclass(frozen=True, kw_only=True)
class OutlineFit:
    """Alignment of a mask's outline with the edges of the image."""

    here: float
    """Mean edge strength under the outline, relative to the mean of the image."""

    best: float
    """Largest such edge strength over all shifts up to REACH."""

    shift: tuple[int, int]
    """Shift with the largest value, (y, x) in pixels."""


def fit_outline(
    image: np.ndarray, codes: np.ndarray, ignore: int | None = None
) -> OutlineFit | None:
    """Compare the edges under the outline of a mask with those next to it.

    Args:
        ignore: Mask value of pixels without annotation; where it begins, there is no outline.

    Shapes:
        image: (C, *S); of a volume the middle plane is used.
        codes: (*S).

    Returns:
        None if there is no outline or no edge.
    """
    if codes.ndim == 3:
        image, codes = image[:, image.shape[1] // 2], codes[codes.shape[0] // 2]
    gray = mean_of_channels(image)
    rows, columns = _outline_pixels(codes, ignore)
    if len(rows) < 16 or min(gray.shape) <= 4 * REACH:
        return None
    strength = np.zeros_like(gray)
    strength[1:] += np.abs(np.diff(gray, axis=0))
    strength[:, 1:] += np.abs(np.diff(gray, axis=1))
    average = float(strength.mean())
    if average == 0:
        return None
    steps = np.arange(-REACH, REACH + 1, 2)
    means = np.array([[strength[rows + dy, columns + dx].mean() for dx in steps] for dy in steps])
    place = np.unravel_index(int(means.argmax()), means.shape)
    return OutlineFit(
        here=float(means[len(steps) // 2, len(steps) // 2]) / average,
        best=float(means.max()) / average,
        shift=(int(steps[place[0]]), int(steps[place[1]])),
    )


def _outline_pixels(codes: np.ndarray, ignore: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return some pixels away from the border that differ from their left or upper neighbor."""
    changes = np.zeros(codes.shape, dtype=bool)
    known = np.ones(codes.shape, dtype=bool) if ignore is None else codes != ignore
    changes[1:] |= (codes[1:] != codes[:-1]) & known[1:] & known[:-1]
    changes[:, 1:] |= (codes[:, 1:] != codes[:, :-1]) & known[:, 1:] & known[:, :-1]
    for axis in (0, 1):
        for side in (slice(0, REACH), slice(-REACH, None)):
            changes[(slice(None),) * axis + (side,)] = False
    found = np.flatnonzero(changes)
    chosen = found[:: max(1, len(found) // MAX_EDGE_PIXELS)]
    rows, columns = np.unravel_index(chosen, codes.shape)
    return rows, columns
