"""Folders of images and masks, whole trees, and a folder for each part of a split."""

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
    """Find an image folder beside a mask folder, of which one at least has a usual name.

    Raises:
        DataError: if there are several candidates.
    """
    images = locate_images(folder)
    if images is None:
        return None
    found: dict[Path, LayoutMatch] = {}
    failed: list[DataError] = []
    for place in folders_below(folder):
        is_image_folder = place.name.lower() in IMAGE_FOLDERS
        if place == images or is_image_folder or _holds_classes(images, place):
            continue
        try:
            own = pair_folders(images, place)
        except DataError as error:
            failed.append(error)
            continue
        if has_mask_word(place.name) or _fit(own):
            found[place] = own
    if failed and not any(own.paired for own in found.values()):
        raise failed[0]
    return _choose_folder(folder, images, found)


def _choose_folder(
    folder: Path, images: Path, found: Mapping[Path, LayoutMatch]
) -> LayoutMatch | None:
    """Return the match of the folder that holds the masks; None if none does."""
    candidates = [
        Candidate(
            f"{place.name}/",
            quoted(place),
            {key: path for key in own.paired if isinstance(path := own.masks[key], Path)},
            has_mask_word(place.name),
        )
        for place, own in found.items()
        if own.paired
    ]
    chosen, notes = choose_masks(folder, quoted(images), candidates)
    if chosen is None:
        return next((own for own in found.values() if not own.paired), None)
    masks = next(place for place in found if f"{place.name}/" == chosen.name)
    own = found[masks]
    return replace(own, notes=(*own.notes, *notes), folders=(images.name, masks.name))


def locate_images(folder: Path) -> Path | None:
    """Return the image folder: the one with a usual name, or the only one beside usual masks.

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
            hint=f"Name the images and the masks that belong together, as in one of: {commands}",
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
        f"{images.name}/ beside {masks.name}/",
        [(stem_key(path, images), path) for path in images_below(images)],
        [(stem_key(path, masks), path) for path in images_below(masks)],
    )


def find_class_folders(folder: Path) -> LayoutMatch | None:
    """Find images/NAME beside masks/CLASS/NAME, one binary mask per image and class.

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

    At least half of the files must have a partner. Masks hold 2 to MAX_MASK_VALUES values in the
    first files, images hold more.

    Raises:
        DataError: if more than two folders match, or if both seem to hold masks.
    """
    filled = {place: paths for place in folders_below(folder) if (paths := images_below(place))}
    if not 2 <= len(filled) <= MAX_FOLDERS:
        return None
    failed: list[DataError] = []
    fitting = [both for both in itertools.permutations(filled, 2) if _pair_if_fit(*both, failed)]
    if failed and not fitting and len(filled) == 2:
        # Several masks of an image in one direction are several images of a mask in the other.
        raise min(failed, key=lambda error: error.code != "ambiguous_mask")
    places = sorted({place for both in fitting for place in both})
    few = [place for place in places if holds_few_values(filled[place])]
    pictures = [place for place in places if place not in few]
    if not few:
        return None
    if len(pictures) != 1:
        listed = ", ".join(f"{place.name}/" for place in places)
        what = "could all hold the images" if pictures else "could all hold the masks"
        raise DataError(
            f"{folder}: {listed} {what}.",
            code="ambiguous_folders",
            hint="Name the two folders that belong together: "
            f"ushape train {quoted(places[0])} --masks {quoted(places[1])}",
        )
    images = pictures[0]
    found = {place: own for place in few if (own := _pair_if_fit(images, place, []))}
    own = _choose_folder(folder, images, found)
    if own is None:
        return None
    return replace(own, layout=f"{own.layout}, which holds few values: the masks")


def _pair_if_fit(images: Path, masks: Path, failed: list[DataError]) -> LayoutMatch | None:
    try:
        found = pair_folders(images, masks)
    except DataError as error:  # Several files of one folder belong to one of the other.
        failed.append(error)
        return None
    return found if _fit(found) else None


def _fit(found: LayoutMatch) -> bool:
    """Return whether at least half of the smaller folder has a partner."""
    count = len(found.paired)
    return 0 < min(len(found.images), len(found.masks)) <= 2 * count


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
    first = _inside(parts["train"])
    inside = {part: _inside(place, first) for part, place in parts.items()}
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


def _inside(place: Path, like: LayoutMatch | None = None) -> LayoutMatch | None:
    """Return the match of the first layout that finds pairs; the same folders as in another part.

    The test part of a data set may have further folders, for example of a second annotator.
    """
    if like is not None and like.folders is not None:
        images, masks = (place / name for name in like.folders)
        if images.is_dir() and masks.is_dir():
            return pair_folders(images, masks)
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
