"""Names of the classes that a data folder states, and the files that list them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ushape.errors import DataError
from ushape.formatting import pluralize, reason
from ushape.io.annotations import JSON_HINT
from ushape.io.files import read_json


@dataclass(frozen=True, kw_only=True)
class StatedClasses:
    """Class names that a data folder states, background first, and their mask values."""

    source: Path
    """File or folder that states them."""

    names: tuple[str, ...] = ()
    values: tuple[int, ...] | None = None
    """Mask value of each name; None for the values found in the masks, in ascending order."""

    ignore: int | None = None
    """Mask value of pixels that are excluded from loss and scores."""

    regions: Mapping[str, tuple[int, ...]] | None = None
    """Mask values of each overlapping region, the largest region first."""

    are_objects: bool = False
    """Whether mask values are object ids, so that everything except 0 is foreground."""

    @property
    def rule(self) -> str:
        """Origin of the classes, in words."""
        if self.are_objects:
            return "one mask per object, all of them foreground"
        return f"classes as named in {self.source.name}"


def read_class_names(folder: Path) -> StatedClasses | None:
    """Read classes.txt, classes.json or classes.csv in a folder; None if there is none.

    The text file has one name per line, background first. JSON holds {"0": "background", ...} or a
    list of names. CSV has the columns value and name.

    Raises:
        DataError: if there are two such files, or one that cannot be interpreted.
    """
    readers = {"classes.txt": _read_lines, "classes.json": _read_json, "classes.csv": _read_csv}
    there = [folder / name for name in readers if (folder / name).is_file()]
    if not there:
        return None
    if len(there) > 1:
        raise DataError(
            f"{folder}: several files name the classes: {', '.join(p.name for p in there)}.",
            code="ambiguous_class_names",
            hint="Keep one of them.",
        )
    stated = readers[there[0].name](there[0])
    if len(stated.names) < 2:
        raise DataError(
            f"{there[0]} names {pluralize(len(stated.names), 'class')}.",
            code="invalid_class_names",
            hint="Name every class, background first.",
        )
    repeated = {name for name in stated.names if stated.names.count(name) > 1}
    if repeated:
        raise DataError(
            f"{there[0]}: two classes are named {min(repeated)}.",
            code="invalid_class_names",
            hint="Use a unique name for each class.",
        )
    return stated


def merge_classes(found: Iterable[StatedClasses | None]) -> StatedClasses | None:
    """Combine the classes that several parts of a data set state.

    Raises:
        DataError: if one value has two names.
    """
    stated = [one for one in found if one is not None]
    if not stated or any(one.values is None for one in stated):
        return stated[0] if stated else None
    name_of: dict[int, str] = {}
    for one in stated:
        for value, name in zip(one.values or (), one.names, strict=True):
            if name_of.setdefault(value, name) != name:
                raise DataError(
                    f"The mask value {value} is named {name} in {one.source}, but {name_of[value]} "
                    f"in {stated[0].source}.",
                    code="conflicting_class_names",
                    hint="Use the same classes in the same order in all parts.",
                )
    return classes_by_value(stated[0].source, name_of, ignore=stated[0].ignore)


def classes_by_value(
    source: Path, name_of: Mapping[int, str], ignore: int | None = None
) -> StatedClasses:
    """Return the classes in the order of their values."""
    values = tuple(sorted(name_of))
    return StatedClasses(
        source=source, names=tuple(name_of[v] for v in values), values=values, ignore=ignore
    )


def _read_lines(path: Path) -> StatedClasses:
    names = filter(None, map(str.strip, _text_of(path).splitlines()))
    return StatedClasses(source=path, names=tuple(names))


def _read_json(path: Path) -> StatedClasses:
    stated: Any = read_json(path, DataError, code="json_invalid", hint=JSON_HINT)
    if isinstance(stated, list) and all(isinstance(name, str) for name in stated):
        return StatedClasses(source=path, names=tuple(stated))
    if isinstance(stated, dict):
        return classes_by_value(
            path, {_value(path, value): str(name) for value, name in stated.items()}
        )
    raise DataError(
        f"{path}: contains neither a list of names nor values with names.",
        code="invalid_class_names",
        hint='Write ["background", "cell"] or {"0": "background", "1": "cell"}.',
    )


def _read_csv(path: Path) -> StatedClasses:
    rows = list(csv.DictReader(_text_of(path).splitlines(), skipinitialspace=True))
    name_of: dict[int, str] = {}
    for row in rows:
        if not {"value", "name"} <= row.keys() or not row["name"]:
            raise DataError(
                f"{path}: a row lacks one of the columns value and name.",
                code="invalid_class_names",
                hint="Write value,name in the first line, then one class per line.",
            )
        value = _value(path, row["value"])
        if value in name_of:
            raise DataError(
                f"{path}: the value {value} is listed twice.",
                code="invalid_class_names",
                hint="Keep one of the rows.",
            )
        name_of[value] = row["name"].strip()
    return classes_by_value(path, name_of)


def _value(path: Path, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(
            f"{path}: {text!r} is not a mask value.",
            code="invalid_class_names",
            hint="Write mask values as integers.",
        ) from None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read: {reason(error)}.",
            code="unreadable_text",
            hint="Save the file as UTF-8.",
        ) from None
