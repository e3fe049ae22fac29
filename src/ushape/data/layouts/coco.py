"""COCO JSON files with polygons or run lengths, next to their images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ushape.data.classes.names import StatedClasses, merge_classes
from ushape.data.layouts.base import LayoutMatch, index_images, join_parts
from ushape.data.layouts.listing import annotation_folders, files_named, folders_below, images_below
from ushape.data.layouts.names import SPLIT_WORDS, key_below
from ushape.data.layouts.shapes import NO_AREA_HINT, ImageIndex
from ushape.errors import DataError
from ushape.formatting import pluralize, quoted
from ushape.io.annotations.coco import CocoFile, read_coco
from ushape.types import CocoMask, Split

NAMES_TRIED = 20
"""Number of listed names by which the folder of the images is recognized."""


def find_coco(folder: Path) -> LayoutMatch | None:
    """Find a JSON file with images and annotations in the folder or in annotations/ below it.

    Several files, such as instances_train.json and instances_val.json, define the split. Files of
    different images and the same categories are joined. Files of keypoints and captions are skipped
    if there is one of instances next to them.

    Raises:
        DataError: if there are several files for the same images, or as `pair_coco`.
    """
    places = annotation_folders(folder)
    files = [path for place in places for path in files_named(place, "*.json") if _is_coco(path)]
    if not files:
        return None
    instances = [path for path in files if path.name.lower().startswith("instances")]
    files = instances or files
    if len(files) == 1:
        return pair_coco(files[0], _places_near(files[0], folder))
    parts: dict[Split, Path] = {}
    for path in files:
        words = re.split(r"[^a-z]+", path.stem.lower())  # `instances_val2017` is for validation.
        part = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
        if part is None or part in parts:
            return _join_files(folder, files)
        parts[part] = path
    found = {part: pair_coco(path, _places_near(path, folder)) for part, path in parts.items()}
    return join_parts(found, {part: part for part in parts}, layout="COCO files for each subset")


def _join_files(folder: Path, files: Sequence[Path]) -> LayoutMatch:
    """Join files of the same categories that list different images."""
    categories = {tuple(read_coco(path).categories.values()) for path in files}
    names = Counter(
        entry["file_name"] for path in files for entry in read_coco(path).images.values()
    )
    if len(categories) > 1 or max(names.values(), default=0) > 1:
        raise DataError(
            f"{folder}: there are several COCO files: {', '.join(p.name for p in files)}.",
            code="ambiguous_coco_files",
            hint=f"Specify one of them: ushape train {quoted(files[0])}",
        )
    found = [pair_coco(path, _places_near(path, folder)) for path in files]
    listed = {key for own in found for key in own.masks}
    return LayoutMatch(
        layout=f"COCO annotations in {len(files)} files",
        images={
            key: image
            for own in found
            for key, image in own.images.items()
            if key in own.masks or key not in listed
        },
        masks={key: mask for own in found for key, mask in own.masks.items()},
        classes=merge_classes(own.classes for own in found),
        notes=tuple(note for own in found for note in own.notes),
    )


def read_coco_file(path: Path) -> LayoutMatch:
    """Pair the images and annotations of a COCO file that the user specifies.

    Raises:
        DataError: as `pair_coco`.
    """
    is_below = path.parent.name.lower() == "annotations"
    return pair_coco(path, _places_near(path, path.parent.parent if is_below else path.parent))


def pair_coco(path: Path, places: Sequence[Path]) -> LayoutMatch:
    """Pair the annotations of a COCO file with its images.

    Images that are listed without annotations are background; those with a bounding box without
    outline are left out, as are listed images that do not exist. Categories without annotations are
    not classes.

    Args:
        places: Folders in which the images may lie, the most likely first.

    Raises:
        DataError: if the file is not a COCO file, if an image is listed twice, if no image is
            found or all are left out, or if there are no annotations.
    """
    file = read_coco(path)
    place, images = _locate(file, places)
    keys = {key: key_below(image, place) for key, image in images.items()}
    boxes = [key for key, own in file.annotations.items() if not all(map(_has_outline, own))]
    notes = _describe_left_out(path, file, images, boxes)
    kept = [key for key in images if key not in boxes]
    if not kept:
        boxes_only = bool(images)
        raise DataError(
            notes[0] if notes else f"{path}: there are no images.",
            code="shapes_without_area" if boxes_only else "coco_images_missing",
            hint=NO_AREA_HINT
            if boxes_only
            else "Put the images next to the file, in a folder next to it, or in images/.",
        )
    listed = index_images([(keys[key], images[key]) for key in kept])
    others = {key_below(image, place): image for image in images_below(place)}
    unused = {keys[key] for key in boxes if key in keys}
    return LayoutMatch(
        layout=f"COCO annotations in {path.name}",
        images={key: image for key, image in others.items() if key not in unused} | listed,
        masks={keys[key]: CocoMask(path, key) for key in kept},
        classes=_classes_of(path, file),
        notes=tuple(notes),
    )


def _locate(file: CocoFile, places: Sequence[Path]) -> tuple[Path, dict[int | str, Path]]:
    """Return the folder of the images and the images that exist, by their ids.

    A backslash separates folders. Names that no folder contains as they are written are searched
    below the folders.
    """
    names = {key: entry["file_name"].replace("\\", "/") for key, entry in file.images.items()}
    tried = list(names.values())[:NAMES_TRIED]
    place = next((p for name in tried for p in places if (p / name).is_file()), None)
    if place is not None:
        found = {key: place / name for key, name in names.items()}
        return place, {key: path for key, path in found.items() if path.is_file()}
    place = min(places, key=lambda p: len(p.parts))  # The folder that contains the others.
    index = ImageIndex(place)
    located = {key: index.find(name, places) for key, name in names.items()}
    return place, {key: path for key, path in located.items() if path is not None}


def _has_outline(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("segmentation"))


def _describe_left_out(
    path: Path,
    file: CocoFile,
    images: Mapping[int | str, Path],
    boxes: Sequence[int | str],
) -> list[str]:
    notes = []
    gone = [entry["file_name"] for key, entry in file.images.items() if key not in images]
    here = [key for key in boxes if key in images]
    if here:
        notes.append(
            f"Left out: {pluralize(len(here), 'image')} with bounding boxes that have no outline, "
            f"e.g. {path}: image {here[0]}."
        )
    if gone:
        notes.append(
            f"Left out: {len(gone)} of the {len(file.images)} images that {path} lists were not "
            f"found, e.g. {gone[0]}."
        )
    return notes


def _classes_of(path: Path, file: CocoFile) -> StatedClasses:
    """Return background and the used categories; the value of a category is its position."""
    values = [n for n, key in enumerate(file.categories, start=1) if key in file.used]
    names = [name for key, name in file.categories.items() if key in file.used]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: {'two categories share a name' if names else 'there are no annotations'}.",
            code="coco_invalid",
            hint="Give each category a unique name, and annotate at least one image.",
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
