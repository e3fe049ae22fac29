"""Whether the objects of masks touch, or nearly so."""

from __future__ import annotations

import numpy as np
from skimage.segmentation import expand_labels

TOUCHING_PX = 4
"""Largest gap in pixels between objects that touch, or nearly so."""

MOSTLY_TOUCHING = 0.5
"""Share of the objects that touch another one from which objects are hard to separate."""

MAX_COMPARED = 10
"""Largest number of cases in which gaps between objects are measured."""


def touching_share(labels: np.ndarray, classes: np.ndarray | None = None) -> float:
    """Return the share of the objects whose gap to another one is at most TOUCHING_PX; 0 for none.

    Args:
        classes: Class of object 1, 2, ...; objects of different classes do not touch. None: all
            objects have one class, and their numbers may have gaps.

    Shapes:
        labels: (*S) integers, 0 for background; classes: (N,).
    """
    grown = expand_labels(labels, TOUCHING_PX / 2)
    touching: set[int] = set()
    for axis in range(labels.ndim):
        before = grown[(slice(None),) * axis + (slice(None, -1),)]
        after = grown[(slice(None),) * axis + (slice(1, None),)]
        meets = (before != after) & (before > 0) & (after > 0)
        one, other = before[meets], after[meets]
        if classes is not None:
            is_same = classes[one - 1] == classes[other - 1]
            one, other = one[is_same], other[is_same]
        touching.update(np.unique(one).tolist(), np.unique(other).tolist())
    return len(touching) / max(1, len(np.unique(labels[labels > 0])))
