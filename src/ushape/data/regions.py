"""Choice of the regions of structure sets (RTSTRUCT) that are classes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from ushape.data.classes.names import StatedClasses
from ushape.data.discovery import DatasetListing
from ushape.errors import ConfigError
from ushape.io.annotations.rtstruct import roi_key
from ushape.types import ShapesMask


def choose_regions(
    listing: DatasetListing, wanted: Sequence[str], *, may_lack: bool = False
) -> DatasetListing:
    """Return a listing in which only some regions of structure sets are drawn.

    Other listings are returned as they are, as is one in which no region has one of the names:
    they are then new names of all classes.

    Args:
        wanted: Names of the classes, background first; none: all regions are classes.
        may_lack: Whether the data need not have all of these regions.

    Raises:
        ConfigError: if only some of the names are regions, or if the first one is.
    """
    masks = [case.mask for case in listing.cases]
    if not wanted or listing.classes is None:
        return listing
    if not all(isinstance(mask, ShapesMask) and mask.format == "rtstruct" for mask in masks):
        return listing
    names = {roi_key(name): name for name in listing.classes.names[1:]}
    if roi_key(wanted[0]) in names and roi_key(wanted[0]) != "background":
        raise ConfigError(
            f"labels.names begins with {wanted[0]}, which is a region.",
            code="region_as_background",
            hint=f"List the background first: [background, {wanted[0]}, ...].",
        )
    unknown = [name for name in wanted[1:] if roi_key(name) not in names]
    if len(unknown) == len(wanted[1:]):
        return listing
    if unknown and not may_lack:
        near = difflib.get_close_matches(roi_key(unknown[0]), names, n=1, cutoff=0)
        raise ConfigError(
            f"labels.names lists {unknown[0]}, but no structure set has a region of this name.",
            code="unknown_region",
            hint=f"The most similar region is {names[near[0]]}. List background and the names of "
            "existing regions, or list new names for all classes.",
        )
    classes = tuple(wanted[1:])
    cases = [
        replace(case, mask=replace(case.mask, classes=classes))
        if isinstance(case.mask, ShapesMask)
        else case
        for case in listing.cases
    ]
    stated = StatedClasses(
        source=listing.classes.source,
        names=("background", *classes),
        values=tuple(range(len(classes) + 1)),
    )
    return replace(listing, cases=cases, classes=stated)
