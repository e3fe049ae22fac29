"""Cityscapes: leftImg8bit/PART/CITY/x_leftImg8bit.png, gtFine/PART/CITY/x_gtFine_labelIds.png."""

from __future__ import annotations

from pathlib import Path

from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import LayoutMatch, splits_of
from ushape.data.layouts.listing import images_below
from ushape.types import Mask

TRAIN_NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip
"""Names of the values 0 to 18 of labelTrainIds, from labels.py of cityscapesScripts."""

VOID = 255
"""Value of labelTrainIds that is ignored."""


def find_cityscapes(folder: Path) -> LayoutMatch | None:
    """Pair images with labelTrainIds if there are any, otherwise with labelIds.

    The colored masks, those of individual objects, and the JSON files of polygons are not used.
    """
    truth = next(
        (folder / name for name in ("gtFine", "gtCoarse") if (folder / name).is_dir()), None
    )
    if truth is None or not (folder / "leftImg8bit").is_dir():
        return None
    images = _named(folder / "leftImg8bit", "_leftImg8bit")
    for kind in ("labelTrainIds", "labelIds"):
        masks: dict[str, Mask] = dict(_named(truth, f"_{truth.name}_{kind}"))
        if images.keys() & masks.keys():
            break
    is_train_ids = kind == "labelTrainIds"
    note = (
        "Values 0 to 6 of labelIds are used as classes, although Cityscapes regards them as void. "
        "To ignore them, create labelTrainIds with cityscapesScripts (createTrainIdLabelImgs.py)."
    )
    return LayoutMatch(
        layout=f"Cityscapes: leftImg8bit/ next to {truth.name}/, {kind}",
        images=images,
        masks=masks,
        splits=splits_of(sorted(images.keys() & masks.keys())),
        classes=StatedClasses(
            source=truth, names=TRAIN_NAMES, values=tuple(range(len(TRAIN_NAMES))), ignore=VOID
        )
        if is_train_ids
        else None,
        notes=() if is_train_ids else (note,),
        other_masks=tuple(images_below(truth)),
    )


def _named(folder: Path, ending: str) -> dict[str, Path]:
    """Return the PNG files whose names have an ending, by their path without it."""
    return {
        path.relative_to(folder).as_posix().removesuffix(f"{ending}.png"): path
        for path in sorted(folder.rglob(f"*{ending}.png"))
    }
