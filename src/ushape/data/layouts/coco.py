"""COCO JSON files with polygons or run lengths, beside their images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ushape.data.class_names import StatedClasses
from ushape.data.layouts.base import LayoutMatch, index_images, join_parts
from ushape.data.layouts.names import (
    SPLIT_WORDS,
    folders_below,
    images_below,
    key_below,
)
from ushape.errors import DataError
from ushape.io.annotations import CocoFile, read_coco
from ushape.types import CocoMask, Split


def find_coco(folder: Path) -> LayoutMatch | None:
    """Find a JSON file with images and annotations in the folder or in annotations/ below it.

    Several files, such as instances_train.json and instances_val.json, state the split.

    Raises:
        DataError: if there are several files for one part, or as `pair_coco`.
    """
    places = [folder, *(p for p in folders_below(folder) if p.name.lower() == "annotations")]
    files = [path for place in places for path in sorted(place.glob("*.json")) if _is_coco(path)]
    if not files:
        return None
    if len(files) == 1:
        return pair_coco(files[0], _places_near(files[0], folder))
    parts: dict[Split, Path] = {}
    for path in files:
        words = re.split(r"[^a-z]+", path.stem.lower())  # `instances_val2017` states validation.
        part = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
        if part is None or part in parts:
            raise DataError(
                f"{folder}: there are several COCO files: {', '.join(p.name for p in files)}.",
                code="ambiguous_coco_files",
                hint=f"Name one of them: ushape train {files[0]}",
            )
        parts[part] = path
    found = {part: pair_coco(path, _places_near(path, folder)) for part, path in parts.items()}
    return join_parts(found, {part: part for part in parts}, layout="COCO files for each part")


def read_coco_file(path: Path) -> LayoutMatch:
    """Pair the images and annotations of a COCO file that the user names.

    Raises:
        DataError: as `pair_coco`.
    """
    is_below = path.parent.name.lower() == "annotations"
    return pair_coco(path, _places_near(path, path.parent.parent if is_below else path.parent))


def pair_coco(path: Path, places: Sequence[Path]) -> LayoutMatch:
    """Pair the annotations of a COCO file with its images.

    Images that are listed without annotations are background. Categories without annotations are
    not classes.

    Args:
        places: Folders in which the images may lie; the first that contains one is used.

    Raises:
        DataError: if the file is not a COCO file, if an image is missing or listed twice, or if
            there are no annotations.
    """
    file = read_coco(path)
    names = [entry["file_name"] for entry in file.images.values()]
    place = next((p for p in places for name in names[:1] if (p / name).is_file()), places[0])
    gone = [name for name in names if not (place / name).is_file()]
    if gone or not names:
        raise DataError(
            f"{path}: {len(gone)} of the {len(names)} listed images are not in {place}"
            + (f", first {gone[0]}." if gone else "."),
            code="coco_images_missing",
            hint="Put the images beside the file, in a folder beside it, or in images/.",
        )
    keys = {key: key_below(place / entry["file_name"], place) for key, entry in file.images.items()}
    listed = index_images([(keys[k], place / e["file_name"]) for k, e in file.images.items()])
    others = {key_below(image, place): image for image in images_below(place)}
    return LayoutMatch(
        layout=f"COCO annotations in {path.name}",
        images=others | listed,
        masks={keys[key]: CocoMask(path, key) for key in file.images},
        classes=_classes_of(path, file),
    )


def _classes_of(path: Path, file: CocoFile) -> StatedClasses:
    """Return background and the used categories; the value of a category is its position."""
    values = [n for n, key in enumerate(file.categories, start=1) if key in file.used]
    names = [name for key, name in file.categories.items() if key in file.used]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: {'two categories share a name' if names else 'there are no annotations'}.",
            code="coco_invalid",
            hint="Give each category a unique name and at least one annotation.",
        )
    return StatedClasses(source=path, names=("background", *names), values=(0, *values))


def _is_coco(path: Path) -> bool:
    """Return whether a file contains two typical words, without parsing it."""
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return all(f'"{word}"'.encode() in text for word in ("images", "annotations"))


def _places_near(path: Path, folder: Path) -> list[Path]:
    """Return the folders in which the images of a COCO file may lie."""
    beside = [path.parent, *folders_below(path.parent)]
    return beside if path.parent == folder else [*beside, folder, *folders_below(folder)]
