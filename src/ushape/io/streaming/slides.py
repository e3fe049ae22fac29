"""Read whole-slide images at a given resolution, in bands and boxes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ushape.io import slides
from ushape.io.reducing import pixels_beneath, shrink_box
from ushape.io.streaming import Bands, open_bands, open_boxes, read_spacing
from ushape.types import Box, RowReader


def open_bands_at(path: Path, mpp: float | None) -> Bands:
    """Open an image, or a slide at a given resolution, to read it in bands.

    The level of this resolution (within 5%) is read as it is. Otherwise, areas of the nearest finer
    level are averaged exactly.

    Args:
        mpp: Micrometers per pixel; None: an image of any format as it is stored.

    Raises:
        DataError: as for `io.read`, or if the slide does not specify its resolution, or is coarser.
        MissingPackageError: if the package that reads the slide is not installed.
    """
    if mpp is None:
        return open_bands(path)
    with ExitStack() as closing:
        slide = slides.open_slide(path, closing)
        shape = slide.shape_at(mpp)
        finest = slide.levels[0].shape[1:]
        level = replace(slide.levels[slide.level_at(mpp)], finest_shape=finest)
        if shape != level.shape:
            level = _reduced(Bands(path, level, ExitStack()), level, shape)
        return Bands(path, level, closing.pop_all())


def _reduced(source: Bands, level: RowReader, shape: tuple[int, ...]) -> RowReader:
    """Return a reader of areas of a level.

    Args:
        source: The level, which keeps the tiles that it read last.
        shape: (C, *S) of the reduced image.
    """
    old, new = source.shape[1:], shape[1:]

    def beneath(box: Box) -> Box:
        return tuple(pixels_beneath(*one) for one in zip(box, old, new, strict=True))

    def read_rows(first: int, last: int) -> np.ndarray:
        box = ((first, last), (0, new[1]))
        return shrink_box(source.read(*beneath(box)[0]), box, old, new)

    steps = level.spacing_mm and tuple(
        step * size / own for step, size, own in zip(level.spacing_mm, old, new, strict=True)
    )
    return replace(
        level,
        shape=shape,
        read_rows=read_rows,
        block_rows=None,
        read_box=lambda box: shrink_box(source.read_box(beneath(box)), box, old, new),
        spacing_mm=steps,
    )


def open_boxes_at(path: Path, mpp: float | None) -> Bands | None:
    """Open an image of which boxes can be read without the rest of the file.

    Args:
        mpp: As for `open_bands_at`.

    Returns:
        None for any other file.

    Raises:
        DataError: if `open_bands_at` raises it.
    """
    return open_boxes(path) if mpp is None else open_bands_at(path, mpp)


def read_spacing_at(path: Path, mpp: float | None) -> tuple[float, ...] | None:
    """Return the spacing in mm of an image that `open_bands_at` opens, if it is known.

    Raises:
        DataError: if `open_bands_at` raises it.
    """
    if mpp is None:
        return read_spacing(path)
    with open_bands_at(path, mpp) as bands:
        return bands.spacing_mm


def describe_slide(path: Path, mpp: float | None) -> str:
    """Return which level of a slide is read for a resolution, in words.

    Raises:
        DataError: if the slide cannot be read at it.
    """
    with ExitStack() as closing:
        return slides.open_slide(path, closing).describe(mpp)
