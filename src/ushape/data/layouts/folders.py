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
from ushape.formatting import pluralize
from ushape.io import is_image, stem_of
from ushape.types import Mask, MaskParts


def find_folders(folder: Path) -> LayoutMatch | None:
    """Find an image folder beside a mask folder, by their usual names.

    Raises:
        DataError: if there are several candidates.
    """
    both = locate_folders(folder)
    return None if both is None else pair_folders(*both)


def locate_folders(folder: Path) -> tuple[Path, Path] | None:
    """Return the image folder and the mask folder, None if one is missing.

    Raises:
        DataError: if there are several candidates.
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
                f"{folder}: there are several {kind} folders: {listed}.",
                code="ambiguous_folders",
                hint=f"Name the two that belong together: ushape train {images[0]} "
                f"--masks {masks[0]}",
            )
    return images[0], masks[0]


def pair_folders(images: Path, masks: Path) -> LayoutMatch:
    """Pair the files of two folders by their paths below them."""
    keyed = [(stem_key(path, images), path) for path in images_below(images)]
    if masks != images and masks.is_relative_to(images):
        # A mask folder inside the image folder does not belong to the images.
        keyed = [(key, path) for key, path in keyed if not path.is_relative_to(masks)]
    keyed_masks = [(stem_key(path, masks), path) for path in images_below(masks)]
    indexed = index_images(join_series(keyed, [key for key, _ in keyed_masks]))
    found = index_masks(keyed_masks, indexed)
    return take_splits_from_keys(
        LayoutMatch(layout=f"{images.name}/ beside {masks.name}/", images=indexed, masks=found)
    )


def find_class_folders(folder: Path) -> LayoutMatch | None:
    """Find images/NAME beside masks/CLASS/NAME, one binary mask per image and class.

    Classes are numbered from 1 in the order of their folder names. An image without a file in a
    class folder has no pixel of that class; of overlapping classes the later one is used.

    Raises:
        DataError: if there are several image or mask folders, or two masks of one image and class.
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
    """Find ID/images/ID.png with ID/masks/*.png, one mask per object (Data Science Bowl 2018).

    The objects of an image are numbered from 1 in the order of their file names. If every image
    has only one mask file, these are ordinary masks.
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
        notes=(f"Left out: {pluralize(foreign, 'folder')} with another layout.",)
        if foreign
        else (),
    )
