"""Pascal VOC: JPEGImages next to SegmentationClass, and lists of names for the subsets."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.folders import pair_folders
from ushape.data.layouts.listing import folders_below, images_below
from ushape.data.layouts.names import SPLIT_WORDS
from ushape.types import Split

IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"


def find_voc(folder: Path) -> LayoutMatch | None:
    """Find JPEGImages and SegmentationClass in the folder, or in VOCdevkit/VOC2012 below it.

    The masks of individual objects, SegmentationObject, are not used. Lists such as
    ImageSets/Segmentation/train.txt define the split if each pair is in exactly one of them.
    """
    inside = [path for path in folders_below(folder) if fnmatch(path.name, "VOC*")]
    places = [folder, *inside, *sorted(folder.glob("VOCdevkit/VOC*"))]
    found = [p for p in places if (p / IMAGES).is_dir() and (p / MASKS).is_dir()]
    if len(found) != 1:
        return None
    match = pair_folders(found[0] / IMAGES, found[0] / MASKS)
    objects = found[0] / "SegmentationObject"
    return replace(
        match,
        layout="Pascal VOC: JPEGImages/ next to SegmentationClass/",
        splits=(match.splits or _stated_splits(found[0] / LISTS, match.paired)),
        other_masks=tuple(images_below(objects)) if objects.is_dir() else (),
    )


def _stated_splits(lists: Path, keys: list[str]) -> dict[str, Split]:
    """Return the subset of each pair; {} unless the lists assign each of them to one subset."""
    splits: dict[str, Split] = {}
    listed = 0
    for path in sorted(lists.glob("*.txt")) if lists.is_dir() else ():
        part = SPLIT_WORDS.get(path.stem.lower())
        if part is not None:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            names = {line.strip() for line in text.splitlines()} & set(keys)
            listed += len(names)
            splits |= dict.fromkeys(names, part)
    is_partition = listed == len(splits) == len(keys) and len(set(splits.values())) > 1
    return splits if is_partition else {}
