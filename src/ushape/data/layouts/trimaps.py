"""Oxford-IIIT Pet: images/ next to annotations/trimaps/."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ushape import io
from ushape.data.classes.names import StatedClasses
from ushape.data.layouts.base import LayoutMatch
from ushape.data.layouts.folders import pair_folders
from ushape.errors import DataError
from ushape.types import Mask

NAMES = {2: "background", 1: "foreground", 3: "border"}
"""Meaning of the values, according to the README of the dataset; background first."""

FILES_READ = 6
"""Number of masks that are read to check that they have these values."""


def find_trimaps(folder: Path) -> LayoutMatch | None:
    """Find images/ and annotations/trimaps/, whose values are 1, 2 and 3."""
    images, masks = folder / "images", folder / "annotations" / "trimaps"
    if not images.is_dir() or not masks.is_dir():
        return None
    found = pair_folders(images, masks)
    if not _have_these_values([found.masks[key] for key in found.paired[:FILES_READ]]):
        return replace(found, layout="images/ next to annotations/trimaps/")
    meaning = ", ".join(f"{value} = {name}" for value, name in sorted(NAMES.items()))
    return replace(
        found,
        layout="Oxford-IIIT Pet: images/ next to annotations/trimaps/",
        classes=StatedClasses(source=masks, names=tuple(NAMES.values()), values=tuple(NAMES)),
        notes=(
            f"The values of the trimaps are read as {meaning}, as defined by the Oxford-IIIT Pet "
            "dataset. To exclude the border from training and scores: --set labels.ignore=3",
        ),
    )


def _have_these_values(masks: list[Mask]) -> bool:
    try:
        values = [np.unique(io.read_mask(mask).codes) for mask in masks if isinstance(mask, Path)]
    except DataError:
        return False
    return bool(values) and set(np.concatenate(values).tolist()) == set(NAMES)
