"""Common spacing to which cases are resampled: its choice, and the grid of a case at it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ushape.errors import DataError
from ushape.io.streaming.slides import read_spacing_at
from ushape.types import Case

SAME = 1.05
"""Ratio of two lengths up to which they count as equal."""

THICK = 3.0
"""Length of a voxel along an axis, relative to the others, above which the axis is resampled
separately (ANISO_THRESHOLD of nnU-Net)."""

MAX_FACTOR = 16.0
"""Largest factor by which an image may grow along an axis."""


def spacing_text(spacing_mm: Sequence[float]) -> str:
    """Return a spacing in words, such as '5 × 0.7 × 0.7 mm'."""
    return f"{' × '.join(f'{length:.3g}' for length in spacing_mm)} mm"


def is_common(spacings: Sequence[Sequence[float]]) -> bool:
    """Return whether the spacings of all cases are equal along each axis, within 5%."""
    lengths = np.asarray(spacings)
    return bool((lengths.max(axis=0) <= SAME * lengths.min(axis=0)).all())


def choose_common(
    spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]
) -> tuple[float, ...]:
    """Return the spacing to which cases with these spacings and shapes are resampled.

    It is the median along each axis. Along an axis whose median is more than 3 times that of each
    other axis, and which has less than a third of their pixels, it is the 10th percentile, but not
    less than along the others.

    Source:
        nnU-Net (determine_fullres_target_spacing in default_experiment_planner.py).
    """
    lengths = np.asarray(spacings, dtype=np.float64)
    target, sizes = np.median(lengths, axis=0), np.median(np.asarray(shapes), axis=0)
    worst = int(target.argmax())
    others = [axis for axis in range(len(target)) if axis != worst]
    most = float(target[others].max())
    if target[worst] > THICK * most and sizes[worst] * THICK < sizes[others].min():
        target[worst] = max(float(np.percentile(lengths[:, worst], 10)), most)
    return tuple(float(f"{length:.6g}") for length in target)


def factors_to(
    spacing_mm: Sequence[float] | None, target_mm: Sequence[float] | None, dims: int
) -> tuple[float, ...]:
    """Return the factor along each axis by which resampling divides the size; 1 without it.

    Axes before those of the target, such as z of volumes that are resampled slice by slice, keep
    their size.
    """
    if spacing_mm is None or target_mm is None:
        return (1.0,) * dims
    own = zip(spacing_mm[-len(target_mm) :], target_mm, strict=True)
    return (1.0,) * (dims - len(target_mm)) + tuple(new / old for old, new in own)


def coarse_axes(spacing_mm: Sequence[float], target_mm: Sequence[float]) -> tuple[int, ...]:
    """Return the axis that is resampled separately, as a tuple; empty if there is none.

    It is the axis with the longest voxels if they are more than 3 times as long as along another
    one, before or else after resampling. Images and slices have no such axis.

    Source:
        nnU-Net (determine_do_sep_z_and_axis in default_resampling.py).
    """
    if len(target_mm) < 3:
        return ()
    for lengths in (spacing_mm, target_mm):
        if max(lengths) > THICK * min(lengths):
            longest = [axis for axis, one in enumerate(lengths) if one == max(lengths)]
            return tuple(longest) if len(longest) == 1 else ()
    return ()


def check_spacing(
    name: str, spacing_mm: Sequence[float] | None, target_mm: Sequence[float]
) -> tuple[float, ...]:
    """Return the spacing of an image that is to be resampled along the last axes.

    Raises:
        DataError: if the file does not specify it, or if it is far longer than the target.
    """
    if spacing_mm is None or len(spacing_mm) < len(target_mm):
        raise DataError(
            f"{name}: the file does not specify its spacing, but images are resampled to "
            f"{spacing_text(target_mm)}.",
            code="missing_spacing",
            hint="Set the spacing in the header, or save the image in a format that has one, such "
            "as NIfTI or OME-TIFF. A model trained with --set "
            "preprocessing.target_spacing_mm=null does not resample images.",
        )
    if 1 / min(factors_to(spacing_mm, target_mm, len(target_mm))) > MAX_FACTOR:
        raise DataError(
            f"{name}: the spacing is {spacing_text(spacing_mm)}, but images are resampled to "
            f"{spacing_text(target_mm)}, which would enlarge it by a factor of more than "
            f"{MAX_FACTOR:g}.",
            code="implausible_spacing",
            hint="Correct the spacing in the header, or resample the image first.",
        )
    return tuple(spacing_mm)


def resampled_shape(
    shape: Sequence[int],
    spacing_mm: Sequence[float] | None,
    target_mm: Sequence[float] | None,
) -> tuple[int, ...]:
    """Return the shape of an image at the common spacing; its own shape if there is none."""
    factors = factors_to(spacing_mm, target_mm, len(shape))
    return tuple(max(1, round(size / own)) for size, own in zip(shape, factors, strict=True))


def enlargement(case: Case, target_mm: Sequence[float] | None) -> float:
    """Return how many pixels at the common spacing replace one of the file; 1 if it is unknown.

    Raises:
        DataError: if the header of the image cannot be read.
    """
    if target_mm is None or (stated := read_spacing_at(case.image, case.mpp)) is None:
        return 1.0
    return math.prod(stated[-len(target_mm) :]) / math.prod(target_mm)
