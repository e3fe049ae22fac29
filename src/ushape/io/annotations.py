"""Masks in any of their forms: one file, a file for each class or object, a COCO JSON."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.formatting import reason
from ushape.io import safety
from ushape.types import CocoMask, Mask, MaskEncoding, MaskParts, MaskPixels

_LOCK = Lock()


def read_annotation(mask: Mask) -> MaskPixels:
    """A mask as one integer code per pixel.

    Shapes:
        returns: codes (*S). Of parts: 0, or the value of the last part that covers the pixel.
            Of COCO: 0, or the place of the category, counted from 1.

    Raises:
        DataError: a file that cannot be read; parts of different sizes or with more than two
            values; an annotation that is neither polygon nor run lengths.
    """
    if isinstance(mask, MaskParts):
        return _read_parts(mask)
    if isinstance(mask, CocoMask):
        return _read_coco(mask)
    return io.read_mask(mask)


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """A COCO JSON file, by image."""

    images: Mapping[int | str, Mapping[str, Any]]
    """By id: file_name, height and width in pixels."""

    annotations: Mapping[int | str, list[Mapping[str, Any]]]
    """By the id of their image, in the order of the file."""

    categories: Mapping[int | str, str]
    """Names by id, in the order of the file."""

    used: frozenset[int | str]
    """The ids of categories that any annotation has."""


def read_coco(path: Path) -> CocoFile:
    """Reads a COCO JSON file; the last one read is kept in memory.

    Raises:
        DataError: not readable; a part of it is missing; an image or category twice; an
            annotation of an unknown image or category.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file.", hint="Check the spelling.")
    with _LOCK:  # Threads that wait for the same large file must not read it once more.
        return _read_coco_once(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_coco_once(path: Path, changed_ns: int) -> CocoFile:
    values = read_json(path)
    for part in ("images", "annotations", "categories"):
        if not isinstance(values, dict) or not isinstance(values.get(part), list):
            raise DataError(
                f"{path}: no list of {part} in it.",
                hint="A COCO file holds images, annotations and categories.",
            )
    try:
        images = _by_id(path, "image", values["images"])
        categories = _by_id(path, "category", values["categories"])
        annotations: dict[int | str, list[Mapping[str, Any]]] = {key: [] for key in images}
        for entry in values["annotations"]:
            for what, known in (("image", images), ("category", categories)):
                if entry[f"{what}_id"] not in known:
                    raise DataError(
                        f"{path}: annotation {entry.get('id', '?')} is of {what} "
                        f"{entry[f'{what}_id']}, which is not listed.",
                        hint=f"List the {what}, or take the annotation out.",
                    )
            annotations[entry["image_id"]].append(entry)
        for entry in images.values():
            _check_image(path, entry)
        names = {key: str(entry["name"]) for key, entry in categories.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: an entry lacks {error}.",
            hint="Images have id, file_name, height and width; annotations image_id, "
            "category_id and segmentation; categories id and name.",
        ) from None
    used = frozenset(entry["category_id"] for entry in values["annotations"])
    return CocoFile(images=images, annotations=annotations, categories=names, used=used)


def _check_image(path: Path, entry: Mapping[str, Any]) -> None:
    pixels = int(entry["height"]) * int(entry["width"])
    if not 0 < pixels <= safety.MAX_PIXELS or min(int(entry["height"]), int(entry["width"])) < 1:
        raise DataError(
            f"{path}: image {entry['id']} claims {entry['height']} × {entry['width']} pixels.",
            hint="Height and width are those of the image's file.",
        )
    if not isinstance(entry["file_name"], str):
        raise TypeError("a file_name that is text")


def read_json(path: Path) -> Any:
    """The values of a JSON file. Raises DataError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not readable: {reason(error)}.", hint="Write it as JSON, in UTF-8."
        ) from None


def _by_id(path: Path, what: str, entries: list[Any]) -> dict[int | str, Any]:
    found: dict[int | str, Any] = {}
    for entry in entries:
        if entry["id"] in found:
            raise DataError(
                f"{path}: two entries for {what} {entry['id']}.", hint="Ids must be unique."
            )
        found[entry["id"]] = entry
    return found


def _read_parts(mask: MaskParts) -> MaskPixels:
    codes: np.ndarray | None = None
    dtype = np.min_scalar_type(max(mask.values))
    for path, value in zip(mask.paths, mask.values, strict=True):
        read = io.read_mask(path)
        part = read.codes
        if codes is None:
            codes, suffix = np.zeros(part.shape, dtype), read.encoding.suffix
        if part.shape != codes.shape:
            raise DataError(
                f"{path} has {part.shape} pixels, {mask.paths[0]} {codes.shape}.",
                hint="All masks of one image lie on its grid, pixel for pixel.",
            )
        inside = part != 0
        values = part[inside]
        if values.size and (values != values[0]).any():
            raise DataError(
                f"{path}: several values beside 0, e.g. {values.min()} and {values.max()}; "
                "the mask of one class or object holds one.",
                hint="Save it as black and white, without soft edges, in a lossless format.",
            )
        codes[inside] = value
    assert codes is not None, "parts are at least one"
    return MaskPixels(codes=codes, encoding=MaskEncoding(dtype=str(codes.dtype), suffix=suffix))


def _read_coco(mask: CocoMask) -> MaskPixels:
    """Draws the annotations of an image, later ones over earlier ones."""
    file = read_coco(mask.path)
    if mask.image_id not in file.images:
        raise DataError(
            f"{mask.path}: image {mask.image_id} is no longer listed.",
            hint="Bring back the file that the training read.",
        )
    image = file.images[mask.image_id]
    size = int(image["height"]), int(image["width"])
    code_of = {key: place for place, key in enumerate(file.categories, start=1)}
    codes = np.zeros(size, np.min_scalar_type(len(code_of)))
    for entry in file.annotations[mask.image_id]:
        codes[_rasterise(mask, entry, size)] = code_of[entry["category_id"]]
    return MaskPixels(codes=codes, encoding=MaskEncoding(dtype=str(codes.dtype)))


def _rasterise(mask: CocoMask, entry: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Pixels (y, x) within an annotation, bool."""
    drawn = entry.get("segmentation")
    where = f"{mask.path}: annotation {entry.get('id', '?')} of image {mask.image_id}"
    if not drawn:
        raise DataError(
            f"{where} has no segmentation.", hint="A box alone does not say which pixels it means."
        )
    try:
        if isinstance(drawn, dict):
            return _fill_runs(drawn["counts"], drawn["size"], size)
        return _fill_polygons(mask.path, drawn, size)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"{where} cannot be drawn: {error}.",
            hint="A segmentation is a list of polygons [[x1, y1, x2, y2, x3, y3, ...]] or run "
            "lengths.",
        ) from None


def _fill_polygons(path: Path, polygons: Any, size: tuple[int, int]) -> np.ndarray:
    """Pixels within any polygon. ValueError on what pycocotools would misread or crash on."""
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise DataError(
            f"{path}: COCO polygons need another package.",
            hint='pip install "ushape[coco]" installs it.',
        ) from None
    rows = [np.asarray(polygon, dtype=np.float64) for polygon in polygons]
    for row in rows:
        if row.ndim != 1 or row.size < 6 or row.size % 2:
            raise ValueError(f"a polygon of {row.size} numbers, not x and y of 3 points or more")
        corners = row.reshape(-1, 2) / size[::-1]
        if not ((corners >= -1) & (corners <= 2)).all():  # False for NaN, too.
            raise ValueError(f"a polygon reaches to {row[np.abs(row).argmax()]:g}")
    runs = coco.merge(coco.frPyObjects([row.tolist() for row in rows], *size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # It is older than NumPy 2.
        return np.asarray(coco.decode(runs)).astype(bool)


def _fill_runs(counts: Any, stated: Any, size: tuple[int, int]) -> np.ndarray:
    """Run lengths, off and on in turn, down the columns. ValueError where they do not fit."""
    if tuple(stated) != size:
        raise ValueError(f"it is drawn on {list(stated)} pixels, the image has {list(size)}")
    runs = _unpack_counts(counts) if isinstance(counts, str) else [int(run) for run in counts]
    if min(runs, default=0) < 0 or sum(runs) != math.prod(size):
        raise ValueError(f"runs of {sum(runs)} pixels in all, the image has {math.prod(size)}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(size[::-1]).T


def _unpack_counts(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, differences from the third run on.

    Source:
        rleFrString in maskApi.c of cocoapi. Its decoder reads beyond runs that are too short.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is no part of run lengths")
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
