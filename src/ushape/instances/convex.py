"""Areas of the convex hulls of all objects of an image at once."""

from __future__ import annotations

import numpy as np


def convex_areas(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the number of pixels whose center is inside the convex hull of each object.

    The hull encloses the middles of the four edges of each pixel, and pixels on its border count,
    as in `skimage.measure.regionprops` (`area_convex`), which measures objects one by one.

    Args:
        count: Number of objects, which are labeled 1 to count; each has a pixel.

    Shapes:
        labels: (y, x) integers, 0 outside.
        returns: (count,) integers.
    """
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    inside = np.flatnonzero(labels)
    rows, columns = np.divmod(inside, labels.shape[1])
    owner = labels.ravel()[inside].astype(np.int64) - 1
    # Stable, so that the pixels of a row of an object stay in the order of their columns.
    order = np.argsort(owner, kind="stable")
    owner, rows, columns = owner[order], rows[order], columns[order]
    starts = np.flatnonzero(np.diff(owner * labels.shape[0] + rows, prepend=-1))
    ends = np.append(starts[1:], len(owner)) - 1
    owner, rows = owner[starts], rows[starts]
    left = _Chain.enclosing(owner, rows, columns[starts])
    right = _Chain.enclosing(owner, rows, -columns[ends])
    bounds = np.searchsorted(owner, np.arange(count + 1))
    first, last = rows[bounds[:-1]], rows[bounds[1:] - 1]
    heights = last - first + 1
    owners = np.repeat(np.arange(count), heights)
    begin = np.cumsum(heights) - heights
    at = np.arange(heights.sum()) - np.repeat(begin, heights) + np.repeat(first, heights)
    widths = -right.lowest_column(owners, at) - left.lowest_column(owners, at) + 1
    return np.bincount(owners, widths, minlength=count).astype(np.int64)


class _Chain:
    """The left side of the convex hull of each object, as its corners from top to bottom.

    Coordinates are doubled, so that the middles of edges are integers and all results exact.
    """

    def __init__(self, owner: np.ndarray, y: np.ndarray, x: np.ndarray):
        self.owner, self.y, self.x = owner, y, x

    @classmethod
    def enclosing(cls, owner: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> _Chain:
        """Return the chain around the first pixel of each row of each object.

        Shapes:
            all (n,), in the order of the objects and their rows.
        """
        owners = np.repeat(owner, 3)
        y = (2 * rows[:, None] + (-1, 0, 1)).ravel()
        x = (2 * columns[:, None] + (0, -1, 0)).ravel()
        order = np.lexsort((x, y, owners))
        owners, y, x = owners[order], y[order], x[order]
        is_first = (np.diff(owners, prepend=-1) != 0) | (np.diff(y, prepend=-2) != 0)
        owners, y, x = owners[is_first], y[is_first], x[is_first]
        while True:  # A point right of the line between two others is not a corner of the hull.
            above, below = y[1:-1] - y[:-2], y[2:] - y[1:-1]
            is_inner = x[1:-1] * (above + below) >= x[:-2] * below + x[2:] * above
            is_inner &= owners[:-2] == owners[2:]
            if not is_inner.any():
                return cls(owners, y, x)
            keep = np.concatenate([[True], ~is_inner, [True]])
            owners, y, x = owners[keep], y[keep], x[keep]

    def lowest_column(self, owner: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the first column whose center is not left of the hull, for rows of objects."""
        height = int(self.y.max(initial=0)) + 2
        corner = np.searchsorted(self.owner * height + self.y, owner * height + 2 * rows, "right")
        y0, y1 = self.y[corner - 1], self.y[corner]
        x0, x1 = self.x[corner - 1], self.x[corner]
        at = 2 * rows
        return np.asarray(-(-(x0 * (y1 - at) + x1 * (at - y0)) // (2 * (y1 - y0))))
