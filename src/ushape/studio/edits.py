"""Tools of the page as functions of arrays: which pixels a stroke, a polygon or a line changes.

Points are (row, column) in pixels; pixel i covers i to i + 1, and a pixel belongs to a shape if its
center does.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage
from skimage import draw

from ushape.errors import DataError

CUT_RADIUS_PX = 0.75
"""Radius of the thinnest line that leaves no two pixels connected across it, not even at corners
(half the diagonal of a pixel is 0.71)."""

SEGMENT_PX = 64
"""Largest length of the segments of a stroke."""

CORNERS = np.ones((3, 3), dtype=bool)
"""Structure in which pixels that touch at a corner are connected."""


def stroke_mask(shape: tuple[int, int], points: np.ndarray, radius_px: float) -> np.ndarray:
    """Return the pixels within a distance of a line through points, and those under the points.

    Shapes:
        points: (P, 2) with P at least 1.
        returns: (y, x) bool.
    """
    found = np.zeros(shape, dtype=bool)
    dense = _subdivide(points)
    starts, ends = (dense[:-1], dense[1:]) if len(dense) > 1 else (dense, dense)
    for start, end in zip(starts, ends, strict=True):
        low = np.floor(np.minimum(start, end) - radius_px - 1).astype(int).clip(0, shape)
        high = np.ceil(np.maximum(start, end) + radius_px + 1).astype(int).clip(0, shape)
        if (low >= high).any():
            continue
        rows = np.arange(low[0], high[0])[:, None] + 0.5 - start[0]
        columns = np.arange(low[1], high[1])[None] + 0.5 - start[1]
        along = end - start
        length = float(along @ along)
        share = (rows * along[0] + columns * along[1]) / length if length else np.zeros(1)
        share = np.clip(share, 0, 1)
        distance = (rows - share * along[0]) ** 2 + (columns - share * along[1]) ** 2
        found[low[0] : high[0], low[1] : high[1]] |= distance <= radius_px**2
    under = np.floor(points).astype(int)
    under = under[((under >= 0) & (under < shape)).all(axis=1)]
    found[under[:, 0], under[:, 1]] = True
    return found


def _subdivide(points: np.ndarray) -> np.ndarray:
    """Return the same line with short segments, around each of which few pixels are compared."""
    if len(points) < 2:
        return points
    parts = [points[:1]]
    for start, end in itertools.pairwise(points):
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / SEGMENT_PX)))
        parts.append(start + (end - start) * np.arange(1, count + 1)[:, None] / count)
    return np.concatenate(parts)


def polygon_mask(shape: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """Return the pixels whose center lies in a polygon; where it covers itself twice, outside.

    Shapes:
        points: (P, 2) corners; the last one is joined to the first.
        returns: (y, x) bool.

    Raises:
        DataError: if there are fewer than three corners.
    """
    if len(points) < 3:
        raise DataError(
            f"The polygon has only {len(points)} corners.",
            code="edit_incomplete",
            hint="Add at least three corners.",
        )
    found = np.zeros(shape, dtype=bool)
    rows, columns = draw.polygon(points[:, 0] - 0.5, points[:, 1] - 0.5, shape)
    found[rows, columns] = True
    return found


def region_at(labels: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """Return the pixels connected by their sides to a pixel with the same value, (y, x) bool."""
    parts, _ = ndimage.label(labels == labels[point])
    return np.asarray(parts == parts[point])


def component_at(mask: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a mask connected to a pixel of it, also at corners, (y, x) bool."""
    parts, _ = ndimage.label(mask, CORNERS)
    return np.asarray((parts == parts[point]) & mask)


def fill_number(numbers: np.ndarray, region: np.ndarray, new_number: int) -> int:
    """Return the number that a filled region gets: that of the only object around it, or a new one.

    An object that is filled keeps its number.

    Shapes:
        numbers: (y, x) object numbers, 0 outside of objects, and the highest number of the type
            where the image is not annotated.
        region: (y, x) bool, pixels of the same number.
    """
    inside = touched(numbers, region)
    if len(inside):
        return int(inside[0])
    ring = ndimage.binary_dilation(region, CORNERS) & ~region
    around = touched(numbers, ring)
    is_enclosed = np.isin(numbers[ring], around).all()
    return int(around[0]) if len(around) == 1 and is_enclosed else new_number


def cut_class(labels: np.ndarray, line: np.ndarray, background: int) -> np.ndarray:
    """Cut the foreground along a line, which becomes background.

    Shapes:
        labels: (y, x) class indices.
        line: (y, x) bool.

    Returns:
        A changed copy.

    Raises:
        DataError: if the line crosses no foreground.
    """
    cut = line & _is_foreground(labels, background)
    if not cut.any():
        raise _crosses_nothing()
    return np.where(cut, labels.dtype.type(background), labels)


def split_object(numbers: np.ndarray, line: np.ndarray, new_number: int) -> np.ndarray:
    """Split each object that a line separates; the largest part keeps its number.

    The pixels of the line belong to the nearest part, so that no pixel is lost.

    Args:
        new_number: First number that no object has.

    Shapes:
        numbers: (y, x) object numbers, 0 outside of objects.
        line: (y, x) bool.

    Returns:
        A changed copy.

    Raises:
        DataError: if the line separates no object.
    """
    found, is_split = numbers.copy(), False
    highest = np.iinfo(numbers.dtype).max
    for number in np.unique(numbers[line]):
        if number in (0, highest):
            continue
        own = numbers == number
        parts, count = ndimage.label(own & ~line)
        before, _ = ndimage.label(own, CORNERS)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        if count < 2 or len(np.unique(before[parts > 0])) == count:
            continue
        is_split = True
        order = np.argsort(-sizes, kind="stable")
        names = np.zeros(count + 1, dtype=numbers.dtype)
        names[order[0] + 1] = number
        for part in order[1:]:
            names[part + 1], new_number = new_number, new_number + 1
        nearest = ndimage.distance_transform_edt(
            parts == 0, return_distances=False, return_indices=True
        )
        found[own] = names[parts[tuple(nearest)]][own]
    if not is_split:
        raise _crosses_nothing()
    return found


def merge_objects(numbers: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Give all objects of a list the number of the first one, as a changed copy.

    Shapes:
        numbers: (y, x) object numbers.
        chosen: (N) numbers.

    Raises:
        DataError: if fewer than two objects are listed.
    """
    if len(chosen) < 2:
        raise DataError(
            "Fewer than two objects were touched.",
            code="edit_without_effect",
            hint="Draw a line from one object to the other, or click both of them.",
        )
    return np.where(np.isin(numbers, chosen), numbers.dtype.type(chosen[0]), numbers)


def touched(numbers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the numbers of the objects in a mask, in the order of their pixels, without 0.

    Pixels that are not annotated have the highest number of the type, and are left out.
    """
    inside = numbers[mask]
    inside = inside[(inside != 0) & (inside != np.iinfo(numbers.dtype).max)]
    found, first = np.unique(inside, return_index=True)
    return np.asarray(found[np.argsort(first)])


def _is_foreground(labels: np.ndarray, background: int) -> np.ndarray:
    return (labels != background) & (labels != np.iinfo(labels.dtype).max)


def _crosses_nothing() -> DataError:
    return DataError(
        "The line does not separate an object.",
        code="edit_without_effect",
        hint="Draw it across the whole object, starting and ending outside.",
    )
