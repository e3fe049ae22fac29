"""File of a run that lists its cases, with paths relative to the data folder where possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from ushape.errors import RunError, plain_finding
from ushape.formatting import display_name, file_name, pluralize
from ushape.io.files import real_path
from ushape.types import (
    Case,
    CaseFacts,
    CocoMask,
    Mask,
    MaskBox,
    MaskPage,
    MaskParts,
    ShapesFormat,
    ShapesMask,
    Split,
)

MAX_PIXELS = 2**53
"""Maximum number of pixels of a class; larger integers are not exact in JSON."""

SHOWN_FILES = 3
"""Number of changed files of each kind that a message names."""

Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
Page = Annotated[int, Field(ge=0, lt=2**31)]
Pixels = Annotated[int, Field(ge=0, le=MAX_PIXELS)]


Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _check_edge(edge: tuple[int, int]) -> tuple[int, int]:
    if not edge[0] < edge[1]:
        raise ValueError("a part of an image is empty")
    return edge


Edge = Annotated[tuple[Page, Page], AfterValidator(_check_edge)]
StoredBox = Annotated[tuple[Edge, ...], Field(min_length=2, max_length=3)]


@dataclass(frozen=True, kw_only=True)
class _StoredParts:
    parts: Annotated[tuple[Name, ...], Field(min_length=1)]
    values: tuple[Annotated[int, Field(ge=1, lt=2**32)], ...]
    are_objects: bool = False


@dataclass(frozen=True, kw_only=True)
class _StoredCoco:
    coco: Name
    image_id: int | str


@dataclass(frozen=True, kw_only=True)
class _StoredShapes:
    shapes: Name
    image: Name
    format: ShapesFormat
    entry: str
    classes: tuple[str, ...]
    box: StoredBox | None = None
    scale: tuple[Scale, Scale] = (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class _StoredPage:
    stack: Name
    page: Page


@dataclass(frozen=True, kw_only=True)
class _StoredMaskBox:
    whole: Name
    box: StoredBox
    shape: tuple[Page, ...] | None = None


_StoredMask = (
    Name | _StoredParts | _StoredCoco | _StoredShapes | _StoredPage | _StoredMaskBox | None
)


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """A case in cases.json."""

    id: Name
    group: str
    image: Name
    mask: _StoredMask
    page: Page | None = None
    box: StoredBox | None = None
    mpp: Scale | None = None
    class_pixels: Annotated[tuple[Pixels, ...], Field(max_length=256)] = ()
    channels: tuple[Name, ...] = ()
    split: Split = ""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredCases:
    """Content of cases.json. Older runs lack the values that have a default."""

    folder: Name
    """Data folder, or the folder of the table or COCO file."""

    cases: Annotated[tuple[StoredCase, ...], Field(min_length=1)]
    digest: str = ""
    command: str = ""
    data: Name = "."
    """Data that the user specified, relative to `folder`."""

    masks: Name | None = None
    files: dict[str, str] = field(default_factory=dict)
    """Checksum of each file."""


_SCHEMA = TypeAdapter(StoredCases)


def parse_cases(values: Any, path: Path) -> StoredCases:
    """Check the content of the file.

    Raises:
        RunError: if it was not written by training.
    """
    try:
        stored = _SCHEMA.validate_python(values)
        ids = [row.id for row in stored.cases]
        if len(set(ids)) < len(ids):
            raise ValueError("two cases have the same id")
    except ValueError as error:
        raise RunError(
            f"{path} was not written by training: {_first_problem(error)}.",
            code="damaged_run",
            hint="Copy the complete run folder again.",
        ) from None
    return stored


def _first_problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    found = plain_finding(first["msg"])
    return f"{place}: {found}" if place else found


def case_to_row(fact: CaseFacts, data: Path) -> dict[str, Any]:
    """Return a case as it is stored."""
    case = fact.case
    row: dict[str, Any] = {
        "id": case.id,
        "group": case.group,
        "image": relative_path(case.image, data),
        "mask": _mask_to_json(case.mask, data),
    }
    if case.page is not None:
        row["page"] = case.page
    if case.box is not None:
        row["box"] = case.box
    if case.mpp is not None:
        row["mpp"] = case.mpp
    if case.channels:
        row["channels"] = [relative_path(path, data) for path in case.channels]
    if case.split:
        row["split"] = case.split
    if case.metadata:
        row["metadata"] = dict(case.metadata)
    return {**row, "class_pixels": fact.class_pixels}


def case_from_row(row: StoredCase, data: Path) -> CaseFacts:
    """Return the case that `case_to_row` has stored."""
    case = Case(
        id=row.id,
        group=row.group,
        image=_path(row.image, data),
        mask=_mask_from_row(row.mask, data),
        channels=tuple(_path(path, data) for path in row.channels),
        page=row.page,
        box=row.box,
        mpp=row.mpp,
        split=row.split,
        metadata=row.metadata,
    )
    return CaseFacts(case, row.class_pixels)


def _mask_to_json(mask: Mask | None, data: Path) -> Any:
    """Return a path, or an object whose keys tell the type of the mask."""
    if isinstance(mask, MaskParts):
        parts = [relative_path(path, data) for path in mask.paths]
        stated = {"are_objects": True} if mask.are_objects else {}
        return {"parts": parts, "values": list(mask.values)} | stated
    if isinstance(mask, CocoMask):
        return {"coco": relative_path(mask.path, data), "image_id": mask.image_id}
    if isinstance(mask, ShapesMask):
        paths = {"shapes": relative_path(mask.path, data), "image": relative_path(mask.image, data)}
        kept = {"format": mask.format, "entry": mask.entry, "classes": list(mask.classes)}
        part = {} if mask.box is None else {"box": mask.box, "scale": mask.scale}
        return paths | kept | part
    if isinstance(mask, MaskBox):
        grid = {} if mask.shape is None else {"shape": mask.shape}
        return {"whole": relative_path(mask.path, data), "box": mask.box, **grid}
    if isinstance(mask, MaskPage):
        return {"stack": relative_path(mask.path, data), "page": mask.page}
    return relative_path(mask, data) if mask else None


def _mask_from_row(stored: _StoredMask, data: Path) -> Mask | None:
    if isinstance(stored, _StoredParts):
        paths = tuple(_path(path, data) for path in stored.parts)
        return MaskParts(paths, stored.values, stored.are_objects)
    if isinstance(stored, _StoredCoco):
        return CocoMask(_path(stored.coco, data), stored.image_id)
    if isinstance(stored, _StoredMaskBox):
        return MaskBox(_path(stored.whole, data), stored.box, stored.shape)
    if isinstance(stored, _StoredPage):
        return MaskPage(_path(stored.stack, data), stored.page)
    if isinstance(stored, _StoredShapes):
        return ShapesMask(
            path=_path(stored.shapes, data),
            format=stored.format,
            image=_path(stored.image, data),
            entry=stored.entry,
            classes=stored.classes,
            box=stored.box,
            scale=stored.scale,
        )
    return _path(stored, data) if stored else None


def relative_path(path: Path, folder: Path) -> str:
    """Return a path relative to the folder if it is inside, otherwise the absolute path.

    Bytes that are not UTF-8 are escaped as in `display_name`.
    """
    try:
        return display_name(real_path(path).relative_to(real_path(folder)).as_posix())
    except ValueError:
        return display_name(str(real_path(path)))


def _path(stored: str, data: Path) -> Path:
    """Return the path that `relative_path` has stored."""
    return data / file_name(stored)


def name_files(files: Mapping[Path, bytes], data: Path) -> dict[str, str]:
    """Return checksums in hexadecimal, by the path of the file; links to folders are resolved."""
    names = (relative_path(path.parent, data) for path in files)
    pairs = zip(names, files.items(), strict=True)
    return {
        display_name((Path(name) / path.name).as_posix()): own.hex() for name, (path, own) in pairs
    }


def describe_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Describe which files were modified, removed or added, in one clause each.

    Args:
        before, after: Checksum of each file by its name.
    """
    kinds: Sequence[tuple[str, Iterable[str]]] = (
        ("modified", (name for name in before if after.get(name, before[name]) != before[name])),
        ("removed", before.keys() - after.keys()),
        ("added", after.keys() - before.keys()),
    )
    found = []
    for kind, some in kinds:
        names = sorted(some)
        if names:
            shown = ", ".join(names[:SHOWN_FILES]) + (", ..." if len(names) > SHOWN_FILES else "")
            found.append(f"{pluralize(len(names), 'file')} {kind} ({shown})")
    return found
