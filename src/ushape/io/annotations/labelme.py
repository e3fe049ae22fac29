"""JSON files of LabelMe, one per image."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ushape.errors import DataError
from ushape.io.annotations.shapes import ImageShapes, Outline, PixelPatch, Shape, as_points
from ushape.io.files import last_line, read_json

CIRCLE_POINTS = 180
"""Number of corners of the polygon that replaces a circle."""


def read_labelme(path: Path) -> ImageShapes:
    """Read polygons, rectangles, circles and masks; points and lines have no area.

    Raises:
        DataError: if the file cannot be read or an entry is invalid.
    """
    values = read_labelme_json(path)
    shapes = []
    for number, entry in enumerate(values["shapes"], start=1):
        place = f"shape {number}"
        try:
            shapes.append(_shape_of(entry, place))
        except (KeyError, TypeError, ValueError, OverflowError, OSError, SyntaxError) as error:
            raise DataError(
                f"{path}: {place} cannot be read ({last_line(error)}).",
                code="shapes_invalid",
                hint="A shape has a label, points [[x, y], ...] and a shape_type.",
            ) from None
    return ImageShapes(shapes=tuple(shapes), size=_size_of(path, values))


def read_labelme_json(path: Path) -> dict[str, Any]:
    """Return the content of a LabelMe file.

    Raises:
        DataError: if the file cannot be read or has no list of shapes.
    """
    values = read_json(path, DataError, code="json_invalid", hint="Save the file again in LabelMe.")
    if not is_labelme(values):
        raise DataError(
            f"{path}: the file has no list of shapes.",
            code="shapes_invalid",
            hint="Save the file again in LabelMe, or remove it.",
        )
    return dict(values)


def is_labelme(values: Any) -> bool:
    """Return whether the content of a JSON file is that of a LabelMe file."""
    return (
        isinstance(values, dict)
        and isinstance(values.get("shapes"), list)
        and {"imagePath", "imageData"} & values.keys() != set()
    )


def _size_of(path: Path, values: dict[str, Any]) -> tuple[int, int] | None:
    height, width = values.get("imageHeight"), values.get("imageWidth")
    if height is None or width is None:
        return None
    if not all(isinstance(one, int) and one > 0 for one in (height, width)):
        raise DataError(
            f"{path}: imageHeight is {height!r} and imageWidth is {width!r}.",
            code="shapes_invalid",
            hint="Both must match the size of the image in pixels.",
        )
    return int(height), int(width)


def _shape_of(entry: dict[str, Any], place: str) -> Shape:
    label, kind = str(entry["label"]), str(entry.get("shape_type") or "polygon")
    points = as_points(entry["points"])
    area: Outline | PixelPatch | None = None
    if kind == "polygon":
        area = Outline(points=points)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points  # Two opposite corners.
        area = Outline(points=np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))
    elif kind == "circle":
        center, edge = points
        angles = np.linspace(0, 2 * math.pi, CIRCLE_POINTS, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        area = Outline(points=center + np.linalg.norm(edge - center) * circle)
    elif kind == "mask":
        area = _patch_of(str(entry["mask"]), points)
    group = entry.get("group_id")  # A number; other tools write text, or "" for no group.
    return Shape(
        label=label,
        place=place,
        area=area,
        kind=kind,
        group=None if group in (None, "") else str(group),
    )


def _patch_of(encoded: str, points: np.ndarray) -> PixelPatch:
    """Return the mask that is stored as a PNG in base64, for the box of two corners, inclusive."""
    left, top, right, bottom = np.rint(points).astype(int).ravel()
    with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"]) as png:
        if png.size != (right - left + 1, bottom - top + 1):
            raise ValueError(
                f"its mask has {png.size} pixels, which differs from the size of its box"
            )
        return PixelPatch(top=int(top), left=int(left), inside=np.asarray(png) != 0)
