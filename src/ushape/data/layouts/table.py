"""Tables of images and masks: CSV, TSV or Parquet with the columns image and mask."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch, index_images
from ushape.data.layouts.listing import entries_of
from ushape.data.layouts.names import SPLIT_WORDS, key_below
from ushape.errors import DataError
from ushape.formatting import pluralize, quoted, reason
from ushape.io.names import comparable
from ushape.io.text_files import first_line, open_text, separator_of
from ushape.types import Split

TABLES = (".csv", ".tsv", ".parquet")

_OWN = ("image", "mask", "group", "split")


def find_table(folder: Path) -> LayoutMatch | None:
    """Find the table in the folder that has the columns image and mask.

    Raises:
        DataError: if there are several such tables, or as `read_table`.
    """
    there = [
        path
        for path in entries_of(folder).others
        if path.suffix.lower() in TABLES and path.is_file() and not path.name.startswith(".")
    ]
    fitting = [path for path in there if {"image", "mask"} <= set(_columns_of(path))]
    if not fitting:
        return None
    if len(fitting) > 1:
        raise DataError(
            f"{folder}: several tables list masks: {', '.join(path.name for path in fitting)}.",
            code="ambiguous_tables",
            hint=f"Specify one of them: ushape train {quoted(fitting[0])}",
        )
    return read_table(fitting[0])


def read_table(path: Path) -> LayoutMatch:
    """Read the pairs that a table lists. Paths in it are relative to its folder.

    The columns group and split (train, validation or test) are used, other columns are kept with
    the case. Rows without a mask are skipped.

    Raises:
        DataError: if the table cannot be read, if a column or a file is missing, if an image is
            listed twice, if a group or split is empty in some rows, or if a split is unknown.
    """
    rows = _rows_of(path)
    if not {"image", "mask"} <= rows[0].keys():
        raise DataError(
            f"{path}: the columns image and mask are missing (found: {', '.join(rows[0])}).",
            code="missing_columns",
            hint="Write the names of the columns in the first line: image,mask, and optionally "
            "group,split.",
        )
    _refuse_repeated(path, rows)
    rows = _with_paths(path, rows)
    _refuse_missing(path, rows)
    keyed = [(key_below(path.parent / row["image"], path.parent), row) for row in rows]
    images = index_images([(key, path.parent / row["image"]) for key, row in keyed])
    return LayoutMatch(
        layout=f"the table {path.name}",
        images=images,
        masks={key: path.parent / row["mask"] for key, row in keyed if row["mask"]},
        groups={key: row["group"] for key, row in keyed} if "group" in rows[0] else {},
        splits=(
            {key: _split_of(path, row) for key, row in keyed} if _has_splits(path, rows) else {}
        ),
        metadata={
            key: {name: value for name, value in row.items() if name not in _OWN}
            for key, row in keyed
        },
    )


def read_images(path: Path) -> list[tuple[Path, str]]:
    """Return the images that a table lists, with their group, '' if it defines none.

    Raises:
        DataError: if the table cannot be read, or if the column image or a file is missing.
    """
    rows = _rows_of(path)
    if "image" not in rows[0]:
        raise DataError(
            f"{path}: the column image is missing (found: {', '.join(rows[0])}).",
            code="missing_columns",
            hint="Write the names of the columns in the first line.",
        )
    rows = _with_paths(path, rows)
    _refuse_missing(path, rows)
    return [(path.parent / row["image"], row.get("group", "")) for row in rows]


def _refuse_repeated(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Check that no image is listed twice, before millions of files are looked for."""
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        if row["image"] and row["image"] in seen:
            raise DataError(
                f"{path}: row {number} lists {row['image']} again.",
                code="ambiguous_image",
                hint="Remove one of the rows: a mask must belong to one image.",
            )
        seen.add(row["image"])


def _with_paths(path: Path, rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the rows with the paths of existing files, as far as they can be found.

    Tables of Windows separate folders by backslashes, and do not distinguish upper case.
    """
    names: dict[Path, dict[str, str]] = {}

    def resolve(cell: str) -> str:
        if not cell or cell.startswith("/") or (path.parent / cell).exists():
            return cell
        place = path.parent
        for part in cell.replace("\\", "/").split("/"):
            if place not in names:
                inside = sorted(place.iterdir()) if place.is_dir() else []
                names[place] = {comparable(one.name): one.name for one in inside}
            place = place / (
                part if (place / part).exists() else names[place].get(comparable(part), part)
            )
        return place.relative_to(path.parent).as_posix() if place.exists() else cell

    return [
        dict(row) | {column: resolve(row[column]) for column in ("image", "mask") if column in row}
        for row in rows
    ]


def _refuse_missing(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Check that every named file exists and that a column of groups is complete."""
    gone = [
        row[column]
        for row in rows
        for column in ("image", "mask")
        if column in row
        and ((not row[column] and column == "image") or not (path.parent / row[column]).exists())
    ]
    if gone:
        first = gone[0] or "(an empty cell)"
        raise DataError(
            f"{path}: {pluralize(len(gone), 'file')} not found, first {first}.",
            code="listed_files_missing",
            hint=f"Paths in the table are relative to {path.parent}.",
        )
    bare = [row["image"] for row in rows if not row.get("group", "x")]
    if bare:
        raise DataError(
            f"{path}: {pluralize(len(bare), 'image')} without a group, first {bare[0]}.",
            code="incomplete_column",
            hint="Specify a group for every image, or omit the column.",
        )


def _has_splits(path: Path, rows: Sequence[Mapping[str, str]]) -> bool:
    empty = [row["image"] for row in rows if not row.get("split")]
    if empty and len(empty) < len(rows):
        raise DataError(
            f"{path}: {pluralize(len(empty), 'image')} without a split, first {empty[0]}.",
            code="incomplete_column",
            hint="Specify train, validation or test for every image, or omit the column.",
        )
    return not empty


def _split_of(path: Path, row: Mapping[str, str]) -> Split:
    word = row["split"].lower()
    if word not in SPLIT_WORDS:
        raise DataError(
            f"{path}: the split of {row['image']} is {row['split']!r}.",
            code="unknown_split",
            hint="Use train, validation (or val) or test.",
        )
    return SPLIT_WORDS[word]


def _columns_of(path: Path) -> list[str]:
    """Return the names of the columns; none if the file cannot be read."""
    try:
        if path.suffix.lower() == ".parquet":
            return list(_rows_of(path)[0])
        with open_text(path) as file:
            first = first_line(file)
    except (OSError, ValueError, DataError, IndexError):
        return []
    names = first.strip().split(separator_of(path, first))
    return [name.strip().strip('"').lower() for name in names]


def _rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows by lower-case column names, without whitespace around the cells.

    Raises:
        DataError: if the table cannot be read, if it has no rows, if a row differs in length from
            the first, or if pyarrow is missing.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _text_rows(path)
    if not rows:
        raise DataError(
            f"{path}: the table has no rows.",
            code="empty_table",
            hint="Write the names of the columns (image, mask) in the first line, and one pair of "
            "files in each of the following lines.",
        )
    return rows


def _text_rows(path: Path) -> list[dict[str, str]]:
    try:
        with open_text(path) as file:
            first = first_line(file)
            separator = separator_of(path, first)
            rest = csv.reader(itertools.chain([first], file), delimiter=separator)
            lines = [line for line in rest if any(line)]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read: {reason(error)}.",
            code="unreadable_text",
            hint="Save the table as CSV in UTF-8.",
        ) from None
    if not lines:
        return []
    names = [name.strip().lower() for name in lines[0]]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(names):
            raise DataError(
                f"{path}: row {number} has {len(line)} cells, but the first row has {len(names)}.",
                code="uneven_rows",
                hint="Put cells that contain the separator in quotation marks.",
            )
    return [dict(zip(names, (cell.strip() for cell in line), strict=True)) for line in lines[1:]]


def _parquet_rows(path: Path) -> list[dict[str, str]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet requires the package pyarrow.",
            code="missing_package",
            hint="Install it with pip install pyarrow, or save the table as CSV.",
        ) from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path}: cannot be read: {reason(error)}.",
            code="damaged_file",
            hint="Save the table again.",
        ) from None
    return [
        {
            str(name).strip().lower(): "" if value is None else str(value)
            for name, value in row.items()
        }
        for row in rows
    ]
