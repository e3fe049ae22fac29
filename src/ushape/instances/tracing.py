"""Trace the polygons of objects, with the pixels of a band of rows in memory at a time.

Polygons run along the edges of pixels. A point (y, x) is a corner of pixels: (0, 0) is the top left
corner of the image, (1, 1) the lower right corner of the first pixel.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from skimage import measure

from ushape.transforms.morphology import RowMask, cut_rows, find_parts


@dataclass(frozen=True, eq=False)
class Polygon:
    """Pixels connected by their sides. A ring never touches itself; two touch only at corners."""

    shell: np.ndarray
    """(P, 2) corners (y, x) from the topmost left one, running right first; each listed once."""

    holes: tuple[np.ndarray, ...] = ()
    """Corners of each hole, running down first, so that the object is always on the same side."""


def trace_plane(labels: np.ndarray) -> dict[int, list[Polygon]]:
    """Return the polygons of each label, one for each part that is connected by sides.

    Shapes:
        labels: (y, x) integers, 0 outside of objects.
    """
    parts = measure.label(labels, background=0, connectivity=1)
    found: dict[int, list[Polygon]] = {}
    for polygon in _trace_polygons(parts[rows] for rows in cut_rows(parts.shape)):
        top_left_pixel = tuple(polygon.shell[0])
        found.setdefault(int(labels[top_left_pixel]), []).append(polygon)
    return found


def trace_mask(read: RowMask, shape: tuple[int, int]) -> list[Polygon]:
    """Return the polygons of a mask, one for each part that is connected by sides.

    Only a band of its rows is in memory at a time, besides about 100 bytes for each corner.

    Args:
        read: Function that returns rows of the mask (n, x) bool; each row is read up to three
            times.
        shape: (y, x) of the mask.
    """
    if len(cut_rows(shape)) == 1:
        return trace_plane(read(slice(0, shape[0])).view(np.uint8)).get(1, [])
    parts = find_parts(read, shape, corners_connect=False)
    return list(_trace_polygons(numbers for _, numbers in parts.numbers()))


def _trace_polygons(bands: Iterable[np.ndarray]) -> Iterator[Polygon]:
    """Yield one polygon for each part, in the order of the parts' first pixels.

    Shapes:
        bands: (n, x) integers, rows that follow each other; pixels of a part, which has a number of
            its own, are connected by their sides. Parts are numbered by their first pixel.
    """
    shell: np.ndarray | None = None
    holes: list[np.ndarray] = []
    for ring, is_shell in _trace_rings(*_find_corners(bands)):
        # Rings are yielded part by part, the shell first.
        if not is_shell:
            holes.append(ring)
            continue
        if shell is not None:
            yield Polygon(shell, tuple(holes))
        shell, holes = ring, []
    if shell is not None:
        yield Polygon(shell, tuple(holes))


def _trace_rings(
    part: np.ndarray,
    points: np.ndarray,
    goes_left: np.ndarray,
    goes_up: np.ndarray,
    is_convex: np.ndarray,
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield all rings around and within parts, and whether they are shells.

    From a corner the outline runs along its row to one corner, and along its column to another. In
    a row, the first corner of a part is connected to the second, the third to the fourth, and so
    on; likewise in columns. Edges of pixels need not be followed one by one.

    Shapes:
        part, points, goes_left, goes_up, is_convex: as `_find_corners` returns them.
        returns: (P, 2) corners each.
    """
    rows = np.lexsort((~goes_left, points[:, 1], points[:, 0], part))
    part, points, goes_up = part[rows], points[rows], goes_up[rows]
    columns = np.lexsort((~goes_up, points[:, 0], points[:, 1], part))
    partner = np.empty(len(columns), dtype=np.int64)
    partner[columns[::2]], partner[columns[1::2]] = columns[1::2], columns[::2]
    # Memoryviews yield Python integers without the memory of a list.
    in_column, is_shell = partner.data, is_convex[rows].data
    seen = bytearray(len(in_column))
    for start in range(len(in_column)):
        if seen[start]:
            continue
        ring, corner = array("q", [start]), start ^ 1  # The partner in the row.
        while True:
            ring.append(corner)
            seen[corner] = 1
            corner = in_column[corner]
            seen[corner] = 1
            if corner == start:
                break
            ring.append(corner)
            corner ^= 1
        if not is_shell[start]:
            ring[1:] = ring[:0:-1]
        yield points[np.frombuffer(ring, dtype=np.int64)], bool(is_shell[start])


def _find_corners(bands: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Find the corners where outlines turn.

    Shapes:
        bands: (n, x), as for `_trace_polygons`.
        returns: part (M,); points (M, 2) as (y, x); whether the outline goes left (else right)
            and up (else down) from there (M,); whether the pixel within it is alone among the four
            around the corner (M,).
    """
    found = []
    above: np.ndarray | None = None
    row = 0
    for band in bands:
        if above is None:
            above = np.zeros_like(band[:1])
        found += _turns(np.concatenate([above, band]), row)
        above, row = band[-1:], row + len(band)
    if above is not None:
        found += _turns(np.concatenate([above, np.zeros_like(above)]), row)
    if not found:
        found = _turns(np.zeros((2, 1), dtype=np.int64), 0)
    return tuple(np.concatenate(values) for values in zip(*found, strict=True))


def _turns(parts: np.ndarray, row: int) -> list[tuple[np.ndarray, ...]]:
    """Find the corners where outlines turn, in the grid lines between rows.

    Of the four pixels around a corner (0 1 above 2 3), i ^ 1 is beside pixel i, i ^ 2 above or
    below it, i ^ 3 opposite. The part of pixel i turns there if it contains only i, all pixels but
    the opposite one, or i and the opposite one; in the last case two outlines pass the corner, one
    around each of the other pixels.

    Args:
        row: Number of the first grid line, which is between the first two rows.

    Shapes:
        parts: (n + 1, x).
        returns: the arrays of `_find_corners`, for each i.
    """
    framed = np.pad(parts, ((0, 0), (1, 1)))
    four = (framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:])
    place = np.nonzero((four[0] != four[1]) | (four[0] != four[2]) | (four[0] != four[3]))
    around = [pixels[place] for pixels in four]
    points = np.stack((place[0] + row, place[1]), axis=1).astype(np.int32)
    columns = []
    for i, own in enumerate(around):
        beside, along, opposite = (own == around[i ^ other] for other in (1, 2, 3))
        is_alone = (own > 0) & ~beside & ~along & ~opposite
        is_inner = (own > 0) & beside & along & ~opposite
        is_passed = (own > 0) & ~beside & ~along & opposite
        turns = is_alone | is_inner | is_passed
        goes_left = is_alone == (i % 2 == 0)
        goes_up = is_inner != (i < 2)
        values = (own, points, goes_left, goes_up, is_alone)
        columns.append(tuple(one[turns] for one in values))
    return columns
