"""Folders of images and masks, whole trees, and a folder for each subset of a split."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import (
    LayoutMatch,
    index_images,
    index_masks,
    join_parts,
    pair_files,
    take_splits_from_keys,
)
from ushape.data.layouts.candidates import (
    MAX_MASK_VALUES,
    Candidate,
    choose_masks,
    holds_few_values,
    values_of,
)
from ushape.data.layouts.coco import find_coco
from ushape.data.layouts.inside import find_masks_inside
from ushape.data.layouts.listing import folders_below, images_below
from ushape.data.layouts.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SPLIT_WORDS,
    has_mask_word,
    stem_key,
)
from ushape.data.layouts.one_tree import find_one_tree
from ushape.data.layouts.table import find_table
from ushape.errors import DataError
from ushape.formatting import pluralize, quoted
from ushape.io import is_image, stem_of
from ushape.types import Mask, MaskParts, Split

MAX_FOLDERS = 20
"""Number of folders above which they are regarded as patients or plates."""

MASK_ENDINGS = (*MASK_FOLDERS, "annot")


def find_folders(folder: Path) -> LayoutMatch | None:
    """Find an image folder next to a mask folder, of which at least one has a usual name.

    Raises:
        DataError: if there are several candidates.
    """
    images = locate_images(folder)
    if images is None:
        return None
    matches: dict[Path, LayoutMatch] = {}
    failed: list[DataError] = []
    for masks in folders_below(folder):
        is_image_folder = masks.name.lower() in IMAGE_FOLDERS
        if masks == images or is_image_folder or _holds_classes(images, masks):
            continue
        try:
            match = pair_folders(images, masks)
        except DataError as error:
            failed.append(error)
            continue
        if has_mask_word(masks.name) or _fit(match):
            matches[masks] = match
    if failed and not any(match.paired for match in matches.values()):
        raise failed[0]
    return _choose_folder(folder, images, matches)


def _choose_folder(
    folder: Path, images: Path, matches: Mapping[Path, LayoutMatch]
) -> LayoutMatch | None:
    """Return the match of the folder that contains the masks; None if none does.

    Args:
        matches: Match of the images with each folder that may contain the masks.
    """
    candidates = [
        Candidate(
            f"{masks.name}/",
            quoted(masks),
            {key: path for key in match.paired if isinstance(path := match.masks[key], Path)},
            has_mask_word(masks.name),
        )
        for masks, match in matches.items()
        if match.paired
    ]
    chosen, notes = choose_masks(folder, quoted(images), candidates)
    if chosen is None:
        return next((match for match in matches.values() if not match.paired), None)
    masks = next(masks for masks in matches if f"{masks.name}/" == chosen.name)
    match = matches[masks]
    return replace(match, notes=(*match.notes, *notes), folders=(images.name, masks.name))


def locate_images(folder: Path) -> Path | None:
    """Return the image folder: one with a usual name, or the only one next to a mask folder.

    Raises:
        DataError: if there are several.
    """
    below = [place for place in folders_below(folder) if images_below(place)]
    named = [place for place in below if place.name.lower() in IMAGE_FOLDERS]
    masks = [place for place in below if has_mask_word(place.name) and place not in named]
    if len(named) > 1:
        named = [place for place in named if any(pair_folders(place, m).paired for m in masks)]
    if len(named) > 1:
        commands = "; ".join(
            f"ushape train {quoted(place)} --masks {quoted(masks[0])}" for place in named
        )
        raise DataError(
            f"{folder}: there are several image folders: {', '.join(map(str, named))}.",
            code="ambiguous_folders",
            hint="Specify the images and the masks that belong together, with one of these "
            f"commands: {commands}",
        )
    others = [place for place in below if place not in masks]
    if named:
        return named[0]
    return others[0] if masks and len(others) == 1 else None


def _holds_classes(images: Path, masks: Path) -> bool:
    """Return whether all masks lie in subfolders, one folder deeper than the images."""
    depths = [stem_key(path, images).count("/") for path in images_below(images)]
    below = [stem_key(path, masks).count("/") for path in images_below(masks)]
    return bool(depths and below) and min(below) > max(depths)


def pair_folders(images: Path, masks: Path) -> LayoutMatch:
    """Pair the files of two folders by their paths below them."""
    return pair_files(
        f"{images.name}/ next to {masks.name}/",
        [(stem_key(path, images), path) for path in images_below(images)],
        [(stem_key(path, masks), path) for path in images_below(masks)],
    )


def find_class_folders(folder: Path) -> LayoutMatch | None:
    """Find images/NAME and masks/CLASS/NAME, one binary mask per image and class.

    Classes are numbered from 1 in the order of their folder names. An image without a file in a
    class folder has no pixel of that class; of overlapping classes the later one is used. A single
    folder whose masks have several values holds ordinary masks.

    Raises:
        DataError: if there are several image folders, or two masks of one image and class.
    """
    images = locate_images(folder)
    named = [place for place in folders_below(folder) if has_mask_word(place.name)]
    if images is None or len(named) != 1 or not _holds_classes(images, named[0]):
        return None
    masks = named[0]
    classes = [place for place in folders_below(masks) if images_below(place)]
    if len(classes) == 1 and 2 < len(values_of(images_below(classes[0]))) <= MAX_MASK_VALUES:
        return pair_folders(images, classes[0])
    indexed = index_images([(stem_key(path, images), path) for path in images_below(images)])
    parts: dict[str, list[tuple[Path, int]]] = {}
    for value, place in enumerate(classes, start=1):
        own = index_masks([(stem_key(path, place), path) for path in images_below(place)], indexed)
        for key, path in own.items():
            parts.setdefault(key, []).append((path, value))
    found = LayoutMatch(
        layout=f"{images.name}/ next to {masks.name}/ with a folder per class",
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
            key: MaskParts(tuple(paths), tuple(range(1, len(paths) + 1)), are_objects=True)
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


def find_mirrored_trees(folder: Path) -> LayoutMatch | None:
    """Find two folders of any names whose files are images and masks, as their names match.

    At least half of the files must have a counterpart. Masks contain 2 to MAX_MASK_VALUES values in
    the first files; images contain more.

    Raises:
        DataError: if more than two folders match, or if both seem to contain masks.
    """
    files_in = {below: files for below in folders_below(folder) if (files := images_below(below))}
    if not 2 <= len(files_in) <= MAX_FOLDERS:
        return None
    failed: list[DataError] = []
    fitting = [
        (images, masks)
        for images, masks in itertools.permutations(files_in, 2)
        if _pair_if_fit(images, masks, failed)
    ]
    if failed and not fitting and len(files_in) == 2:
        # Several masks of an image in one direction are several images of a mask in the other.
        raise min(failed, key=lambda error: error.code != "ambiguous_mask")
    paired = sorted({below for both in fitting for below in both})
    mask_folders = [below for below in paired if holds_few_values(files_in[below])]
    image_folders = [below for below in paired if below not in mask_folders]
    if not mask_folders:
        return None
    if len(image_folders) != 1:
        listed = ", ".join(f"{below.name}/" for below in paired)
        what = "could all contain the images" if image_folders else "could all contain the masks"
        raise DataError(
            f"{folder}: {listed} {what}.",
            code="ambiguous_folders",
            hint=f"Specify the two folders that belong together: ushape train {quoted(paired[0])} "
            f"--masks {quoted(paired[1])}",
        )
    images = image_folders[0]
    matches = {masks: match for masks in mask_folders if (match := _pair_if_fit(images, masks, []))}
    chosen = _choose_folder(folder, images, matches)
    if chosen is None:
        return None
    return replace(
        chosen,
        layout=f"{chosen.layout}, which contains the masks because its files have few values",
    )


def _pair_if_fit(images: Path, masks: Path, failed: list[DataError]) -> LayoutMatch | None:
    try:
        match = pair_folders(images, masks)
    except DataError as error:  # Several files of one folder belong to one of the other.
        failed.append(error)
        return None
    return match if _fit(match) else None


def _fit(match: LayoutMatch) -> bool:
    """Return whether at least half of the files in the smaller folder have a counterpart."""
    return 0 < min(len(match.images), len(match.masks)) <= 2 * len(match.paired)


LAYOUTS_INSIDE = (
    find_table,
    find_object_folders,
    find_folders,
    find_class_folders,
    find_coco,
    find_masks_inside,
    find_one_tree,
    find_mirrored_trees,
)
"""Layouts that a subset of a split may have, in the order in which they are tried."""


def find_split_folders(folder: Path) -> LayoutMatch | None:
    """Find train/, val/ and test/, each with images and masks in one of the other layouts.

    The masks of a subset may also lie in a folder next to it: train/ and train_masks/.

    Raises:
        DataError: if there are two folders for one subset.
    """
    folder_of: dict[Split, Path] = {}
    for below in folders_below(folder):
        subset = SPLIT_WORDS.get(below.name.lower())
        if subset is None:
            continue
        if subset in folder_of:
            raise DataError(
                f"{folder}: {folder_of[subset].name}/ and {below.name}/ are both for {subset}.",
                code="ambiguous_folders",
                hint="Merge them into one folder.",
            )
        folder_of[subset] = below
    if "train" not in folder_of or len(folder_of) < 2:
        return None
    first = _inside(folder_of["train"])
    inside = {subset: _inside(below, first) for subset, below in folder_of.items()}
    tried = {subset: match or _beside(folder_of[subset]) for subset, match in inside.items()}
    matches = {subset: match for subset, match in tried.items() if match is not None}
    # train/ with train_masks/ next to a test/ without masks does not define a split.
    if "train" not in matches or (len(matches) == 1 and inside["train"] is None):
        return None
    layouts = sorted({match.layout for match in matches.values()})
    without = tuple(
        f"Left out: {below.name}/ contains no pair of image and mask."
        for subset, below in folder_of.items()
        if subset not in matches
    )
    names = {subset: folder_of[subset].name for subset in matches}
    layout = f"{', '.join(f'{name}/' for name in names.values())}: {', '.join(layouts)}"
    return join_parts(matches, names, layout, without)


def _inside(place: Path, like: LayoutMatch | None = None) -> LayoutMatch | None:
    """Return the match of the first layout that finds pairs, or of the folders of another subset.

    The test set of a dataset may have additional folders, such as those of a second annotator.
    """
    if like is not None and like.folders is not None:
        images, masks = (place / name for name in like.folders)
        if images.is_dir() and masks.is_dir():
            return pair_folders(images, masks)
    tried = (find(place) for find in LAYOUTS_INSIDE)
    return next((found for found in tried if found is not None and found.paired), None)


def _beside(place: Path) -> LayoutMatch | None:
    """Pair with the folder that has the name of this one plus a word for masks."""
    for other in folders_below(place.parent):
        start, ending = other.name[: len(place.name)], other.name[len(place.name) :].lower()
        if start == place.name and ending.lstrip("_- ") in MASK_ENDINGS:
            found = pair_folders(place, other)
            if found.paired:
                return found
    return None


def find_nested(folder: Path) -> LayoutMatch | None:
    """Find another layout in the only subfolder, as in an archive unpacked into its own name."""
    below = [place for place in folders_below(folder) if images_below(place)]
    if len(below) != 1 or any(is_image(path) for path in folder.iterdir()):
        return None
    has_images = any(is_image(path) for path in below[0].iterdir())  # It may be a single case.
    tried = (
        (find_masks_inside(below[0]),)
        if has_images
        else (find(below[0]) for find in (find_split_folders, find_nested, *LAYOUTS_INSIDE))
    )
    found = next((found for found in tried if found is not None and found.paired), None)
    return None if found is None else replace(found, layout=f"{below[0].name}/: {found.layout}")
