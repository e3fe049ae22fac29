"""Classes of a project: rename, add, and remove those that no annotation uses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.studio.annotations import Annotation, Change
from ushape.studio.listing import import_mask
from ushape.studio.project import Project

MAX_CLASSES = 64


def change_classes(
    project: Project, changes: Sequence[dict[str, Any]], removed: Collection[int]
) -> None:
    """Rename, add and remove classes, all of them or none. The settings are not stored.

    A removed class keeps its index and its mask value, which no other class gets: stored edits
    and predictions have indices. It is no longer shown and no longer trained on.

    Args:
        changes: `name` and `color` of the class `index`; without an index, of a new one.
        removed: Indices of classes to remove.

    Raises:
        DataError: if a class cannot be changed as asked.
    """
    names, colors = list(project.target.space.names), dict(project.settings.colors)
    hidden = {*project.settings.removed_classes}
    for index in sorted({*removed} - hidden):
        _require_removable(project, index, hidden | {*removed})
    hidden |= {*removed}
    for one in changes:
        index = len(names) if one.get("index") is None else int(one["index"])
        if one.get("index") is None:
            _require_classes(project)
            names.append("")
        _require_known(index, len(names), hidden)
        names[index] = one["name"].strip()
        if one.get("color"):
            colors[index] = one["color"]
    shown = [name for index, name in enumerate(names) if index not in hidden]
    if len(set(shown)) < len(shown) or not all(shown) or len(names) > MAX_CLASSES:
        raise DataError(
            "Class names must be unique and not empty.",
            code="class_names_repeated",
            hint=f"Choose other names; there can be at most {MAX_CLASSES} classes.",
        )
    for index in hidden:
        names[index] = f"removed class {index}"
    project.settings.names, project.settings.colors = names, colors
    project.settings.removed_classes = sorted(hidden)


def restore_classes(project: Project, annotation: Annotation, change: Change) -> None:
    """Show removed classes again if an edit has brought pixels of them back.

    This happens if an edit is undone or redone, or a prediction of a former model is accepted.
    """
    removed = project.settings.removed_classes
    if not removed or change.box is None:
        return
    found = {*removed}.intersection(np.unique(annotation.read(change.box)).tolist())
    if found:
        with project.lock:
            project.settings.removed_classes = [one for one in removed if one not in found]
            project.store()


def count_images_with(project: Project, index: int) -> int:
    """Return in how many images the annotation, or the user's mask, has pixels of a class."""
    return sum(_has_class(project, image_id, index) for image_id in project.images)


def _has_class(project: Project, image_id: str, index: int) -> bool:
    annotation = project.known_annotation(image_id)
    if annotation is not None:
        boxes = annotation.tile_boxes()
        return any((annotation.read(box) == index).any() for box in boxes)
    image, space = project.image(image_id), project.listing.meaning.space
    shape = project.shape(image_id)
    if image.mask is None or space is None or shape is None:
        return False
    parts = import_mask(image, space, shape, are_objects=False)
    return any((values == index).any() for _, values in parts)


def _require_removable(project: Project, index: int, removed: Collection[int]) -> None:
    _require_classes(project)
    space = project.target.space
    _require_known(index, len(space.names), project.settings.removed_classes)
    if index == 0 or not {*range(1, len(space.names))} - {*removed}:
        raise DataError(
            "At least one class is needed in addition to the background.",
            code="class_needed",
            hint="Add another class first.",
        )
    if space.regions or space.further_values:
        raise DataError(
            f"The class {space.names[index]} cannot be removed, because the data settings "
            "define the classes.",
            code="classes_fixed",
            hint="Change ushape.yaml in the data folder, and open the folder again.",
        )
    if count := count_images_with(project, index):
        is_used = "is annotated" if count == 1 else "are annotated"
        raise DataError(
            f"The class {space.names[index]} cannot be removed: {pluralize(count, 'image')} "
            f"{is_used} with it.",
            code="class_in_use",
            hint="Assign its pixels to another class first, or rename it.",
        )


def _require_classes(project: Project) -> None:
    if project.target.are_objects:
        raise DataError(
            "The masks contain numbered objects, which have no classes.",
            code="classes_fixed",
            hint="Use masks with one value for each class.",
        )


def _require_known(index: int, count: int, removed: Collection[int]) -> None:
    if not 0 <= index < count or index in removed:
        raise DataError(
            f"There is no class {index}.",
            code="unknown_class",
            hint=f"Classes are numbered from 0 to {count - 1}.",
        )
