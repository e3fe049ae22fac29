"""train/, val/ and test/, each with images and masks in one of the other forms."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts import (
    class_folders,
    coco,
    folders,
    mask_per_object,
    mirrored_trees,
    suffix,
    table,
)
from ushape.data.layouts.base import LayoutMatch, join_parts
from ushape.data.layouts.names import MASK_FOLDERS, SPLIT_WORDS, folders_below
from ushape.errors import DataError
from ushape.types import Split

INSIDE = (table, mask_per_object, folders, class_folders, coco, suffix, mirrored_trees)
"""Forms that a part may have, in the order in which they are looked for."""

MASK_ENDINGS = (*MASK_FOLDERS, "annot")


def find(folder: Path) -> LayoutMatch | None:
    """Looks for a training folder with pairs in it, beside another part's folder.

    The masks of a part may also lie beside it: train/ and train_masks/, val/ and val_masks/.

    Raises:
        DataError: two folders for one part.
    """
    parts: dict[Split, Path] = {}
    for place in folders_below(folder):
        part = SPLIT_WORDS.get(place.name.lower())
        if part is None:
            continue
        if part in parts:
            raise DataError(
                f"{folder}: {parts[part].name}/ and {place.name}/ are both for {part}.",
                hint="Put them into one folder.",
            )
        parts[part] = place
    if "train" not in parts or len(parts) < 2:
        return None
    inside = {part: _inside(place) for part, place in parts.items()}
    tried = {part: own or _beside(parts[part]) for part, own in inside.items()}
    found = {part: own for part, own in tried.items() if own is not None}
    # train/ with train_masks/ beside a test/ without masks is a data set without given split.
    if "train" not in found or (len(found) == 1 and inside["train"] is None):
        return None
    forms = sorted({own.layout for own in found.values()})
    without = tuple(
        f"Left out: {place.name}/ holds no pair of image and mask."
        for part, place in parts.items()
        if part not in found
    )
    names = {part: parts[part].name for part in found}
    layout = f"{', '.join(f'{name}/' for name in names.values())}: {', '.join(forms)}"
    return join_parts(found, names, layout, without)


def _inside(place: Path) -> LayoutMatch | None:
    """What the first form finds that finds pairs."""
    tried = (form.find(place) for form in INSIDE)
    return next((found for found in tried if found is not None and found.paired), None)


def _beside(place: Path) -> LayoutMatch | None:
    """Masks in a folder whose name is the part's with a word for masks."""
    for other in folders_below(place.parent):
        start, ending = other.name[: len(place.name)], other.name[len(place.name) :].lower()
        if start == place.name and ending.lstrip("_- ") in MASK_ENDINGS:
            found = folders.pair(place, other)
            if found.paired:
                return found
    return None
