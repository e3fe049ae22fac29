"""Folders of images and masks, whole trees, and a folder for each part of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.class_names import StatedClasses
from ushape.data.layouts.base import (
    LayoutMatch,
    index_images,
    index_masks,
    join_parts,
    join_series,
    take_splits_from_keys,
)
from ushape.data.layouts.coco import find_coco
from ushape.data.layouts.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SPLIT_WORDS,
    folders_below,
    images_below,
    stem_key,
    strip_mask_word,
)
from ushape.data.layouts.table import find_table
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.io import is_image, stem_of
from ushape.types import Mask, MaskParts, Split

MAX_FOLDERS = 20
"""Number of folders above which they are regarded as patients or plates."""

MAX_MASK_VALUES = 32
"""Number of values in some files of a folder above which they are regarded as images."""

FILES_READ = 6
"""Number of files of each folder that are read to distinguish images from masks."""

MASK_ENDINGS = (*MASK_FOLDERS, "annot")


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


def find_suffixed_masks(folder: Path) -> LayoutMatch | None:
    """Find masks that lie beside their images and are named like them, as in `x_mask`."""
    masks: list[tuple[str, Path]] = []
    images: list[tuple[str, Path]] = []
    for path in images_below(folder):
        key = stem_key(path, folder)
        (images if strip_mask_word(key) is None else masks).append((key, path))
    if not masks or not images:
        return None
    indexed = index_images(join_series(images, [key for key, _ in masks]))
    example = masks[0][1].stem
    return take_splits_from_keys(
        LayoutMatch(
            layout=f"one folder tree, with masks named like {example}",
            images=indexed,
            masks=index_masks(masks, indexed),
        )
    )


def find_mirrored_trees(folder: Path) -> LayoutMatch | None:
    """Find two folders of any names in which files with equal names are images and masks.

    At least half of the files must have a partner. Masks hold 2 to MAX_MASK_VALUES values in the
    first files, images hold more.

    Raises:
        DataError: if more than two folders match, or if both seem to hold masks.
    """
    below = folders_below(folder)
    if len(below) > MAX_FOLDERS:
        return None
    filled = {place: paths for place in below if (paths := images_below(place))}
    keys = {
        place: {strip_mask_word(key) or key for key in (stem_key(path, place) for path in paths)}
        for place, paths in filled.items()
    }
    fitting = [both for both in combinations(filled, 2) if _fit(*(keys[place] for place in both))]
    if not fitting:
        return None
    places = sorted({place for both in fitting for place in both})
    listed = ", ".join(f"{place.name}/" for place in places)
    hint = (
        f"Name the two folders that belong together: ushape train {places[0]} --masks {places[1]}"
    )
    few = [place for place in places if _holds_few_values(filled[place])]
    if not few:
        return None
    if len(places) > 2:
        raise DataError(
            f"{folder}: files have the same names in {listed}.", code="ambiguous_folders", hint=hint
        )
    if len(few) == 2:
        raise DataError(
            f"{folder}: {listed} could both hold the masks.", code="ambiguous_folders", hint=hint
        )
    images = next(place for place in places if place != few[0])
    found = pair_folders(images, few[0])
    why = f"{images.name}/ beside {few[0].name}/, which holds few values: the masks"
    return replace(found, layout=why)


def _fit(one: set[str], other: set[str]) -> bool:
    """Return whether at least half of the smaller folder has a partner."""
    return 0 < min(len(one), len(other)) <= 2 * len(one & other)


def _holds_few_values(paths: Sequence[Path]) -> bool:
    values: set[int] = set()
    for index in np.unique(np.linspace(0, len(paths) - 1, FILES_READ).astype(int)):
        try:
            values.update(np.unique(io.read_mask(paths[index]).codes).tolist())
        except DataError:  # Fractional values or four channels: not a mask.
            return False
        if len(values) > MAX_MASK_VALUES:
            return False
    return len(values) >= 2


LAYOUTS_INSIDE = (
    find_table,
    find_object_folders,
    find_folders,
    find_class_folders,
    find_coco,
    find_suffixed_masks,
    find_mirrored_trees,
)
"""Layouts that a part of a split may have, in the order in which they are tried."""


def find_split_folders(folder: Path) -> LayoutMatch | None:
    """Find train/, val/ and test/, each with images and masks in one of the other layouts.

    The masks of a part may also lie in a folder beside it: train/ and train_masks/.

    Raises:
        DataError: if there are two folders for one part.
    """
    parts: dict[Split, Path] = {}
    for place in folders_below(folder):
        part = SPLIT_WORDS.get(place.name.lower())
        if part is None:
            continue
        if part in parts:
            raise DataError(
                f"{folder}: {parts[part].name}/ and {place.name}/ are both for {part}.",
                code="ambiguous_folders",
                hint="Merge them into one folder.",
            )
        parts[part] = place
    if "train" not in parts or len(parts) < 2:
        return None
    inside = {part: _inside(place) for part, place in parts.items()}
    tried = {part: own or _beside(parts[part]) for part, own in inside.items()}
    found = {part: own for part, own in tried.items() if own is not None}
    # train/ with train_masks/ beside a test/ without masks does not state a split.
    if "train" not in found or (len(found) == 1 and inside["train"] is None):
        return None
    forms = sorted({own.layout for own in found.values()})
    without = tuple(
        f"Left out: {place.name}/ contains no pair of image and mask."
        for part, place in parts.items()
        if part not in found
    )
    names = {part: parts[part].name for part in found}
    layout = f"{', '.join(f'{name}/' for name in names.values())}: {', '.join(forms)}"
    return join_parts(found, names, layout, without)


def _inside(place: Path) -> LayoutMatch | None:
    """Return the match of the first layout that finds pairs."""
    tried = (find(place) for find in LAYOUTS_INSIDE)
    return next((found for found in tried if found is not None and found.paired), None)


def _beside(place: Path) -> LayoutMatch | None:
    """Pair with the folder that is named like this one plus a word for masks."""
    for other in folders_below(place.parent):
        start, ending = other.name[: len(place.name)], other.name[len(place.name) :].lower()
        if start == place.name and ending.lstrip("_- ") in MASK_ENDINGS:
            found = pair_folders(place, other)
            if found.paired:
                return found
    return None
