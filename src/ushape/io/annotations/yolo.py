"""Text files of YOLO segmentation, one per image: a class number and x and y of each corner."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ushape.errors import DataError
from ushape.formatting import reason
from ushape.io.annotations.shapes import ImageShapes, Outline, Shape

BOX_NUMBERS = 5
"""Numbers in the line of a bounding box: class, x, y, width and height."""


def read_yolo(path: Path) -> ImageShapes:
    """Read the polygons of an image; labels are the class numbers as text.

    A line of five numbers is a bounding box, or a polygon of two points if another line of the file
    is a polygon, as Ultralytics reads it.

    Raises:
        DataError: if the file cannot be read, or if a line is neither a polygon nor a box.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read: {reason(error)}.",
            code="unreadable_text",
            hint="Save the file as text in UTF-8.",
        ) from None
    rows = [(number, words) for number, line in enumerate(lines, 1) if (words := line.split())]
    has_boxes = all(len(words) <= BOX_NUMBERS for _, words in rows)
    shapes = [_shape_of(path, number, words, has_boxes) for number, words in rows]
    return ImageShapes(shapes=tuple(shapes))


def is_yolo(text: str) -> bool:
    """Return whether the first line of a file is a class number followed by at least 4 numbers."""
    words = text.strip().partition("\n")[0].split()
    try:
        return len(words) >= BOX_NUMBERS and words[0].isdigit() and bool(list(map(float, words)))
    except ValueError:
        return False


def _shape_of(path: Path, number: int, words: list[str], has_boxes: bool) -> Shape:
    place = f"line {number}"
    try:
        label = str(int(words[0]))
        values = np.array([float(word) for word in words[1:]])
    except ValueError:
        label, values = "", np.empty(0)
    if len(words) == BOX_NUMBERS and label and has_boxes:
        return Shape(label=label, place=place, area=None, kind="bounding box")
    if not label or len(values) < 4 or len(values) % 2:
        raise DataError(
            f"{path}: {place} has {len(words)} words, which are not a class number followed by "
            "the x and y of each point.",
            code="shapes_invalid",
            hint="Export the labels in YOLO segmentation format.",
        )
    return Shape(
        label=label, place=place, area=Outline(points=values.reshape(-1, 2), unit="fraction")
    )
