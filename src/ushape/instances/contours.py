"""Outlines of objects as polygons with holes, along the edges of pixels.

A point (y, x) is a corner of pixels: (0, 0) is the top left corner of the image, (1, 1) the lower
right corner of the first pixel. QuPath and ImageJ use the same convention. Filling a polygon gives
exactly the pixels of the object, and its area is their number, because pixel centers are at
half-integer coordinates. Smoothed outlines would be shorter but have neither property.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from skimage import measure

from ushape.instances.label import Objects


@dataclass(frozen=True, eq=False)
class Polygon:
    """Pixels connected by their sides. No ring touches itself; two touch at most at corners."""

    shell: np.ndarray
    """(P, 2) corners (y, x) from the topmost left one, running right first; each listed once."""

    holes: tuple[np.ndarray, ...] = ()
    """Corners of each hole, running down first, so that the object is always on the same side."""


@dataclass(frozen=True, eq=False)
class Outline:
    """One object, or its section in one plane of a volume."""

    object_id: int
    class_index: int
    plane: int | None
    """Plane z of a volume, from 0; None for a 2D image."""

    polygons: tuple[Polygon, ...]
    """Polygons; several if parts of an object touch only at corners, or meet in another plane."""


def trace_outlines(objects: Objects) -> Iterator[Outline]:
    """Yield the outlines of all objects, by plane and number.

    Shapes:
        objects.labels: (y, x), or (z, y, x) plane by plane.
    """
    is_flat = objects.labels.ndim == 2
    planes = objects.labels[None] if is_flat else objects.labels
    for z, plane in enumerate(planes):
        for object_id, polygons in sorted(_trace_plane(plane).items()):
            class_index = int(objects.classes[object_id - 1])
            yield Outline(object_id, class_index, None if is_flat else z, tuple(polygons))


def _trace_plane(labels: np.ndarray) -> dict[int, list[Polygon]]:
    """Return the polygons of each label (y, x), one for each part connected by sides."""
    parts = measure.label(labels, background=0, connectivity=1)
    shapes: list[tuple[np.ndarray, list[np.ndarray]]] = []
    for ring, is_shell in _trace_rings(parts):
        # Rings are yielded part by part, the shell first.
        if is_shell:
            shapes.append((ring, []))
        else:
            shapes[-1][1].append(ring)
    found: dict[int, list[Polygon]] = {}
    for shell, holes in shapes:
        top_left_pixel = tuple(shell[0])
        found.setdefault(int(labels[top_left_pixel]), []).append(Polygon(shell, tuple(holes)))
    return found


def _trace_rings(parts: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield all rings around and within parts, and whether they are shells.

    From a corner the outline runs along its row to one corner, and along its column to another. In
    a row, the first corner of a part is connected to the second, the third to the fourth, and so
    on; likewise in columns. Edges of pixels need not be followed one by one.

    Shapes:
        parts: (y, x) integers; pixels of a part are connected by their sides.
        returns: (P, 2) corners each.
    """
    part, points, goes_left, goes_up, is_convex = _find_corners(parts)
    rows = np.lexsort((~goes_left, points[:, 1], points[:, 0], part))
    part, points, goes_up = part[rows], points[rows], goes_up[rows]
    columns = np.lexsort((~goes_up, points[:, 0], points[:, 1], part))
    partner = np.empty(len(columns), dtype=np.int64)
    partner[columns[::2]], partner[columns[1::2]] = columns[1::2], columns[::2]
    in_column, is_shell = partner.tolist(), is_convex[rows].tolist()
    seen = bytearray(len(in_column))
    for start in range(len(in_column)):
        if seen[start]:
            continue
        ring, corner = [start], start ^ 1  # The partner in the row.
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
        yield points[ring], is_shell[start]


def _find_corners(parts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find the corners where outlines turn.

    Of the four pixels around a corner (0 1 above 2 3), i ^ 1 is beside pixel i, i ^ 2 above or
    below it, i ^ 3 opposite. The part of pixel i turns there if it contains only i, all pixels but
    the opposite one, or i and the opposite one; in the last case two outlines pass the corner, one
    around each of the other pixels.

    Shapes:
        parts: (y, x).
        returns: part (M,); points (M, 2) as (y, x); whether the outline goes left (else right)
            and up (else down) from there (M,); whether pixel i is alone (M,).
    """
    framed = np.pad(parts, 1)
    four = (framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:])
    place = np.nonzero((four[0] != four[1]) | (four[0] != four[2]) | (four[0] != four[3]))
    around = [pixels[place] for pixels in four]
    points = np.stack(place, axis=1).astype(np.int32)
    columns = []
    for i, own in enumerate(around):
        beside, along, opposite = (own == around[i ^ other] for other in (1, 2, 3))
        is_alone = (own > 0) & ~beside & ~along & ~opposite
        is_inner = (own > 0) & beside & along & ~opposite
        is_passed = (own > 0) & ~beside & ~along & opposite
        turns = is_alone | is_inner | is_passed
        goes_left = is_alone == (i % 2 == 0)
        goes_up = is_inner != (i < 2)
        columns.append((own, points, goes_left, goes_up, is_alone))
        columns[-1] = tuple(values[turns] for values in columns[-1])
    return tuple(np.concatenate(values) for values in zip(*columns, strict=True))
