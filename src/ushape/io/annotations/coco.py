"""COCO JSON files: polygons and run lengths of many images in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError, require_package
from ushape.io.annotations.canvas import Canvas
from ushape.io.annotations.shapes import Patch
from ushape.io.caching import keep_latest
from ushape.io.files import JSON_HINT, MAX_PIXELS, read_json
from ushape.types import CocoMask, MaskEncoding, MaskPixels


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """Content of a COCO JSON file."""

    images: Mapping[int | str, Mapping[str, Any]]
    """Entries of the images by id: file_name, height and width in pixels."""

    annotations: Mapping[int | str, list[Mapping[str, Any]]]
    """Annotations by the id of their image, in the order of the file."""

    categories: Mapping[int | str, str]
    """Names of the categories by id, in the order of the file."""

    used: frozenset[int | str]
    """Ids of the categories that have annotations."""


@keep_latest(files=4)
def read_coco(path: Path) -> CocoFile:
    """Read a COCO JSON file; the last four files are cached.

    Raises:
        DataError: if the file cannot be read, an entry is missing or listed twice, or an annotation
            belongs to an unknown image or category.
    """
    values = read_json(path, DataError, code="json_invalid", hint=JSON_HINT)
    for part in ("images", "annotations", "categories"):
        if not isinstance(values, dict) or not isinstance(values.get(part), list):
            raise DataError(
                f"{path}: the file has no list of {part}.",
                code="coco_invalid",
                hint="A COCO file contains images, annotations and categories.",
            )
    try:
        images = _by_id(path, "image", values["images"])
        categories = _by_id(path, "category", values["categories"])
        annotations: dict[int | str, list[Mapping[str, Any]]] = {key: [] for key in images}
        for entry in values["annotations"]:
            for what, known in (("image", images), ("category", categories)):
                if entry[f"{what}_id"] not in known:
                    raise DataError(
                        f"{path}: annotation {entry.get('id', '?')} belongs to {what} "
                        f"{entry[f'{what}_id']}, which is not listed.",
                        code="coco_invalid",
                        hint=f"List the {what}, or remove the annotation.",
                    )
            annotations[entry["image_id"]].append(entry)
        for key, entry in images.items():
            _check_image(path, entry, len(annotations[key]))
        names = {key: str(entry["name"]) for key, entry in categories.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: an entry lacks {error}.",
            code="coco_invalid",
            hint="Images have id, file_name, height and width; annotations image_id, "
            "category_id and segmentation; categories id and name.",
        ) from None
    used = frozenset(entry["category_id"] for entry in values["annotations"])
    return CocoFile(images=images, annotations=annotations, categories=names, used=used)


def _check_image(path: Path, entry: Mapping[str, Any], annotations: int) -> None:
    try:
        height, width = int(entry["height"]), int(entry["width"])
    except OverflowError:
        raise TypeError("a finite height and width") from None
    pixels = height * width
    if annotations > max(pixels, 1):  # To draw them could take hours.
        raise DataError(
            f"{path}: image {entry['id']} has {annotations} annotations, but only {pixels} pixels.",
            code="coco_invalid",
            hint="Remove annotations that are listed repeatedly.",
        )
    if not 0 < pixels <= MAX_PIXELS or min(height, width) < 1:
        raise DataError(
            f"{path}: according to the file, image {entry['id']} has {entry['height']} × "
            f"{entry['width']} pixels.",
            code="coco_invalid",
            hint="Height and width must be those of the image file.",
        )
    if not isinstance(entry["file_name"], str):
        raise TypeError("a file_name that is text")


def _by_id(path: Path, what: str, entries: list[Any]) -> dict[int | str, Any]:
    found: dict[int | str, Any] = {}
    for entry in entries:
        if entry["id"] in found:
            raise DataError(
                f"{path}: there are two entries for {what} {entry['id']}.",
                code="coco_invalid",
                hint="Ids must be unique.",
            )
        found[entry["id"]] = entry
    return found


def draw_coco(mask: CocoMask) -> MaskPixels:
    """Draw the annotations of an image, later ones over earlier ones.

    Each annotation is an object, except for crowds, whose objects are not distinguished.

    Shapes:
        returns: codes (*S): 0, or the position of the category, counted from 1.

    Raises:
        DataError: if the image is no longer listed, or an annotation cannot be drawn.
    """
    file = read_coco(mask.path)
    if mask.image_id not in file.images:
        raise DataError(
            f"{mask.path}: image {mask.image_id} is no longer listed.",
            code="coco_image_missing",
            hint="Restore the file that was used for training.",
        )
    image = file.images[mask.image_id]
    size = int(image["height"]), int(image["width"])
    code_of = {key: place for place, key in enumerate(file.categories, start=1)}
    canvas = Canvas(size, len(code_of))
    for entry in file.annotations[mask.image_id]:
        top, left, inside = _rasterize(mask, entry, size)
        box = slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])
        number = 0 if entry.get("iscrowd") else None
        canvas.draw(box, inside, code_of[entry["category_id"]], number=number)
    return MaskPixels(
        codes=canvas.codes,
        encoding=MaskEncoding(dtype=str(canvas.codes.dtype)),
        instances=canvas.instances,
    )


def _rasterize(mask: CocoMask, entry: Mapping[str, Any], size: tuple[int, int]) -> Patch:
    """Return the pixels within an annotation."""
    drawn = entry.get("segmentation")
    where = f"{mask.path}: annotation {entry.get('id', '?')} of image {mask.image_id}"
    if not drawn:
        raise DataError(
            f"{where} has no segmentation.",
            code="coco_invalid",
            hint="A bounding box does not determine the pixels of an object. Draw the outline of "
            "the object, or remove the annotation.",
        )
    try:
        if isinstance(drawn, dict):
            return _fill_runs(drawn["counts"], drawn["size"], size)
        return _fill_polygons(mask.path, drawn, size)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"{where} cannot be drawn: {error}.",
            code="coco_invalid",
            hint="A segmentation is a list of polygons [[x1, y1, x2, y2, x3, y3, ...]] or run "
            "lengths.",
        ) from None


def _fill_polygons(path: Path, polygons: Any, size: tuple[int, int]) -> Patch:
    """Return the pixels within any polygon.

    Raises:
        ValueError: for polygons that pycocotools would misread or crash on.
        MissingPackageError: if pycocotools is not installed.
    """
    coco = require_package("pycocotools.mask", "coco", f"{path} has polygons; drawing them")
    rows = [np.asarray(polygon, dtype=np.float64) for polygon in polygons]
    for row in rows:
        if row.ndim != 1 or row.size < 6 or row.size % 2:
            raise ValueError(f"a polygon has {row.size} numbers, not x and y of at least 3 points")
        corners = row.reshape(-1, 2) / size[::-1]
        if not ((corners >= -1) & (corners <= 2)).all():  # Also False for NaN.
            raise ValueError(f"a polygon reaches to {row[np.abs(row).argmax()]:g}")
    runs = coco.merge(coco.frPyObjects([row.tolist() for row in rows], *size))
    return _patch_of(_unpack_counts(runs["counts"].decode()), size[0])


def _fill_runs(counts: Any, stated: Any, size: tuple[int, int]) -> Patch:
    """Return the pixels of run lengths that alternate off and on.

    Raises:
        ValueError: if they do not fit the image.
    """
    if tuple(stated) != size:
        raise ValueError(f"its size is {list(stated)}, but that of the image is {list(size)}")
    runs = _unpack_counts(counts) if isinstance(counts, str) else [int(run) for run in counts]
    if min(runs, default=0) < 0:
        raise ValueError("a run has a negative length")
    if sum(runs) != math.prod(size):
        raise ValueError(
            f"its runs have {sum(runs)} pixels in total, but the image has {math.prod(size)}"
        )
    return _patch_of(runs, size[0])


def _patch_of(runs: Sequence[int], height: int) -> Patch:
    """Return the box of the runs that are on, counted down the columns, and the pixels in it."""
    ends = np.cumsum(np.asarray(runs, dtype=np.int64))
    starts, lengths = ends[: len(ends) // 2 * 2 : 2], np.diff(ends)[::2]
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    if not len(starts):
        return 0, 0, np.zeros((0, 0), dtype=bool)
    columns, rows = np.divmod(starts, height)
    top, bottom = int(rows.min()), int((rows + lengths).max())
    if bottom > height:  # A run that continues in the next column.
        top, bottom = 0, height
    left, right = int(columns[0]), int(starts[-1] + lengths[-1] - 1) // height + 1
    first = (columns - left) * (bottom - top) + rows - top
    steps = np.zeros((right - left) * (bottom - top) + 1, dtype=np.int8)
    steps[first] += 1
    steps[first + lengths] -= 1
    inside = np.cumsum(steps[:-1], dtype=np.int8).view(bool)
    return top, left, inside.reshape(right - left, bottom - top).T


def _unpack_counts(text: str) -> list[int]:
    """Decode COCO's run lengths: five bits per character, differences from the third run on.

    Source:
        rleFrString in maskApi.c of cocoapi, whose decoder reads beyond the end of short input.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} cannot occur in run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the run lengths end in the middle of a number")
    return runs
