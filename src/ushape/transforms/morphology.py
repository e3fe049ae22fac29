"""Masks after the decision: small parts, stray parts and holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ushape.errors import ConfigError
from ushape.labels import Region


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What happens to the connected parts of one class; by default nothing.

    Parts are removed first, then the holes of those that stay are filled.
    """

    largest_only: bool = False
    """Only the largest part stays."""

    smallest_px: int = 0
    """Parts of fewer pixels are removed."""

    largest_hole_px: int | Literal["all"] = 0
    """Holes of up to so many pixels are filled; all: holes of any size."""

    def __post_init__(self) -> None:
        for name in ("smallest_px", "largest_hole_px"):
            value = getattr(self, name)
            if value != "all" and value < 0:
                raise ConfigError(f"{name} is {value} pixels.", hint="0 switches it off.")

    @property
    def is_idle(self) -> bool:
        """Nothing is removed and nothing filled."""
        return not (self.largest_only or self.smallest_px > 1 or self.largest_hole_px)


def remove_small(mask: np.ndarray, smallest_px: int) -> np.ndarray:
    """The mask without its parts of fewer pixels; corners connect.

    Shapes:
        mask: (*S) bool -> the same.
    """
    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    is_kept = np.bincount(parts.ravel(), minlength=count + 1) >= smallest_px
    is_kept[0] = False
    return np.asarray(is_kept[parts])


def fill_holes(mask: np.ndarray, largest_px: int | Literal["all"] = "all") -> np.ndarray:
    """The mask with its holes filled.

    A hole is background that cannot get out to the border of the array. Corners connect the
    mask, so they do not connect a hole with the outside. In a volume a hole is closed in all
    three directions: what is one in a slice may be open to the next.

    Args:
        largest_px: Larger holes stay.

    Shapes:
        mask: (*S) bool -> the same.
    """
    gaps, count = ndimage.label(~mask)
    is_filled = np.ones(count + 1, dtype=bool)
    if largest_px != "all":
        is_filled = np.bincount(gaps.ravel(), minlength=count + 1) <= largest_px
    for axis in range(mask.ndim):
        is_filled[np.unique(np.take(gaps, [0, -1], axis=axis))] = False
    is_filled[0] = True  # The mask itself.
    return np.asarray(is_filled[gaps])


def remove_parts(mask: np.ndarray, cleaning: Cleaning) -> np.ndarray:
    """(*S) bool without the parts that the cleaning does not leave."""
    if cleaning.largest_only:
        mask = keep_largest(mask)
    return remove_small(mask, cleaning.smallest_px) if cleaning.smallest_px > 1 else mask


def clean_classes(
    classes: np.ndarray, regions: Sequence[Region], cleanings: Sequence[Cleaning]
) -> np.ndarray:
    """A class map, cleaned class by class or region by region.

    Removed pixels become what lies beneath: of a region within another, the other; else
    background. Never a second likeliest class: noise would turn into objects of that class.
    Holes take in background and what lies beneath, no other class: the nucleus in a cell stays.

    Args:
        regions: As in LabelSpace.scored, the largest first.
        cleanings: One for each region.

    Shapes:
        classes: (*S) class indices -> the same.
    """
    if all(cleaning.is_idle for cleaning in cleanings):
        return classes
    cleaned = classes.copy()
    beneath = classes_beneath(regions)
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        own = region.of(cleaned)
        cleaned[own & ~remove_parts(own, cleaning)] = under[-1]
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.largest_hole_px:
            filled = fill_holes(region.of(cleaned), cleaning.largest_hole_px)
            cleaned[filled & np.isin(cleaned, under)] = region.classes[0]
    return cleaned


def classes_beneath(regions: Sequence[Region]) -> list[list[int]]:
    """For each region: background, then what each region around it is painted with, the nearest
    last."""
    found = []
    for place, region in enumerate(regions):
        around = [one for one in regions[:place] if set(region.classes) < set(one.classes)]
        found.append([0, *(one.classes[0] for one in around)])
    return found


def keep_largest(classes: np.ndarray) -> np.ndarray:
    """Of each foreground class only the largest connected part; corners connect.

    Shapes:
        classes: (*S) class indices -> the same.
    """
    kept = np.zeros_like(classes)
    for class_index in np.unique(classes[classes > 0]):
        parts, count = ndimage.label(classes == class_index, np.ones((3,) * classes.ndim))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept[parts == sizes.argmax()] = class_index
    return kept
