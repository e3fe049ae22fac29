"""CSV tables of run lengths, as in Kaggle competitions: one row per object or per image."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ushape.errors import DataError
from ushape.formatting import reason
from ushape.io.annotations.shapes import ImageShapes, Runs, Shape
from ushape.io.caching import keep_latest
from ushape.io.rle import Order
from ushape.io.text_files import first_line, open_text, separator_of

RUN_COLUMNS: dict[str, Order] = {
    "encodedpixels": "column",
    "encoded_pixels": "column",
    "rle": "column",
    "encoding": "column",
    "rle_mask": "row",
}
"""Columns of run lengths, in lower case, and the order in which their pixels are counted: down the
columns of the image, or along its rows as in the Carvana competition."""

IMAGE_COLUMNS = (
    "imageid", "image_id", "image", "img", "id", "filename", "file_name", "image_name",
)  # fmt: skip
CLASS_COLUMNS = ("classid", "class_id", "class", "label", "category", "category_id")

JOINED = "imageid_classid"
"""Column of an image name and a class, joined by an underscore."""

NO_OBJECT = ("", "-1")
"""Run lengths of an image without object."""

MAX_CELL = 2**28
"""Largest number of characters in a cell; the csv module accepts 131072 by default."""


@dataclass(frozen=True)
class RunColumns:
    """Positions of the columns in a table of run lengths."""

    image: int
    runs: int
    label: int | None
    order: Order
    names: tuple[str, ...]

    @property
    def is_joined(self) -> bool:
        """Whether the first column holds image and class."""
        return self.names[self.image].lower() == JOINED


def find_run_columns(path: Path) -> RunColumns | None:
    """Return the columns of a table by its first line, None if it has no run lengths."""
    try:
        with open_text(path) as file:
            first = first_line(file)
    except (OSError, ValueError):
        return None
    names = [name.strip().strip('"') for name in first.split(separator_of(path, first))]
    lower = [name.lower() for name in names]
    runs = next((lower.index(name) for name in RUN_COLUMNS if name in lower), None)
    image = next((lower.index(name) for name in (*IMAGE_COLUMNS, JOINED) if name in lower), None)
    if runs is None or image is None:
        return None
    label = next((lower.index(name) for name in CLASS_COLUMNS if name in lower), None)
    return RunColumns(image, runs, label, RUN_COLUMNS[lower[runs]], tuple(names))


@keep_latest(files=2)
def read_run_table(path: Path) -> Mapping[str, ImageShapes]:
    """Read the runs of all images by the name in the table; the last two tables are cached.

    Rows with equal names are objects of one image. The label is that of the column of classes, or
    "foreground". Runs are checked when they are drawn.

    Raises:
        DataError: if the table cannot be read or has no run lengths, or if a row has another number
            of cells than the first line.
    """
    columns = find_run_columns(path)
    if columns is None:
        raise _invalid(path, "the first line has no columns for images and run lengths")
    found: dict[str, list[Shape]] = {}
    for number, row in _rows_of(path):
        if len(row) != len(columns.names):
            raise _invalid(
                path, f"row {number} has {len(row)} cells instead of {len(columns.names)}"
            )
        name, label = row[columns.image].strip(), "foreground"
        if columns.is_joined:
            name, _, label = name.rpartition("_")
        elif columns.label is not None:
            label = row[columns.label].strip() or label
        shapes = found.setdefault(name, [])
        text = row[columns.runs].strip()
        if text not in NO_OBJECT:
            area = Runs(text=text, order=columns.order)
            shapes.append(Shape(label=label, place=f"row {number}", area=area, kind="run lengths"))
    return {name: ImageShapes(shapes=tuple(shapes)) for name, shapes in found.items()}


def _rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows after the first line with their line numbers."""
    before = csv.field_size_limit(min(MAX_CELL, sys.maxsize))
    try:
        with open_text(path) as file:
            separator = separator_of(path, first_line(file))
            for number, row in enumerate(csv.reader(file, delimiter=separator), start=2):
                if any(row):
                    yield number, row
    except (OSError, ValueError, csv.Error) as error:
        raise _invalid(path, reason(error)) from None
    finally:
        csv.field_size_limit(before)


def _invalid(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: cannot be read as a table of run lengths: {what}.",
        code="shapes_invalid",
        hint="Write the names of the columns in the first line: ImageId,EncodedPixels, and "
        "optionally ClassId.",
    )
