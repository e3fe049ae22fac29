"""Sections of a single volume as cases, since one volume cannot be split otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ushape.data.discovery import DatasetListing
from ushape.data.parts import has_one_grid
from ushape.errors import DataError
from ushape.io.streaming import open_bands
from ushape.types import Case, MaskPage

MIN_SECTIONS = 3
"""Number of sections that can be split into training, validation and test."""


def split_into_sections(listing: DatasetListing) -> DatasetListing:
    """Make each section of a single volume a case; other data are returned as they are.

    A network in two dimensions is trained on the sections, which are grouped by contiguous blocks.
    """
    cases = listing.cases
    count = _sections_of(cases[0]) if len(cases) == 1 else 0
    if count < MIN_SECTIONS:
        return listing
    case, mask = cases[0], cases[0].mask
    assert isinstance(mask, Path), "other masks have no sections"
    digits = len(str(count))
    return replace(
        listing,
        cases=[
            replace(
                case,
                id=f"{case.id}/{page + 1:0{digits}}",
                mask=MaskPage(mask, page),
                page=page,
                group="",
                split="",
            )
            for page in range(count)
        ],
        layout=f"{listing.layout}; each of the {count} sections of the only volume is a case",
    )


def _sections_of(case: Case) -> int:
    """Return the number of sections; 0 if image and mask are not stacks of equal size and grid."""
    if not isinstance(case.mask, Path) or case.channels:
        return 0
    try:
        if not has_one_grid(case.image, case.mask):
            return 0
        with open_bands(case.image) as image, open_bands(case.mask) as mask:
            is_stack = len(image.shape) == 4 and image.shape[1:] == mask.shape[1:]
            return image.shape[1] if is_stack else 0
    except DataError:
        return 0  # The error is reported when the files are read.
