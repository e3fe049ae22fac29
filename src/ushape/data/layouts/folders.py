"""Image and mask folders: one mask per image, one per class, or one per object."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts.base import (
    LayoutMatch,
    index_images,
    index_masks,
    join_series,
    take_splits_from_keys,
)
from ushape.data.layouts.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    StatedClasses,
    folders_below,
    images_below,
    stem_key,
)
from ushape.errors import DataError
from ushape.io import is_image, stem_of
from ushape.types import Mask, MaskParts


def find_folders(folder: Path) -> LayoutMatch | None:
    """Looks for one image folder and one mask folder, by their names.

    Raises:
        DataError: several candidates.
    """
    both = locate_folders(folder)
    return None if both is None else pair_folders(*both)


def locate_folders(folder: Path) -> tuple[Path, Path] | None:
    """The image folder and the mask folder.

    Raises:
        DataError: several candidates.
    """
    below = {path.name.lower(): path for path in folders_below(folder)}
    images = [below[name] for name in IMAGE_FOLDERS if name in below]
    masks = [below[name] for name in MASK_FOLDERS if name in below]
    if not images or not masks:
        return None
    for kind, several in (("image", images), ("mask", masks)):
        if len(several) > 1:
            listed = ", ".join(str(path) for path in several)
            raise DataError(
                f"{folder}: several {kind} folders: {listed}.",
                hint=f"Name the two that belong together: ushape train {images[0]} "
                f"--masks {masks[0]}",
            )
    return images[0], masks[0]


def pair_folders(images: Path, masks: Path) -> LayoutMatch:
    """Pairs the files of two folders by their paths below them."""
    keyed = [(stem_key(path, images), path) for path in images_below(images)]
    if masks != images and masks.is_relative_to(images):
        # A mask folder inside the image folder is no part of the images.
        keyed = [(key, path) for key, path in keyed if not path.is_relative_to(masks)]
    keyed_masks = [(stem_key(path, masks), path) for path in images_below(masks)]
    indexed = index_images(join_series(keyed, [key for key, _ in keyed_masks]))
    found = index_masks(keyed_masks, indexed)
    return take_splits_from_keys(
        LayoutMatch(layout=f"{images.name}/ beside {masks.name}/", images=indexed, masks=found)
    )


def find_class_folders(folder: Path) -> LayoutMatch | None:
    """Looks for folders, one per class, in the mask folder, in which masks are called as images.

    Classes are numbered from 1 in the order of their folders' names. An image without a file in
    a class folder has no pixel of that class; where classes overlap, the later one holds.

    Raises:
        DataError: several folders of images or masks; two masks of one image and class.
    """
    both = locate_folders(folder)
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


def find_object_folders(folder: Path) -> LayoutMatch | None:
    """Looks for ID/images/ID.png with ID/masks/*.png.

    The objects of an image are numbered from 1 in the order of their files' names. Where every
    image has one mask file only, these are plain masks.
    """
    images: dict[str, Path] = {}
    files: dict[str, list[Path]] = {}
    foreign = 0
    for place in folders_below(folder):
        inside = images_below(place / "images") if (place / "images").is_dir() else []
        if [stem_of(path) for path in inside] != [place.name]:
            foreign += 1
            continue
        images[place.name] = inside[0]
        if (place / "masks").is_dir() and (masks := images_below(place / "masks")):
            files[place.name] = masks
    if not files:
        return None
    masks_of: dict[str, Mask]
    if all(len(paths) == 1 for paths in files.values()):
        masks_of, classes = {key: paths[0] for key, paths in files.items()}, None
    else:
        masks_of = {
            key: MaskParts(tuple(paths), tuple(range(1, len(paths) + 1)))
            for key, paths in files.items()
        }
        classes = StatedClasses(source=folder, are_objects=True)
    return LayoutMatch(
        layout="a folder per image, with a mask per object",
        images=images,
        masks=masks_of,
        classes=classes,
        notes=(f"Left out: {foreign} folders of another form.",) if foreign else (),
    )
