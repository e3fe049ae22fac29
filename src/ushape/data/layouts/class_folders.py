"""images/NAME beside masks/CLASS/NAME: one black and white mask per image and class."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts import folders
from ushape.data.layouts.base import LayoutMatch, index_images, index_masks, take_splits_from_keys
from ushape.data.layouts.class_names import StatedClasses
from ushape.data.layouts.names import folders_below, images_below, stem_key
from ushape.io import is_image
from ushape.types import MaskParts


def find(folder: Path) -> LayoutMatch | None:
    """Looks for folders, one per class, in the mask folder, in which masks are called as images.

    Classes are numbered from 1 in the order of their folders' names. An image without a file in
    a class folder has no pixel of that class; where classes overlap, the later one holds.

    Raises:
        DataError: several folders of images or masks; two masks of one image and class.
    """
    both = folders.find_folders(folder)
    if both is None:
        return None
    images, masks = both
    classes = folders_below(masks)
    if not classes or any(is_image(path) for path in masks.iterdir() if path.is_file()):
        return None
    indexed = index_images([(stem_key(path, images), path) for path in images_below(images)])
    parts: dict[str, list[tuple[Path, int]]] = {}
    for value, place in enumerate(classes, start=1):
        own = index_masks([(stem_key(path, place), path) for path in images_below(place)], indexed)
        for key, path in own.items():
            parts.setdefault(key, []).append((path, value))
    found = LayoutMatch(
        layout=f"{images.name}/ beside {masks.name}/ with a folder per class",
        images=indexed,
        masks={
            key: MaskParts(tuple(path for path, _ in own), tuple(value for _, value in own))
            for key, own in parts.items()
        },
        classes=StatedClasses(
            source=masks,
            names=("background", *(place.name for place in classes)),
            values=tuple(range(len(classes) + 1)),
        ),
    )
    return take_splits_from_keys(found)
