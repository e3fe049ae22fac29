"""YOLO segmentation: a text file of polygons for each image, and class names in data.yaml."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.listing import entries_of, images_below
from ushape.data.layouts.shapes import match_shapes
from ushape.errors import DataError
from ushape.formatting import reason
from ushape.io import stem_of
from ushape.io.annotations.yolo import is_yolo
from ushape.types import ShapesMask

FILES_READ = 20
"""Number of text files that are read to recognize the format."""


def find_yolo(folder: Path) -> LayoutMatch | None:
    """Find images/PART/x.jpg with labels/PART/x.txt, or with x.txt next to the image.

    Raises:
        DataError: if the labels are keypoints or bounding boxes, or if data.yaml cannot be read.
    """
    images = images_below(folder)
    labels = _existing_labels(images, folder)
    if not labels or not _are_yolo(list(labels.values())):
        return None
    source, names = _class_names(folder)
    masks = {image: ShapesMask(path, "yolo", image) for image, path in labels.items()}
    return match_shapes(
        folder,
        "YOLO segmentation polygons in text files",
        masks,
        source=source,
        names={str(number): name for number, name in sorted(names.items())},
        images=images,
    )


def _existing_labels(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Return the text file of each image that has one."""
    found: dict[Path, Path] = {}
    names: dict[str, set[str]] = {}
    for image in images:
        place = os.path.dirname(image)  # noqa: PTH120, faster than Path.parent
        if place not in names:
            beside = _labels_of(image, folder).parent
            others = entries_of(beside).others if beside.is_dir() else []
            names[place] = {
                path.name.casefold() for path in others if path.suffix.lower() == ".txt"
            }
        if names[place] and f"{stem_of(image)}.txt".casefold() in names[place]:
            path = _labels_of(image, folder)
            if path.is_file():
                found[image] = path
    return found


def _labels_of(image: Path, folder: Path) -> Path:
    """Return the path of the text file: the last folder called images is labels there."""
    parts = list(image.relative_to(folder).with_name(f"{stem_of(image)}.txt").parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() == "images":
            parts[place] = "labels"
            break
    return folder.joinpath(*parts)


def _are_yolo(files: Sequence[Path]) -> bool:
    """Return whether the first files that are not empty look like files of YOLO."""
    texts = []
    for path in files[:FILES_READ]:
        try:
            texts.append(path.read_text(encoding="utf-8-sig").strip())
        except (OSError, ValueError):
            return False
    filled = [text for text in texts if text]
    return bool(filled) and all(map(is_yolo, filled))


def _class_names(folder: Path) -> tuple[Path, dict[int, str]]:
    """Return the file of the class names and the names; the folder and {} if there is none."""
    for path in _yaml_files(folder):
        stated = _read_yaml(path)
        if "names" not in stated:
            continue
        if "kpt_shape" in stated:
            raise DataError(
                f"{path}: the labels are keypoints (YOLO pose).",
                code="shapes_without_area",
                hint="Keypoints do not determine the pixels of an object. Export the labels in "
                "YOLO segmentation format.",
            )
        names = stated["names"]
        if isinstance(names, list):
            return path, {number: str(name) for number, name in enumerate(names)}
        if isinstance(names, dict) and all(str(key).isdigit() for key in names):
            return path, {int(key): str(name) for key, name in names.items()}
    for path in (folder / "classes.txt", folder / "labels" / "classes.txt"):
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return path, {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    return folder, {}


def _yaml_files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read: {reason(error)}.",
            code="unreadable_text",
            hint="Export the file again, in UTF-8.",
        ) from None
    return stated if isinstance(stated, dict) else {}
