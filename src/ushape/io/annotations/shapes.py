"""Shapes of annotation tools, and how they are drawn on the grid of an image.

Coordinates are (x, y) in pixels from the upper left corner of the image, so that the center of the
first pixel is at (0.5, 0.5). A pixel belongs to an outline if its center is inside; where an
outline encloses an area twice, that area is outside (even-odd rule), as in COCO.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ushape.formatting import pluralize
from ushape.io.annotations.canvas import Canvas
from ushape.types import MaskEncoding, MaskPixels

IGNORE_LABEL = "__ignore__"
"""LabelMe's label of areas that are excluded from loss and scores."""

MAX_OUTSIDE = 0.1
"""Share of the image's height or width by which an outline may reach beyond the image."""

Patch = tuple[int, int, np.ndarray]
"""First row, first column, and the pixels (y, x) of a part of the image, bool."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A closed polygon."""

    points: np.ndarray
    """(n, 2) float64, x and y."""

    unit: Literal["pixel", "fraction"] = "pixel"
    """fraction: x and y are divided by the width and the height of the image."""

    may_leave: bool = False
    """Whether points may lie far outside of the image, as those of contours in the patient may."""

    def fill(self, size: tuple[int, int]) -> tuple[Patch, list[str]]:
        """Return the pixels inside, and remarks about them.

        Raises:
            ValueError: if a coordinate is not a finite number or lies far outside of the image.
        """
        points, width_height = self.points, np.array(size[::-1], dtype=np.float64)
        if self.unit == "fraction":
            points = points * width_height
        if len(points) < 3:
            nothing = np.zeros((0, 0), dtype=bool)
            return (0, 0, nothing), [f"has {pluralize(len(points), 'point')}, so it has no area"]
        if not np.isfinite(points).all():
            raise ValueError("a coordinate is not a finite number")
        beyond = np.maximum(-points, points - width_height)
        if not self.may_leave and (beyond > np.maximum(2, MAX_OUTSIDE * width_height)).any():
            x, y = points[beyond.max(axis=1).argmax()]
            raise ValueError(
                f"the point ({x:g}, {y:g}) is outside the image of {size[1]} × {size[0]} pixels "
                "(width × height)"
            )
        top, left, turns = winding_numbers(points, size)
        inside = turns % 2 == 1
        double = int(((turns != 0) & ~inside).sum())
        remarks = []
        if double > max(4, 0.01 * inside.sum()):
            remarks.append(
                f"overlaps itself; {double} pixels that it encloses twice count as outside"
            )
        return (top, left, inside), remarks


@dataclass(frozen=True, kw_only=True)
class Rings:
    """A polygon with holes: pixels within an odd number of closed polygons."""

    outlines: tuple[Outline, ...]
    """At least one outline."""

    def fill(self, size: tuple[int, int]) -> tuple[Patch, list[str]]:
        """Return the pixels inside, and remarks about them.

        Raises:
            ValueError: if `Outline.fill` raises it.
        """
        filled = [one.fill(size) for one in self.outlines]
        patches = [patch for patch, _ in filled if patch[2].size]
        if not patches:
            return filled[0][0], filled[0][1]
        top, left = min(patch[0] for patch in patches), min(patch[1] for patch in patches)
        high = max(patch[0] + patch[2].shape[0] for patch in patches) - top
        wide = max(patch[1] + patch[2].shape[1] for patch in patches) - left
        inside = np.zeros((high, wide), dtype=bool)
        for row, column, own in patches:
            rows = slice(row - top, row - top + own.shape[0])
            inside[rows, column - left : column - left + own.shape[1]] ^= own
        return (top, left, inside), [remark for _, own in filled for remark in own]


@dataclass(frozen=True, kw_only=True)
class PixelPatch:
    """A small mask and its position."""

    top: int
    left: int
    inside: np.ndarray
    """(y, x) bool."""

    def fill(self, size: tuple[int, int]) -> tuple[Patch, list[str]]:
        """Return the patch.

        Raises:
            ValueError: if it is not within the image.
        """
        bottom, right = self.top + self.inside.shape[0], self.left + self.inside.shape[1]
        if min(self.top, self.left) < 0 or bottom > size[0] or right > size[1]:
            raise ValueError(
                f"its mask covers the rows {self.top} to {bottom - 1} and the columns {self.left} "
                f"to {right - 1} of an image of {size[0]} × {size[1]} pixels"
            )
        return (self.top, self.left, self.inside), []


@dataclass(frozen=True, kw_only=True)
class Runs:
    """One-based run lengths "start length start length ..."."""

    text: str
    order: Literal["row", "column"]
    """Whether pixels are counted row by row, or column by column."""

    def fill(self, size: tuple[int, int]) -> tuple[Patch, list[str]]:
        """Return the pixels of the whole image.

        Raises:
            ValueError: if the runs are not pairs of integers in ascending order within the image.
        """
        total = math.prod(size)
        numbers = np.array([int(word) for word in self.text.split()], dtype=np.int64)
        if len(numbers) % 2:
            raise ValueError("the run lengths are not pairs of start and length")
        starts, lengths = numbers[::2] - 1, numbers[1::2]
        ends = starts + lengths
        if len(numbers) and (starts.min() < 0 or lengths.min() < 1 or ends.max() > total):
            raise ValueError(f"a run is not within the {total} pixels of the image")
        if (starts[1:] < ends[:-1]).any():
            raise ValueError("the runs are not in ascending order")
        steps = np.zeros(total + 1, dtype=np.int8)
        steps[starts] = 1
        steps[ends] -= 1
        inside = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
        is_row = self.order == "row"
        return (0, 0, inside.reshape(size) if is_row else inside.reshape(size[::-1]).T), []


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One annotated object."""

    label: str
    place: str
    """Position in the file, for messages: "shape 3" or "line 7"."""

    area: Outline | Rings | PixelPatch | Runs | None
    """None for a point, a line or a bounding box, which do not determine the pixels."""

    group: str | None = None
    """Number or name that the parts of one object share; None if the shape is a whole object."""

    kind: str = "polygon"
    """The annotation tool's name for the kind of shape."""


@dataclass(frozen=True, kw_only=True)
class ImageShapes:
    """All shapes of one image, in the order in which they are drawn."""

    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None
    """Height and width of the image in pixels, if the file contains them."""


def as_points(values: Any) -> np.ndarray:
    """Return the points of an annotation file as (n, 2) float64.

    Raises:
        ValueError: if a point does not consist of two numbers.
        TypeError: if an entry is not a number.
        OverflowError: if a number is too large.
    """
    points = np.asarray(values, dtype=np.float64)
    if points.size and points.shape[1:] != (2,):
        raise ValueError("a point does not consist of x and y")
    return points.reshape(-1, 2)


def draw_shapes(
    shapes: Sequence[Shape], size: tuple[int, int], code_of: Mapping[str, int]
) -> MaskPixels:
    """Draw shapes, later ones over earlier ones.

    Args:
        size: Height and width of the image.
        code_of: Code of each label.

    Shapes:
        returns: codes (y, x), 0 where there is no shape; with remarks about the shapes.

    Raises:
        ValueError: if a shape cannot be drawn, or if its label has no code; the message begins
            with its place.
    """
    canvas = Canvas(size, max(code_of.values(), default=0))
    number_of: dict[tuple[str, str | None], int] = {}
    remarks = []
    for shape in shapes:
        if shape.area is None:
            raise ValueError(f"{shape.place} is a {shape.kind}, which has no area")
        if shape.label not in code_of:
            raise ValueError(f"{shape.place} has the unknown label {shape.label!r}")
        try:
            (top, left, inside), own = shape.area.fill(size)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{shape.place} cannot be drawn: {error}") from None
        box = slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])
        parts = shape.label, shape.group
        number = 0 if shape.label == IGNORE_LABEL else number_of.get(parts)
        number = canvas.draw(box, inside, code_of[shape.label], number=number)
        if shape.group is not None:
            number_of[parts] = number
        remarks += [f"{shape.place} {remark}" for remark in own]
    return MaskPixels(
        codes=canvas.codes,
        encoding=MaskEncoding(dtype=str(canvas.codes.dtype)),
        shape_remarks=tuple(remarks),
        instances=canvas.instances,
    )


def winding_numbers(points: np.ndarray, size: tuple[int, int]) -> Patch:
    """Return how often a polygon runs around each pixel center, within its bounding box.

    Only the rows that an edge spans are visited, so the cost is that of the bounding box.

    Args:
        points: (n, 2) x and y.

    Shapes:
        returns: first row, first column, (y, x) int16, of which negative numbers are one direction.
    """
    low = np.floor(points.min(axis=0)).astype(int).clip(0, size[::-1])
    high = np.ceil(points.max(axis=0)).astype(int).clip(0, size[::-1])
    (left, top), (right, bottom) = low, high
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    # An edge crosses the centers y + 0.5 of the rows first to last - 1.
    first = np.ceil(np.minimum(y0, y1) - 0.5).astype(int).clip(top, bottom)
    last = np.ceil(np.maximum(y0, y1) - 0.5).astype(int).clip(top, bottom)
    edge = np.repeat(np.arange(len(points)), last - first)
    begin = np.cumsum(last - first) - (last - first)
    row = np.arange(len(edge)) - begin[edge] + first[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.ceil(x - 0.5).astype(int).clip(left, right)
    steps = np.zeros((bottom - top, right - left + 1), dtype=np.int16)
    np.add.at(steps, (row - top, column - left), np.where((y1 > y0)[edge], 1, -1))
    return int(top), int(left), np.cumsum(steps, axis=1, dtype=np.int16)[:, :-1]
