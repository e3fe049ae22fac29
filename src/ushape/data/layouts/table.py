"""A table of images and masks: CSV, TSV or Parquet with the columns image and mask."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch, index_images
from ushape.data.layouts.names import SPLIT_WORDS, key_below
from ushape.errors import DataError
from ushape.formatting import reason
from ushape.types import Split

TABLES = (".csv", ".tsv", ".parquet")

_OWN = ("image", "mask", "group", "split")


def find_table(folder: Path) -> LayoutMatch | None:
    """Reads the only table in the folder that has the columns image and mask.

    Raises:
        DataError: several such tables, or as `read_table`.
    """
    there = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in TABLES and path.is_file() and not path.name.startswith(".")
    ]
    fitting = [path for path in there if {"image", "mask"} <= set(_columns_of(path))]
    if not fitting:
        return None
    if len(fitting) > 1:
        raise DataError(
            f"{folder}: several tables of images and masks: {', '.join(p.name for p in fitting)}.",
            hint=f"Name one: ushape train {fitting[0]}",
        )
    return read_table(fitting[0])


def read_table(path: Path) -> LayoutMatch:
    """The pairs that a table lists. Paths in it are relative to its folder.

    Columns group and split (train, validation or test) are used, others kept with the case. A row
    without mask is left out.

    Raises:
        DataError: not readable; columns missing; a file that is not there; an image listed
            twice; a group or split left empty in some rows; an unknown split.
    """
    rows = _rows_of(path)
    if not rows or not {"image", "mask"} <= rows[0].keys():
        seen = ", ".join(rows[0]) if rows else "no rows"
        raise DataError(
            f"{path}: no columns image and mask ({seen}).",
            hint="The first line names the columns: image,mask, and if you like group,split.",
        )
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
    """The images that a table lists, with their group, '' where it states none.

    Raises:
        DataError: not readable; no column image; a file that is not there.
    """
    rows = _rows_of(path)
    if not rows or "image" not in rows[0]:
        seen = ", ".join(rows[0]) if rows else "no rows"
        raise DataError(
            f"{path}: no column image ({seen}).", hint="The first line names the columns."
        )
    _refuse_missing(path, rows)
    return [(path.parent / row["image"], row.get("group", "")) for row in rows]


def _refuse_missing(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Every named file is there, and a column of groups is full."""
    gone = [
        row[column]
        for row in rows
        for column in ("image", "mask")
        if column in row
        and ((not row[column] and column == "image") or not (path.parent / row[column]).exists())
    ]
    if gone:
        raise DataError(
            f"{path}: {len(gone)} files are not there, first {gone[0] or '(an empty cell)'}.",
            hint=f"Paths in the table are relative to {path.parent}.",
        )
    bare = [row["image"] for row in rows if not row.get("group", "x")]
    if bare:
        raise DataError(
            f"{path}: {len(bare)} images have no group, first {bare[0]}.",
            hint="Name a group for every image, or leave the column out.",
        )


def _has_splits(path: Path, rows: Sequence[Mapping[str, str]]) -> bool:
    empty = [row["image"] for row in rows if not row.get("split")]
    if empty and len(empty) < len(rows):
        raise DataError(
            f"{path}: {len(empty)} images have no split, first {empty[0]}.",
            hint="Name train, validation or test for every image, or leave the column out.",
        )
    return not empty


def _split_of(path: Path, row: Mapping[str, str]) -> Split:
    word = row["split"].lower()
    if word not in SPLIT_WORDS:
        raise DataError(
            f"{path}: {row['image']} has the split {row['split']!r}.",
            hint="Known are train, validation (val) and test.",
        )
    return SPLIT_WORDS[word]


def _columns_of(path: Path) -> list[str]:
    """The names of the columns; none where the file cannot be read."""
    try:
        if path.suffix.lower() == ".parquet":
            return list(_rows_of(path)[0])
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
    except (OSError, ValueError, DataError, IndexError):
        return []
    return [name.strip().lower() for name in first.strip().split(_joint_of(path, first))]


def _rows_of(path: Path) -> list[dict[str, str]]:
    """Rows by the names of the columns, in small letters; cells stripped of blanks.

    Raises:
        DataError: not readable; a row of another length than the first; pyarrow is missing.
    """
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            joint = _joint_of(path, file.readline())
            file.seek(0)
            lines = [line for line in csv.reader(file, delimiter=joint) if any(line)]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: not readable: {reason(error)}.", hint="Save the table as CSV in UTF-8."
        ) from None
    if not lines:
        return []
    names = [name.strip().lower() for name in lines[0]]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(names):
            raise DataError(
                f"{path}: row {number} has {len(line)} cells, the first row {len(names)}.",
                hint="Put cells that hold the separator in quotation marks.",
            )
    return [dict(zip(names, (cell.strip() for cell in line), strict=True)) for line in lines[1:]]


def _joint_of(path: Path, first: str) -> str:
    """What separates the cells; some spreadsheets write CSV with semicolons."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    return ";" if first.count(";") > first.count(",") else ","


def _parquet_rows(path: Path) -> list[dict[str, str]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path}: Parquet needs another package.",
            hint="pip install pyarrow installs it; or save the table as CSV.",
        ) from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path}: not readable: {reason(error)}.", hint="Save the table again."
        ) from None
    return [
        {
            str(name).strip().lower(): "" if value is None else str(value)
            for name, value in row.items()
        }
        for row in rows
    ]
