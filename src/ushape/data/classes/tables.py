"""Read tables of classes from annotation tools and public datasets.

A table contains the name of each class and, in most cases, its mask value or its color.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ushape.data.classes.names import StatedClasses
from ushape.errors import DataError
from ushape.formatting import reason
from ushape.io.files import read_json
from ushape.io.text_files import open_text, separator_of

FILES = (
    "classes.csv", "class_dict.csv", "_classes.csv", "label_colors.csv", "labelmap.csv",
    "colormap.csv", "classes.json", "labels.json", "labelmap.json", "label_map.json", "meta.json",
    "classes.txt", "_classes.txt", "class_names.txt", "label_names.txt", "labels.txt",
    "labelmap.txt", "label_map.txt", "label_colors.txt", "colormap.txt", "codes.txt", "obj.names",
)  # fmt: skip
"""Names of tables of classes, in lower case, the most specific first."""

COLUMNS = {
    "value": ("value", "pixelvalue", "pixel", "id", "index", "labelid", "classid", "code", "label"),
    "name": ("name", "class", "classname", "label", "labelname", "title", "category", "readable"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
    "color": ("color", "colour", "hex", "rgb", "colorrgb", "colorhex", "hexcolor", "hexcode"),
}
"""Titles of columns, and keys of JSON objects, in lower case and without separators."""

BACKGROUND = ("background", "_background_", "bg", "backgr", "__background__")

HINT = (
    "Write value,name or name,r,g,b in the first line, then one class per line, background first; "
    "or list the classes with --set labels.values=[...] and --set labels.names=[...]."
)
MAX_BYTES = 1_000_000
"""Size of a table above which it is something else."""


MAX_MASKS = 50
"""Number of masks in whose folders tables are searched."""


@dataclass(frozen=True)
class ClassRow:
    """One class of a table."""

    name: str
    value: int | None = None
    color: int | None = None


def folders_of_names(data: Path, masks: Path | None, files: Sequence[Path]) -> list[Path]:
    """Return the folders in which a table of classes may lie, the most likely first.

    Args:
        data: Data folder, or a table or COCO file in it.
        masks: Folder of the masks, if the user names it.
        files: Mask files that are used.
    """
    folder = data if data.is_dir() else data.parent
    places = [folder, *([masks, masks.parent] if masks is not None else [])]
    for path in files[:: max(1, len(files) // MAX_MASKS)]:
        places += [place for place in path.parents if place.is_relative_to(folder)]
    return list(dict.fromkeys(places))


def read_class_names(*places: Path | None) -> StatedClasses | None:
    """Read the first table of classes in some folders; None if there is none.

    Tables that are not understood, or contradict the first one, are named in `problem` of the
    result, and not used.
    """
    tables = [path for place in places if place is not None for path in _tables_in(place)]
    problems: list[tuple[Path, DataError]] = []
    found: StatedClasses | None = None
    for path in dict.fromkeys(tables):
        try:
            stated = _read_table(path)
        except DataError as error:
            problems.append((path, error))
            continue
        if found is None:
            found = stated
    if found is None and problems:
        path, failure = problems[0]
        text = f"The class names are not used, because {failure.message}"
        return StatedClasses(source=path, problem=text, problem_fix=failure.hint)
    return found


def _tables_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    there = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
    return [there[name] for name in FILES if name in there]


def _read_table(path: Path) -> StatedClasses:
    """Read one table.

    Raises:
        DataError: if it cannot be interpreted.
    """
    if path.stat().st_size > MAX_BYTES:
        raise _not_understood(path, "it is too large for a list of classes")
    if path.suffix.lower() == ".json":
        rows = list(_rows_of_json(path))
    else:
        lines = [line.strip() for line in _text_of(path).splitlines()]
        lines = [line for line in lines if line]
        rows = _rows_of_csv(path, lines) if path.suffix.lower() == ".csv" else _rows_of_lines(lines)
    return _as_classes(path, rows)


def _as_classes(path: Path, rows: Sequence[ClassRow]) -> StatedClasses:
    """Combine the rows of a table, background first.

    Raises:
        DataError: if there are fewer than two classes, or a name, value or color is repeated.
    """
    if len(rows) < 2 and not (len(rows) == 1 and rows[0].value is None):
        raise _not_understood(path, f"it names {len(rows)} classes")
    for what in ("name", "value", "color"):
        own = [getattr(row, what) for row in rows]
        repeated = [one for one in own if one is not None and own.count(one) > 1]
        if repeated:
            raise _not_understood(path, f"the {what} {repeated[0]} is listed twice")
    have_values = all(row.value is not None for row in rows)
    have_colors = all(row.color is not None for row in rows)
    if have_values:
        rows = sorted(rows, key=lambda row: row.value or 0)
    if have_values or have_colors:
        rows = sorted(rows, key=_is_foreground)
    return StatedClasses(
        source=path,
        names=tuple(row.name for row in rows),
        values=tuple(row.value or 0 for row in rows) if have_values else None,
        colors=tuple(row.color or 0 for row in rows) if have_colors else None,
    )


def _is_foreground(row: ClassRow) -> tuple[bool, bool]:
    return row.name.lower() not in BACKGROUND, row.color != 0


def _rows_of_csv(path: Path, lines: Sequence[str]) -> list[ClassRow]:
    """Read columns by their titles; without titles, value and name."""
    separator = separator_of(path, lines[0] if lines else "")
    table = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=separator))
    table = [[cell.strip() for cell in row] for row in table if row]
    if not table:
        return []
    place = _columns_of(table[0])
    if "name" not in place:
        if all(len(row) == 2 and row[0].lstrip("-").isdigit() for row in table):
            return [ClassRow(row[1], int(row[0])) for row in table]
        raise _not_understood(path, f"no column of {', '.join(table[0][:6])} holds the names")
    rows = []
    for row in table[1:]:
        if len(row) <= max(place.values()):
            raise _not_understood(path, f"the row {separator.join(row)} is incomplete")
        rows.append(_row_of(path, {key: row[index] for key, index in place.items()}))
    return rows


def _columns_of(titles: Sequence[str]) -> dict[str, int]:
    """Return the index of each column that is recognized; of "label", the one next to the names."""
    plain = [re.sub(r"[\s_#-]", "", title).lower() for title in titles]
    found: dict[str, int] = {}
    for what in ("name", "red", "green", "blue", "color", "value"):
        for title in COLUMNS[what]:
            if title in plain and plain.index(title) not in found.values():
                found[what] = plain.index(title)
                break
    return found


def _row_of(path: Path, cells: Mapping[str, Any]) -> ClassRow:
    """Build a class from its cells.

    Raises:
        DataError: if a name is missing, or a value or color is not one.
    """
    name = str(cells["name"]).strip()
    if not name:
        raise _not_understood(path, "a class has no name")
    value, color = cells.get("value"), cells.get("color")
    if {"red", "green", "blue"} <= cells.keys():
        color = [cells[channel] for channel in ("red", "green", "blue")]
    try:
        return ClassRow(
            name,
            None if value in (None, "") else int(value),
            None if color in (None, "", []) else parse_color(color),
        )
    except (TypeError, ValueError) as error:
        raise _not_understood(path, f"{error}") from None


def parse_color(color: Any) -> int:
    """Return the code of a color: "#rrggbb", "r, g, b" or three numbers.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(color, str):
        text = color.strip()
        if match := re.fullmatch(r"(?:#|0x)?([0-9a-fA-F]{6})", text):
            return int(match[1], 16)
        color = re.findall(r"\d+", text)
    if isinstance(color, Sequence) and len(color) in (3, 4):
        channels = [int(channel) for channel in color[:3]]
        if all(0 <= channel <= 255 for channel in channels):
            return channels[0] << 16 | channels[1] << 8 | channels[2]
    raise ValueError(f"{color!r} is not a color")


CVAT_LINE = re.compile(r"(?P<name>[^:]+):\s*(?P<color>\d+,\s*\d+,\s*\d+)?\s*(:.*)?")
COLOR_FIRST = re.compile(r"(?P<color>\d{1,3}[\s,;]+\d{1,3}[\s,;]+\d{1,3})[\s,;]+(?P<name>.*\D.*)")
COLOR_LAST = re.compile(r"(?P<name>.*[^\s\d,;:].*?)[\s,;:]+(?P<color>\d{1,3}([\s,;]+\d{1,3}){2})")
VALUE_FIRST = re.compile(r"(?P<value>\d+)\s*[:,;=\s]\s*(?P<name>.*\D.*)")
VALUE_LAST = re.compile(r"(?P<name>.*\D.*?)\s*[:,;=]\s*(?P<value>\d+)")


def _rows_of_lines(lines: Sequence[str]) -> list[ClassRow]:
    """Read one class per line; the first form that fits all lines is used."""
    lines = [line for line in lines if not line.startswith(("#", "//"))]
    for form in (COLOR_FIRST, COLOR_LAST, CVAT_LINE, VALUE_FIRST, VALUE_LAST):
        matches = [form.fullmatch(line) for line in lines]
        if lines and all(matches):
            found = [match.groupdict() for match in matches if match is not None]
            return [
                ClassRow(
                    own["name"].strip().strip("\"'"),
                    int(own["value"]) if own.get("value") else None,
                    parse_color(own["color"]) if own.get("color") else None,
                )
                for own in found
            ]
    return [ClassRow(line) for line in lines]


def _rows_of_json(path: Path) -> Iterable[ClassRow]:
    """Read a list of names or of objects, or an object of names with values or colors.

    Raises:
        DataError: if the content is neither.
    """
    stated: Any = read_json(path, DataError, code="json_invalid", hint=HINT)
    for key in ("classes", "labels", "categories", "names"):
        if isinstance(stated, Mapping) and isinstance(stated.get(key), list | dict):
            stated = stated[key]
    if isinstance(stated, list):
        for one in stated:
            if isinstance(one, str):
                yield ClassRow(one.strip())
            elif isinstance(one, Mapping):
                keys = list(one)
                place = _columns_of([str(key) for key in keys])
                if "name" not in place:
                    raise _not_understood(path, f"no key of {', '.join(map(str, keys[:6]))} names")
                cells = {what: one[keys[index]] for what, index in place.items()}
                yield _row_of(path, _without_text_ids(cells))
            else:
                raise _not_understood(path, f"{one!r} is not a class")
    elif isinstance(stated, Mapping):
        for key, value in stated.items():
            yield _row_of_pair(path, str(key), value)
    else:
        raise _not_understood(path, "it contains neither a list nor an object")


def _without_text_ids(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out ids that are not mask values, such as those of a data base."""
    value = cells.get("value")
    is_number = isinstance(value, int) or (isinstance(value, str) and value.isdigit())
    return {key: cell for key, cell in cells.items() if key != "value" or is_number}


def _row_of_pair(path: Path, key: str, value: Any) -> ClassRow:
    """Read value: name, name: value, or name: color."""
    if key.lstrip("-").isdigit() and isinstance(value, str):
        return ClassRow(value.strip(), int(key))
    if re.fullmatch(r"#[0-9a-fA-F]{6}", key) and isinstance(value, str):
        return ClassRow(value.strip(), color=parse_color(key))
    if isinstance(value, int) and not isinstance(value, bool):
        return ClassRow(key.strip(), value)
    return _row_of(path, {"name": key, "color": value})


def _text_of(path: Path) -> str:
    """Read a text in any of the encodings of `open_text`.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        with open_text(path) as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise _not_understood(path, f"it cannot be read: {reason(error)}") from None


def _not_understood(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be interpreted: {why}.", code="invalid_class_names", hint=HINT)
