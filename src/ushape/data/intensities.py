"""Intensities of files and groups of images, measured from some of their pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ushape.data.file_rows import FileRows
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.data.reading import read_image
from ushape.errors import DataError
from ushape.io.streaming.slides import open_bands_at
from ushape.normalization import Normalization
from ushape.transforms.resampling import find_box
from ushape.types import Box, Case

SAMPLED_PX = 16_384
"""Number of pixels, or up to twice as many, by which an image is normalized."""


@dataclass(frozen=True, kw_only=True)
class GroupStats:
    """Statistics of all images of a group."""

    box: Box | None
    """Bounding box of the bright pixels of all images; None without cropping."""

    normalization: Normalization


@lru_cache(maxsize=64)
def measure_group(
    cases: tuple[Case, ...],
    percentiles: tuple[float, float],
    crop: bool,
    channels: int | None = None,
) -> GroupStats:
    """Read all images of a group and measure their common box and the intensities within it.

    Raises:
        DataError: if a file cannot be read, or if the images differ in their number of channels.
    """
    box: Box | None = None
    if crop:
        edges = zip(*(find_box(read_image(case, channels)) for case in cases), strict=True)
        box = tuple((min(e[0] for e in edge), max(e[1] for e in edge)) for edge in edges)
    inside = tuple(slice(*edge) for edge in box) if box else ()
    pixels = [thin_out(read_image(case, channels)[(slice(None), *inside)], 4096) for case in cases]
    if len({len(part) for part in pixels}) > 1:
        raise DataError(
            f"{cases[0].image.parent}: the images of one group differ in their number of channels.",
            code="mixed_channels",
            hint="Convert them to one format, for example all grayscale or all RGB.",
        )
    return GroupStats(
        box=box, normalization=Normalization.measure(np.concatenate(pixels, axis=1), percentiles)
    )


@lru_cache(maxsize=1024)
def spread_over_file(
    path: Path, changed: int, config: PreprocessingConfig, mpp: float | None = None
) -> np.ndarray:
    """Return the pixels (C, N) of a file on the working grid by which it is normalized.

    Along axes on which the image is enlarged, they are those of the file.

    Args:
        changed: Time of the last change; a changed file is read again.
        mpp: Resolution of a slide, as for `open_bands_at`.
    """
    with open_bands_at(path, mpp) as bands:
        placed = config.working_shape(bands.shape[1:], bands.spacing_mm)
        working = tuple(map(min, placed, bands.shape[1:]))
        rows = FileRows(bands, (bands.shape[0], *working), None)
        return rows.take_pixels(thinning_step(math.prod(working), working[-1]))


def thin_out(image: np.ndarray, at_most: int = SAMPLED_PX) -> np.ndarray:
    """Return about this many evenly spread pixels of an image (C, *S), as (C, N)."""
    flat = image.reshape(image.shape[0], -1)
    return flat[:, :: thinning_step(flat.shape[1], image.shape[-1], at_most)]


def thinning_step(pixels: int, width: int, at_most: int = SAMPLED_PX) -> int:
    """Return the step between the pixels that `thin_out` takes, in row-major order."""
    step = max(1, pixels // at_most)
    while step > 1 and np.gcd(step, width) != 1:
        step -= 1  # A step that shares no factor with the width visits every column.
    return step
