"""One folder per image, which holds one mask per object, as in the Data Science Bowl 2018."""

from __future__ import annotations

from pathlib import Path

from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.class_names import StatedClasses
from ushape.data.layouts.names import folders_below, images_below
from ushape.io import stem_of
from ushape.types import Mask, MaskParts


def find(folder: Path) -> LayoutMatch | None:
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
