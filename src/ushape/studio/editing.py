"""Carry out the edits of the page: find the part of an annotation that changes, and its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ushape.errors import DataError
from ushape.studio import edits
from ushape.studio.accepting import accepted_tiles
from ushape.studio.annotations import Annotation, Change
from ushape.studio.predictions import StoredPrediction
from ushape.studio.tile_grid import Plane, Window, plane_box
from ushape.studio.tiles import plane_shape

Tool = Literal[
    "brush", "eraser", "polygon", "fill", "split", "merge", "delete", "accept", "accept_object",
    "unmark", "background_rest", "clear",
]  # fmt: skip

WITHOUT_POINTS = ("accept", "background_rest", "clear")

BLOCK_PX = 2048
"""Height and width of the parts in which strokes and polygons are drawn; a multiple of all
tiles."""

FIRST_REACH_PX = 256
"""Distance from a point in which a connected region is looked for first."""

MAX_REGION_PX = 1 << 27
"""Number of pixels in which a connected region is looked for at most."""

Changes = Iterator[tuple[tuple[tuple[int, int], ...], np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What the user did in a plane of an image."""

    tool: Tool
    points: np.ndarray
    """(P, 2) (row, column) in the plane."""

    class_index: int = 1
    """Class that is drawn; 0 is background."""

    radius_px: float = 0.0
    plane: Plane = "z"
    index: int = 0
    threshold: float | None = None
    """Probability from which the accepted prediction is foreground; None: as validation chose."""


def apply_edit(
    annotation: Annotation,
    edit: Edit,
    revision: int,
    edit_id: str,
    prediction: StoredPrediction | None,
) -> Change:
    """Carry out an edit and store it.

    Raises:
        DataError: if the edit is incomplete, outside the image, or changes nothing that it is for.
        StaleRevisionError: if the annotation has another revision.
    """
    with annotation.lock:
        if (known := annotation.repeated(revision, edit_id)) is not None:
            return known
        changes = _Editor(annotation, edit, prediction).changes()
        return annotation.edit(revision, edit_id, changes, edit.tool)


@dataclass(frozen=True)
class _Editor:
    annotation: Annotation
    edit: Edit
    prediction: StoredPrediction | None

    def changes(self) -> Changes:
        """Return the boxes that change, with their new values."""
        tool, points = self.edit.tool, self.edit.points
        if tool not in WITHOUT_POINTS and not len(points):
            raise DataError(
                "The edit has no point.", code="edit_incomplete", hint="Click in the image."
            )
        if tool in ("brush", "eraser", "unmark"):
            return self._stroke(self._value(tool), self.edit.radius_px)
        if tool == "polygon":
            edits.polygon_mask((1, 1), points)  # Raises before anything is stored.
            return self._draw(self._new_value(), edits.polygon_mask, 0)
        numbered = self.annotation.are_objects
        actions: dict[Tool, Callable[[], Changes]] = {
            "fill": self._fill,
            "split": self._split_object if numbered else self._cut,
            "merge": self._merge_objects if numbered else self._bridge,
            "delete": self._delete_object if numbered else self._delete_component,
            "accept": self._accept,
            "accept_object": self._accept_object,
            "background_rest": self._fill_rest,
            "clear": self._clear,
        }
        return actions[tool]()

    @property
    def _size(self) -> tuple[int, int]:
        return plane_shape(self.annotation.shape, self.edit.plane)

    def _new_value(self) -> int:
        """Return the value of a new shape: its class, or the number of a new object."""
        if self.annotation.are_objects and self.edit.class_index:
            return self.annotation.next_number
        return self.edit.class_index

    def _value(self, tool: Tool) -> int:
        """Return the value that a stroke draws. One that begins in an object belongs to it."""
        if tool == "eraser":
            return 0
        if tool == "unmark":
            return self.annotation.unknown
        if self.annotation.are_objects and self.edit.class_index:
            below = self._at(self.edit.points[0])
            if below not in (None, 0, self.annotation.unknown):
                return int(below or 0)
        return self._new_value()

    def _at(self, point: np.ndarray) -> int | None:
        """Return the value under a point; None outside of the image."""
        row, column = (int(np.floor(value)) for value in point)
        height, width = self._size
        if not (0 <= row < height and 0 <= column < width):
            return None
        return int(self._read(((row, row + 1), (column, column + 1)))[0, 0])

    def _read(self, window: Window) -> np.ndarray:
        return self.annotation.read_plane(self.edit.plane, self.edit.index, window)

    def _change(
        self, window: Window, values: np.ndarray
    ) -> tuple[tuple[tuple[int, int], ...], np.ndarray]:
        axis = "zyx".index(self.edit.plane)
        return (
            plane_box(self.edit.plane, self.edit.index, window),
            np.expand_dims(values.astype(self.annotation.dtype, copy=False), axis),
        )

    def _stroke(self, value: int, radius_px: float) -> Changes:
        def draw(shape: tuple[int, int], points: np.ndarray) -> np.ndarray:
            return edits.stroke_mask(shape, points, radius_px)

        return self._draw(value, draw, radius_px)

    def _draw(
        self,
        value: int,
        draw: Callable[[tuple[int, int], np.ndarray], np.ndarray],
        reach_px: float,
    ) -> Changes:
        """Return the changes by a shape, block by block."""
        low, high = self._limits(reach_px)
        return self._draw_blocks(value, draw, low, high)

    def _draw_blocks(
        self,
        value: int,
        draw: Callable[[tuple[int, int], np.ndarray], np.ndarray],
        low: np.ndarray,
        high: np.ndarray,
    ) -> Changes:
        for top in range(int(low[0]) // BLOCK_PX * BLOCK_PX, int(high[0]), BLOCK_PX):
            for left in range(int(low[1]) // BLOCK_PX * BLOCK_PX, int(high[1]), BLOCK_PX):
                rows = max(top, int(low[0])), min(top + BLOCK_PX, int(high[0]))
                columns = max(left, int(low[1])), min(left + BLOCK_PX, int(high[1]))
                shape = rows[1] - rows[0], columns[1] - columns[0]
                mask = draw(shape, self.edit.points - (rows[0], columns[0]))
                if mask.any():
                    values = self._read((rows, columns))
                    values[mask] = value
                    yield self._change((rows, columns), values)

    def _limits(self, reach_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and last row and column around the points.

        Raises:
            DataError: if none of them is in the image.
        """
        points = self.edit.points
        low = np.floor(points.min(axis=0) - reach_px - 1).clip(0, self._size).astype(int)
        high = np.ceil(points.max(axis=0) + reach_px + 2).clip(0, self._size).astype(int)
        if (low >= high).any():
            raise DataError(
                "The edit is outside the image.",
                code="edit_outside",
                hint="Draw inside the image.",
            )
        return low, high

    def _first_pixel(self) -> tuple[int, int]:
        """Return the pixel under the first point.

        Raises:
            DataError: if it is outside of the image.
        """
        self._limits(0)
        row, column = (int(np.floor(value)) for value in self.edit.points[0])
        if not (0 <= row < self._size[0] and 0 <= column < self._size[1]):
            raise DataError(
                "The edit is outside the image.",
                code="edit_outside",
                hint="Draw inside the image.",
            )
        return row, column

    def _region(
        self,
        read: Callable[[Window], np.ndarray],
        find: Callable[[np.ndarray, tuple[int, int]], np.ndarray],
    ) -> tuple[Window, np.ndarray]:
        """Return the region around the first point, in a window that is large enough for it.

        Args:
            read: Function that returns the values of a window.
            find: Function that returns the region at a point of the values.

        Raises:
            DataError: if the region is too large.
        """
        (row, column), reach = self._first_pixel(), FIRST_REACH_PX
        height, width = self._size
        while True:
            rows = max(0, row - reach), min(height, row + reach)
            columns = max(0, column - reach), min(width, column + reach)
            if (rows[1] - rows[0]) * (columns[1] - columns[0]) > MAX_REGION_PX:
                raise DataError(
                    "The region is too large.",
                    code="region_too_large",
                    hint="Enclose part of it with a line, or use a polygon.",
                )
            found = find(read((rows, columns)), (row - rows[0], column - columns[0]))
            leaves = (
                (rows[0] > 0 and found[0].any())
                or (rows[1] < height and found[-1].any())
                or (columns[0] > 0 and found[:, 0].any())
                or (columns[1] < width and found[:, -1].any())
            )
            if not leaves:
                return (rows, columns), found
            reach *= 2

    def _set(self, window: Window, mask: np.ndarray, value: int) -> Changes:
        values = self._read(window)
        values[mask] = value
        yield self._change(window, values)

    def _fill(self) -> Changes:
        window, region = self._region(self._read, edits.region_at)
        value = self._new_value()
        if self.annotation.are_objects and self.edit.class_index:
            value = edits.fill_number(self._read(window), region, value)
        return self._set(window, region, value)

    def _foreground_at(self, labels: np.ndarray, point: tuple[int, int]) -> np.ndarray:
        """Return the connected pixels of the class at a point.

        Raises:
            DataError: if there is no object.
        """
        if labels[point] in (0, self.annotation.unknown):
            raise _no_object()
        return edits.component_at(labels == labels[point], point)

    def _delete_component(self) -> Changes:
        window, region = self._region(self._read, self._foreground_at)
        return self._set(window, region, 0)

    def _cut(self) -> Changes:
        low, high = self._limits(edits.CUT_RADIUS_PX)
        window = (int(low[0]), int(high[0])), (int(low[1]), int(high[1]))
        self._require_small(window)
        labels = self._read(window)
        line = edits.stroke_mask(labels.shape, self.edit.points - low, edits.CUT_RADIUS_PX)
        yield self._change(window, edits.cut_class(labels, line, 0))

    def _bridge(self) -> Changes:
        """Join objects of a class by a stroke of the class at the first point."""
        value = self._at(self.edit.points[0])
        if value in (None, 0, self.annotation.unknown):
            raise _no_object()
        return self._stroke(int(value or 0), max(1.0, self.edit.radius_px))

    def _split_object(self) -> Changes:
        low, high = self._limits(edits.CUT_RADIUS_PX)
        around = (int(low[0]), int(high[0])), (int(low[1]), int(high[1]))
        self._require_small(around)
        line = edits.stroke_mask(
            (around[0][1] - around[0][0], around[1][1] - around[1][0]),
            self.edit.points - low,
            edits.CUT_RADIUS_PX,
        )
        numbers = edits.touched(self._read(around), line)
        window = self._window_of(numbers.tolist())
        offset = np.array([window[0][0], window[1][0]])
        labels = self._read(window)
        line = edits.stroke_mask(labels.shape, self.edit.points - offset, edits.CUT_RADIUS_PX)
        yield self._change(window, edits.split_object(labels, line, self.annotation.next_number))

    def _window_of(self, numbers: list[int]) -> Window:
        """Return the part of the plane in which objects have pixels.

        Raises:
            DataError: if there is no object.
        """
        boxes = self.annotation.boxes_with(numbers)
        if not boxes:
            raise _no_object()
        axes = [axis for axis in range(3) if axis != "zyx".index(self.edit.plane)]
        spans = [
            (min(box[axis][0] for box in boxes), max(box[axis][1] for box in boxes))
            for axis in axes
        ]
        window = spans[0], spans[1]
        self._require_small(window)
        return window

    def _require_small(self, window: Window) -> None:
        (top, bottom), (left, right) = window
        if (bottom - top) * (right - left) > MAX_REGION_PX:
            raise DataError(
                "The region is too large.",
                code="region_too_large",
                hint="Enclose part of it with a line, or use a polygon.",
            )

    def _touched_objects(self) -> np.ndarray:
        """Return the numbers of the objects that the points, and the line through them, touch."""
        low, high = self._limits(self.edit.radius_px)
        window = (int(low[0]), int(high[0])), (int(low[1]), int(high[1]))
        self._require_small(window)
        labels = self._read(window)
        radius = max(0.5, self.edit.radius_px)
        line = edits.stroke_mask(labels.shape, self.edit.points - low, radius)
        found = edits.touched(labels, line)
        first = self._at(self.edit.points[0])
        if first in found.tolist():
            found = np.array([first, *(n for n in found.tolist() if n != first)], found.dtype)
        return found

    def _merge_objects(self) -> Changes:
        chosen = self._touched_objects()
        edits.merge_objects(np.zeros((1, 1), self.annotation.dtype), chosen)
        return self._replace_numbers(chosen.tolist(), int(chosen[0]))

    def _delete_object(self) -> Changes:
        number = self._at(np.array(self._first_pixel()))
        if number in (None, 0, self.annotation.unknown):
            raise _no_object()
        return self._replace_numbers([int(number or 0)], 0)

    def _replace_numbers(self, numbers: list[int], value: int) -> Changes:
        """Replace object numbers in the whole image or volume, tile by tile."""
        for box in self.annotation.boxes_with(numbers):
            labels = self.annotation.read(box)
            labels[np.isin(labels, numbers)] = value
            yield box, labels

    def _fill_rest(self) -> Changes:
        for box in self.annotation.tile_boxes():
            labels = self.annotation.read(box)
            labels[labels == self.annotation.unknown] = 0
            yield box, labels

    def _clear(self) -> Changes:
        for box in self.annotation.tile_boxes():
            shape = [last - first for first, last in box]
            yield box, np.full(shape, self.annotation.unknown, self.annotation.dtype)

    def _require_prediction(self) -> StoredPrediction:
        if self.prediction is None:
            raise DataError(
                "The image has no prediction.",
                code="no_prediction",
                hint="Train a model and predict the image first.",
            )
        return self.prediction

    def _predicted(self, window: Window) -> np.ndarray:
        prediction = self._require_prediction()
        own = self.edit
        return prediction.classes(own.plane, own.index, window, 1, own.threshold)

    def _accept(self) -> Changes:
        """Return the whole prediction, tile by tile."""
        prediction = self._require_prediction()
        return accepted_tiles(self.annotation, prediction, self.edit.threshold)

    def _accept_object(self) -> Changes:
        """Copy the predicted object at a point, except where something else is drawn.

        Raises:
            DataError: if all of it is drawn already.
        """
        prediction = self._require_prediction()
        separates = self.annotation.are_objects and prediction.has_objects

        def read(window: Window) -> np.ndarray:
            if separates:
                return prediction.objects(self.edit.plane, self.edit.index, window, 1)
            return self._predicted(window)

        window, region = self._region(read, _predicted_at)
        free = region & np.isin(self._read(window), (0, self.annotation.unknown))
        if not free.any():
            raise DataError(
                "All pixels of this object are already annotated.",
                code="edit_without_effect",
                hint="To replace the existing annotation, delete it first.",
            )
        row, column = self._first_pixel()
        pixel = (row, row + 1), (column, column + 1)
        if not self.annotation.are_objects:
            return self._set(window, free, int(self._predicted(pixel)[0, 0]))
        number = self._number_beside(prediction, window, int(read(pixel)[0, 0])) if separates else 0
        return self._set(window, free, number or self.annotation.next_number)

    def _number_beside(self, prediction: StoredPrediction, window: Window, predicted: int) -> int:
        """Return the number that most of a predicted object has in the planes next to this one.

        With it, slices of one object that are accepted one after another become one object. It is 0
        if there is none.
        """
        own, found = self.edit, []
        depth = self.annotation.grid.shape["zyx".index(own.plane)]
        for index in (own.index - 1, own.index + 1):
            if 0 <= index < depth:
                inside = prediction.objects(own.plane, index, window, 1) == predicted
                drawn = self.annotation.read_plane(own.plane, index, window)[inside]
                found.append(drawn[(drawn != 0) & (drawn != self.annotation.unknown)])
        numbers, counts = np.unique(np.concatenate(found or [np.zeros(0)]), return_counts=True)
        return int(numbers[counts.argmax()]) if len(numbers) else 0


def _predicted_at(labels: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    if labels[point] == 0:
        raise _no_object()
    return edits.component_at(labels == labels[point], point)


def _no_object() -> DataError:
    return DataError(
        "There is no object at this point.",
        code="no_object_here",
        hint="Click inside an object.",
    )
