"""Parts of whole-slide images as cases, on the grid of the resolution at which they are read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ushape import io
from ushape.errors import DataError
from ushape.formatting import size_text
from ushape.io.annotations import size_of
from ushape.io.slides import SLIDES, is_slide, open_slide
from ushape.io.streaming.slides import open_bands_at
from ushape.types import Box, Case, Mask, MaskBox, ShapesMask

SAME_SIDES = 0.01
"""Largest difference between the factors by which a mask is smaller than its slide along y and x,
as a share."""


def is_read_as_slide(case: Case, slide_mpp: float | None) -> bool:
    """Return whether the image of a case is a slide of which parts are read.

    A TIFF of several levels is one if a resolution of slides is set.
    """
    if case.channels or case.page is not None or case.box is not None:
        return False
    if io.suffix_of(case.image) in SLIDES:
        return True
    return slide_mpp is not None and is_slide(case.image)


def slide_shape(case: Case, slide_mpp: float | None) -> tuple[int, ...]:
    """Return (C, y, x) of the slide of a case at a resolution.

    Raises:
        DataError: if the slide cannot be read at it.
    """
    with open_bands_at(case.image, slide_mpp) as bands:
        return bands.shape


def mask_part(case: Case, box: Box, shape: tuple[int, ...]) -> Mask:
    """Return the part of the mask of a slide that belongs to a part of its image.

    Args:
        box: Part of `shape`.
        shape: S of the slide as it is read.

    Raises:
        DataError: if the mask has another aspect ratio than the slide, or a format that is not read
            in parts.
    """
    mask = case.mask
    if isinstance(mask, ShapesMask):
        finest = _finest(case)
        scale = (shape[0] / finest[0], shape[1] / finest[1])
        return replace(mask, box=box, scale=scale)
    if not isinstance(mask, Path) or not io.is_read_in_bands(mask):
        raise DataError(
            f"{case.image}: the mask {mask} cannot be read in parts.",
            code="slide_mask_unsupported",
            hint="Save the masks of slides as tiled TIFF or Zarr, or as GeoJSON of QuPath.",
        )
    return MaskBox(mask, box, shape)


def check_mask(case: Case) -> None:
    """Compare the aspect ratio of a slide with that of its mask, which may have another resolution.

    Raises:
        DataError: if the mask does not show the same area.
    """
    size = size_of(case.mask) if isinstance(case.mask, Path) else None
    finest = _finest(case)
    if size is None:
        return
    if len(size) == len(finest):
        low, high = sorted(own / whole for own, whole in zip(size, finest, strict=True))
        # A side of a coarse mask may be off by a pixel.
        if high - low <= high * (SAME_SIDES + 2 / min(size)):
            return
    raise DataError(
        f"{case.id}: the slide has {size_text(finest)} pixels at its finest level, but its mask "
        f"has {size_text(size)}, which is a different aspect ratio.",
        code="mask_size_mismatch",
        hint="A mask must show the whole slide; its resolution may differ. Export it again.",
    )


def _finest(case: Case) -> tuple[int, ...]:
    """Return S of the finest level."""
    with ExitStack() as closing:
        return open_slide(case.image, closing).levels[0].shape[1:]
