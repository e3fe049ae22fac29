"""How long the outlines of objects are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def measure_perimeters(
    labels: np.ndarray, count: int, spacing: Sequence[float] = (1.0, 1.0)
) -> np.ndarray:
    """Estimated length of each object's outline, its holes included.

    Counts how often lines in four directions cross the outline (Cauchy-Crofton). That is right on
    average over all directions, where counting pixel edges makes a disk 27 % too long. Equal to
    `skimage.measure.perimeter_crofton` on each object, here for all objects at once and for
    oblong pixels too.

    Args:
        count: Number of objects; those in labels are 1 to count.
        spacing: Of y and x; the length is in its unit.

    Shapes:
        labels: (y, x) integers, 0 outside.
        returns: (count,).
    """
    height, width = spacing
    framed = np.pad(labels, 1)
    views = {
        (0, 1): (framed[:, :-1], framed[:, 1:]),
        (1, 0): (framed[:-1], framed[1:]),
        (1, 1): (framed[:-1, :-1], framed[1:, 1:]),
        (1, -1): (framed[:-1, 1:], framed[1:, :-1]),
    }
    # Each direction stands for all angles up to half-way to the next one.
    diagonal = np.arctan2(height, width)
    angle = {(0, 1): diagonal, (1, 0): np.pi / 2 - diagonal, (1, 1): np.pi / 4, (1, -1): np.pi / 4}
    length = np.zeros(count + 1)
    for step, (here, there) in views.items():
        differ = here != there
        crossings = np.bincount(here[differ], minlength=count + 1)
        crossings = crossings + np.bincount(there[differ], minlength=count + 1)
        between_lines = height * width / np.hypot(step[0] * height, step[1] * width)
        length += crossings * between_lines * angle[step] / 2
    return length[1:]
