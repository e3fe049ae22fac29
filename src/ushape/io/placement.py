"""Resample a mask to the grid of its image, according to the positions in both files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ushape.errors import DataError
from ushape.formatting import size_text
from ushape.io.itk import axes_kept
from ushape.types import UNIT_MM, Grid, GridRemark, MaskPixels

MAX_DRIFT_PX = 0.05
"""Largest distance of two pixel centers that are the same, anywhere in the image."""

MAX_LOST = 0.5
"""Share of the annotated pixels that may lie outside the image."""


AS_THEY_ARE = (None, "shifted", "unpositioned")
"""Results of `compare_grids` for which pixels are paired by their index."""


def place_on(image: Grid, mask: MaskPixels, path: Path) -> MaskPixels:
    """Return the mask on the grid of its image, and remarks about what was done.

    A mask without a position, or with another number of axes, is returned as it is. If both files
    contain their position, the mask is placed accordingly; pixels that it does not cover become 0.

    Args:
        path: File of the mask, for errors.

    Shapes:
        mask: codes (*S) of any size; they get the S of the image.

    Raises:
        DataError: if most of the annotated pixels would lie outside the image.
    """
    own = mask.grid
    is_one_plane = own is not None and mask.codes.size == math.prod(own.shape)
    if own is None or not is_one_plane or len(own.shape) != len(image.shape):
        return mask
    own = _in_unit_of(image, own)
    found = {*image.remarks, *own.remarks}
    step = _index_map(image, own)
    remark = compare_grids(image, own)
    if remark is not None:
        found.add(remark)
    if remark in AS_THEY_ARE:
        return replace(mask, remarks=frozenset(found))
    if remark in ("reoriented", "cropped"):
        step = np.rint(step)
    placed = ndimage.affine_transform(
        mask.codes.reshape(own.shape),
        step[:, :-1],
        step[:, -1],
        output_shape=image.shape,
        order=0,
        mode="grid-constant",
    )
    placed = placed.reshape([image.shape[axis] for axis in axes_kept(image)])
    _refuse_lost(mask.codes, placed, own, image, path)
    return replace(mask, codes=placed, grid=replace(image, remarks=()), remarks=frozenset(found))


def _in_unit_of(image: Grid, mask: Grid) -> Grid:
    """Return the mask's grid with its numbers in the unit of the image, if one file has no unit.

    Programs that copy the matrix of an image, but not its unit, write such masks.
    """
    if image.unit and mask.unit:
        return mask
    factor = UNIT_MM[image.unit] / UNIT_MM[mask.unit]
    return replace(
        mask,
        spacing_mm=tuple(factor * length for length in mask.spacing_mm),
        origin_mm=tuple(factor * length for length in mask.origin_mm),
        unit=image.unit,
    )


def _index_map(image: Grid, mask: Grid) -> np.ndarray:
    """Return the matrix (D, D + 1) from indices of the image to indices of the mask."""
    last = [*[0.0] * len(image.shape), 1.0]
    to_position = np.vstack([image.matrix, last])
    from_position = np.linalg.inv(np.vstack([mask.matrix, last]))
    return (from_position @ to_position)[:-1]


def compare_grids(image: Grid, mask: Grid) -> GridRemark | None:
    """Return how the grids differ; None if they are the same, or if only their sizes differ."""
    if len(image.shape) != len(mask.shape):
        return None
    mask = _in_unit_of(image, mask)
    step = _index_map(image, mask)
    is_same_shape = image.shape == mask.shape
    identity = np.eye(len(image.shape), len(image.shape) + 1)
    if is_same_shape and _drift(step, identity, image) <= MAX_DRIFT_PX:
        return None
    nearest = np.rint(step)
    is_lattice = (
        abs(np.linalg.det(nearest[:, :-1])) == 1
        and bool((np.abs(nearest[:, :-1]).sum(axis=1) == 1).all())
        and _drift(step, nearest, image) <= MAX_DRIFT_PX
    )
    if is_lattice and _covers(nearest, image, mask):
        return "reoriented"
    if is_same_shape and not (image.is_positioned and mask.is_positioned):
        return "unpositioned"
    if is_lattice and (image.is_positioned or mask.is_positioned):
        return "cropped"
    if not (image.is_positioned and mask.is_positioned):
        return None  # The sizes differ, which is an error elsewhere.
    if is_same_shape and _drift(step, identity, image) < 0.5:
        return "shifted"
    return "resampled"


def _drift(step: np.ndarray, other: np.ndarray, image: Grid) -> float:
    """Return the largest distance along an axis between two maps of the image's corners."""
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in image.shape])).reshape(
        len(image.shape), -1
    )
    ends = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.abs((step - other) @ ends).max())


def _covers(step: np.ndarray, image: Grid, mask: Grid) -> bool:
    """Whether the first and the last pixel of the image are corners of the mask."""
    first, last = step[:, -1], step @ [*(length - 1 for length in image.shape), 1]
    low, high = np.minimum(first, last), np.maximum(first, last)
    return bool((low == 0).all() and (high == np.subtract(mask.shape, 1)).all())


def _refuse_lost(
    before: np.ndarray, after: np.ndarray, mask: Grid, image: Grid, path: Path
) -> None:
    """Check that most of the annotated volume lies inside the image."""
    volume = np.count_nonzero(before) * float(np.prod(mask.spacing_mm))
    kept = np.count_nonzero(after) * float(np.prod(image.spacing_mm))
    if volume > 0 and kept < (1 - MAX_LOST) * volume:
        raise DataError(
            f"{path}: {1 - kept / volume:.0%} of the annotated volume lies outside the "
            f"image, according to the positions in the two files (mask {_describe(mask)}; image "
            f"{_describe(image)}).",
            code="mask_outside_image",
            hint="If the pixels of both files correspond by their index, copy the header of the "
            "image, for example with mask.CopyInformation(image) in SimpleITK. Otherwise, "
            "this is the mask of another image.",
        )


def _describe(grid: Grid) -> str:
    spacing = " × ".join(f"{step:g}" for step in grid.spacing_mm)
    origin = ", ".join(f"{place:g}" for place in grid.origin_mm)
    return f"{size_text(grid.shape)} pixels, spacing {spacing} mm, origin {origin} mm"
