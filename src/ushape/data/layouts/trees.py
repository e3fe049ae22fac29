"""Whole trees: masks beside their images, mirrored trees, and a folder for each split part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.layouts.base import (
    LayoutMatch,
    index_images,
    index_masks,
    join_parts,
    join_series,
    take_splits_from_keys,
)
from ushape.data.layouts.coco import find_coco
from ushape.data.layouts.folders import (
    find_class_folders,
    find_folders,
    find_object_folders,
    pair_folders,
)
from ushape.data.layouts.names import (
    MASK_FOLDERS,
    SPLIT_WORDS,
    folders_below,
    images_below,
    stem_key,
    strip_mask_word,
)
from ushape.data.layouts.table import find_table
from ushape.errors import DataError
from ushape.types import Split

MAX_FOLDERS = 20
"""More folders than this are taken for patients or plates, not for images and masks."""

MAX_MASK_VALUES = 32
"""Number of values above which some files of a folder are taken for images, not masks."""

FILES_READ = 6
"""Number of files of each folder that are read to distinguish images from masks."""

MASK_ENDINGS = (*MASK_FOLDERS, "annot")


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
            layout=f"one tree, masks named as {example}",
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
    keys = {place: _keys_of(place, paths) for place, paths in filled.items()}
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
            f"{folder}: files have the same names in {listed}.",
            code="ambiguous_folders",
            hint=hint,
        )
    if len(few) == 2:
        raise DataError(
            f"{folder}: {listed} could both hold the masks.",
            code="ambiguous_folders",
            hint=hint,
        )
    images = next(place for place in places if place != few[0])
    found = pair_folders(images, few[0])
    why = f"{images.name}/ beside {few[0].name}/, which holds few values: the masks"
    return replace(found, layout=why)


def _keys_of(place: Path, paths: Sequence[Path]) -> set[str]:
    """Return the names of files below their folder, without words such as `_mask`."""
    keys = [stem_key(path, place) for path in paths]
    return {strip_mask_word(key) or key for key in keys}


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
