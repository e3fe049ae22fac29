"""Shapes within a part of a large image, on the grid at which the image is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ushape.errors import DataError
from ushape.io.annotations.shape_files import read_shapes
from ushape.io.annotations.shapes import Outline, Rings, Shape
from ushape.types import ShapesMask


@dataclass(frozen=True)
class _Bounded:
    shapes: tuple[Shape, ...]

    bounds: np.ndarray
    """(N, 4): lowest x and y, and highest x and y, of each shape."""


def shapes_within(mask: ShapesMask) -> tuple[Sequence[Shape], tuple[int, int]]:
    """Return the shapes in the box of a mask, relative to it, and its height and width.

    Raises:
        DataError: if the file cannot be read, or has shapes that are not polygons in pixels.
    """
    assert mask.box is not None, "only called for a part of an image"
    changed = mask.path.stat().st_mtime_ns if mask.path.exists() else 0
    found = _read_bounds(replace(mask, box=None, scale=(1.0, 1.0)), mask.path, changed)
    (top, bottom), (left, right) = mask.box
    scale, corner = np.array(mask.scale[::-1]), np.array((left, top), dtype=np.float64)
    low, high = found.bounds[:, :2] * scale, found.bounds[:, 2:] * scale
    is_inside = ((low < (right, bottom)) & (high > corner)).all(axis=1)
    shapes = [_moved(found.shapes[n], scale, corner) for n in np.flatnonzero(is_inside)]
    return shapes, (bottom - top, right - left)


@lru_cache(maxsize=4)
def _read_bounds(mask: ShapesMask, path: Path, changed: int) -> _Bounded:
    """Read all shapes of a file once for the many parts of an image.

    Args:
        changed: Time of the last change; a changed file is read again.
    """
    shapes = read_shapes(mask).shapes
    bounds = np.full((len(shapes), 4), math.nan)
    for own, shape in zip(bounds, shapes, strict=True):
        if points := [outline.points for outline in _outlines_of(shape, mask)]:
            joined = np.concatenate(points)
            if len(joined):
                own[:2], own[2:] = joined.min(axis=0), joined.max(axis=0)
    return _Bounded(shapes, bounds)


def _outlines_of(shape: Shape, mask: ShapesMask) -> tuple[Outline, ...]:
    if shape.area is None:
        return ()
    outlines = shape.area.outlines if isinstance(shape.area, Rings) else (shape.area,)
    known = [one for one in outlines if isinstance(one, Outline) and one.unit == "pixel"]
    if len(known) < len(outlines):
        raise DataError(
            f"{mask}: {shape.place} is not a polygon in pixels.",
            code="shapes_invalid",
            hint="Export the annotations of slides as GeoJSON, or as masks in a pyramidal TIFF.",
        )
    return tuple(known)


def _moved(shape: Shape, scale: np.ndarray, corner: np.ndarray) -> Shape:
    def move(outline: Outline) -> Outline:
        return replace(outline, points=outline.points * scale - corner, may_leave=True)

    area = shape.area
    if isinstance(area, Rings):
        return replace(shape, area=Rings(outlines=tuple(map(move, area.outlines))))
    assert isinstance(area, Outline), "checked when it was read"
    return replace(shape, area=move(area))
