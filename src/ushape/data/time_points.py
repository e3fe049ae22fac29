"""Time points of volumes as cases, if each has a mask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ushape import io
from ushape.data.discovery import DatasetListing
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.types import Case, MaskPage

NIFTI = (".nii", ".nii.gz")
"""Suffixes of files that may have a time axis."""


def split_into_time_points(listing: DatasetListing, is_time: bool | None = None) -> DatasetListing:
    """Make each time point of a NIfTI file a case if the mask has as many; others stay as they are.

    Args:
        is_time: Whether the fourth axis of the masks is time; None: it is, unless each mask has one
            channel for each class, or equal channels. A note then says so.
    """
    if is_time is False:
        return listing
    counts = {case.id: _time_points_of(case) for case in listing.cases}
    series = [case for case in listing.cases if counts[case.id] > 1]
    shown = next((case for case in series if is_time or not _is_one_mask(case.mask)), None)
    if shown is None:
        return listing
    total = sum(counts[case.id] for case in series)
    note = (
        f"Time points: the fourth axis of {shown.mask} is interpreted as time, because the image "
        "has as many volumes and there is not one mask for each class. If the axis contains "
        "overlapping regions instead: --set labels.time_points=false."
    )
    return replace(
        listing,
        cases=[part for case in listing.cases for part in _parts_of(case, counts[case.id])],
        layout=f"{listing.layout}; each of the {total} time points of "
        f"{pluralize(len(series), 'file')} with a mask for each of them is a case",
        notes=listing.notes if is_time else [*listing.notes, note],
    )


def _time_points_of(case: Case) -> int:
    """Return the number of time points of the image if the mask has as many, else 1."""
    mask = case.mask
    if not isinstance(mask, Path) or case.channels or case.page is not None:
        return 1
    if not all(io.suffix_of(path) in NIFTI for path in (case.image, mask)):
        return 1
    with contextlib.suppress(DataError):  # The error is reported when the files are read.
        count = io.itk.count_time_points(case.image)
        return count if count == io.itk.count_time_points(mask) else 1
    return 1


def _is_one_mask(mask: object) -> bool:
    """Return whether the fourth axis of a mask holds the classes, or copies of one mask."""
    assert isinstance(mask, Path), "other masks have no time points"
    try:
        io.read_mask(mask)
    except DataError as error:
        return error.code != "mask_channels"
    return True


def _parts_of(case: Case, count: int) -> Iterator[Case]:
    """Yield a case for each time point; a case without several as it is."""
    if count == 1:
        yield case
        return
    assert isinstance(case.mask, Path)
    for page in range(count):
        number = f"{page + 1:0{len(str(count))}}"
        yield replace(case, id=f"{case.id}/{number}", mask=MaskPage(case.mask, page), page=page)
