"""Connected components of predictions."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def keep_largest(classes: np.ndarray) -> np.ndarray:
    """Of each foreground class only the largest connected part; corners connect.

    Shapes:
        classes: (*S) class indices -> the same.
    """
    kept = np.zeros_like(classes)
    for class_index in np.unique(classes[classes > 0]):
        parts, count = ndimage.label(classes == class_index, np.ones((3,) * classes.ndim))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept[parts == sizes.argmax()] = class_index
    return kept
