"""Parts of large images as cases, so that no step of training needs a whole image in memory."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ushape import io
from ushape.data.discovery import DatasetListing
from ushape.data.slide_parts import check_mask, is_read_as_slide, mask_part, slide_shape
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.io.files import MAX_INFLATION
from ushape.io.placement import AS_THEY_ARE, compare_grids
from ushape.io.streaming import open_boxes
from ushape.io.streaming.slides import describe_slide
from ushape.types import Box, Case, Mask, MaskBox, ShapesMask

PARTS = 16
"""The limit above which an image is divided, relative to the largest size of its parts."""


def divide_large_images(
    listing: DatasetListing, above_px: int | None, slide_mpp: float | None = None
) -> DatasetListing:
    """Make each part of an image that is larger than a limit a case, and each part of a slide.

    An image stays whole if it or its mask cannot be read in parts, as a NIfTI file of scaled values
    or a TIFF that is compressed as one strip, or if the mask has another size or grid, or several
    channels.

    Args:
        above_px: Number of pixels times channels; None: no image is divided.
        slide_mpp: Micrometers per pixel at which slides are read; None: their finest level.

    Raises:
        DataError: if a slide cannot be read at this resolution, or its mask does not fit.
    """
    cases: list[Case] = []
    divided, slides = 0, list[Path]()
    for case in listing.cases:
        if is_read_as_slide(case, slide_mpp):
            cases += _parts_of_slide(case, above_px, slide_mpp)
            slides.append(case.image)
            continue
        boxes = [] if above_px is None else _boxes_of(case, above_px)
        divided += bool(boxes)
        cases += _parts_of(case, boxes) if boxes else [case]
    if slides:
        listing = replace(listing, layout=f"{listing.layout}; {_describe(slides, slide_mpp)}")
    if not divided:
        return replace(listing, cases=cases) if slides else listing
    count = sum(case.box is not None and case.image not in slides for case in cases)
    text = (
        f"{pluralize(divided, 'image')} of more than {above_px:,} pixels "
        f"{'is' if divided == 1 else 'are'} divided into {count} parts, which are separate cases "
        "(preprocessing.divide_above_px)"
    )
    return replace(listing, cases=cases, layout=f"{listing.layout}; {text}")


def cut_into_boxes(shape: Sequence[int], most_px: int) -> list[Box]:
    """Divide an image into boxes of nearly equal size and similar sides.

    Args:
        shape: S.
        most_px: Largest number of pixels of a box.
    """
    counts = [1] * len(shape)

    def sides() -> list[int]:
        return [math.ceil(size / count) for size, count in zip(shape, counts, strict=True)]

    while math.prod(sides()) > max(1, most_px):
        longest = max(range(len(shape)), key=lambda axis: sides()[axis])
        counts[longest] += 1
    edges = [
        list(itertools.pairwise(part * size // count for part in range(count + 1)))
        for size, count in zip(shape, counts, strict=True)
    ]
    return list(itertools.product(*edges))


def _boxes_of(case: Case, above_px: int) -> list[Box]:
    """Return the parts of an image; none if it stays whole."""
    if not isinstance(case.mask, Path) or case.channels or case.page is not None:
        return []
    if not (io.is_read_in_bands(case.image) and io.is_read_in_bands(case.mask)):
        return []
    if case.image.is_file() and MAX_INFLATION * case.image.stat().st_size < above_px:
        return []
    try:
        shape = _shape_in_boxes(case.image, above_px)
        if shape is None or math.prod(shape) <= above_px:
            return []
        if _shape_in_boxes(case.mask, above_px) != (1, *shape[1:]):
            return []
        if not has_one_grid(case.image, case.mask):
            return []
    except DataError:
        return []  # The error is reported when the files are read.
    return cut_into_boxes(shape[1:], above_px // (PARTS * shape[0]))


def _shape_in_boxes(path: Path, most_px: int) -> tuple[int, ...] | None:
    """Return (C, *S) of a file of which boxes can be read; None for other files.

    Args:
        most_px: Largest number of values that may have to be unpacked to read a small box.
    """
    bands = open_boxes(path)
    if bands is None:
        return None
    with bands:
        is_plain = bands.dtype.kind in "uif" and bands.orientation == 1
        return bands.shape if is_plain and bands.unit_px <= most_px else None


def has_one_grid(image: Path, mask: Path) -> bool:
    """Return whether the pixels of both files correspond by their index."""
    grids = io.read_grid(image), io.read_grid(mask)
    own, other = grids
    return own is None or other is None or compare_grids(own, other) in AS_THEY_ARE


def _parts_of(case: Case, boxes: Sequence[Box]) -> list[Case]:
    assert isinstance(case.mask, Path), "other masks are not divided"
    digits = len(str(len(boxes)))
    return [
        replace(
            case,
            id=f"{case.id}/part-{number:0{digits}}",
            mask=MaskBox(case.mask, box),
            box=box,
        )
        for number, box in enumerate(boxes, start=1)
    ]


def _parts_of_slide(case: Case, above_px: int | None, slide_mpp: float | None) -> list[Case]:
    """Return the parts of a slide as cases; one part shows all of a small slide."""
    shape = slide_shape(case, slide_mpp)
    check_mask(case)
    most_px = math.prod(shape) if above_px is None else above_px // PARTS
    boxes = cut_into_boxes(shape[1:], most_px // shape[0])
    digits = len(str(len(boxes)))
    return [
        replace(
            case,
            id=f"{case.id}/part-{number:0{digits}}",
            mask=mask_part(case, box, shape[1:]),
            box=box,
            mpp=slide_mpp,
        )
        for number, box in enumerate(boxes, start=1)
    ]


def _describe(slides: Sequence[Path], slide_mpp: float | None) -> str:
    """Return at which resolution slides are read, in words."""
    counts = Counter(describe_slide(path, slide_mpp) for path in slides)
    first, count = counts.most_common(1)[0]
    how = "their finest level" if slide_mpp is None else f"{slide_mpp:g} µm per pixel"
    more = f", and in {len(slides) - count} other ways" if count < len(slides) else ""
    return (
        f"parts of {pluralize(len(slides), 'slide')} are separate cases, read at {how} "
        f"(preprocessing.slide_mpp): {first}{more}"
    )


def whole_of(case: Case) -> Case:
    """Return the case of the whole image of a part; other cases are returned as they are."""
    if case.box is None:
        return case
    if isinstance(case.mask, MaskBox):
        whole: Mask | None = case.mask.path
    elif isinstance(case.mask, ShapesMask):
        whole = replace(case.mask, box=None, scale=(1.0, 1.0))
    else:
        return case
    return replace(case, id=case.id.rpartition("/")[0], mask=whole, box=None, mpp=None)
