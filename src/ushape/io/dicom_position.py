"""Positions of DICOM slices and frames in the patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.types import Grid

MAX_UNEVEN = 0.1
"""Largest deviation of a gap in a series, as a share of the slice distance, before a slice counts
as missing; and largest distance of slices along their rows and columns, as a share of a pixel."""

PLACES = 4
"""Number of decimals of positions in mm that distinguish slices."""

MAX_TILT = 1e-3
"""Largest difference of direction cosines within one series, and largest error of rounded ones."""


def functional_group(data: Any, frame: int, name: str) -> Any:
    """Return a functional group of an enhanced file: that of a frame, or that of all frames."""
    own = data.get("PerFrameFunctionalGroupsSequence") or []
    for item in [*own[frame : frame + 1], *(data.get("SharedFunctionalGroupsSequence") or [])]:
        if item.get(name):
            return item.get(name)[0]
    return None


def grid_of(path: Path, data: Any, frames: int) -> Grid | None:
    """Return the position of a file, its frames in the order of `frame_order`.

    Returns:
        None if the file does not contain all of it.

    Raises:
        DataError: if frames differ in direction or in the spacing of their pixels, share a
            position, or are no slices of a volume; see `slice_distance`.
    """
    spacing = spacing_of(data, frames)
    positions = frame_positions(data, frames)
    if positions is not None:
        _check_frames(path, data, positions)
    order = frame_order(data, frames)
    plane = functional_group(data, 0, "PlaneOrientationSequence") or data
    place = functional_group(data, order[0], "PlanePositionSequence") or data
    cosines = numbers(plane.get("ImageOrientationPatient") or [])
    origin = numbers(place.get("ImagePositionPatient") or [])
    if spacing is None or len(cosines) != 6 or len(origin) != 3:
        return None
    axes = axes_of(cosines)
    positions = positions or _dose_positions(data, frames, axes[2])
    if positions is not None:
        places = np.array(positions)[order]
        axes[2] *= np.sign(axes[2] @ (places[-1] - places[0])) or 1
        names = [f"{path}: frame {number + 1}" for number in order]
        spacing = (slice_distance(names, places, axes, spacing[1:]), *spacing[1:])
    return Grid(
        shape=(frames, int(data.Rows), int(data.Columns)),
        spacing_mm=spacing,
        origin_mm=tuple(origin),
        direction=tuple(float(cosine) for cosine in axes.T.ravel()),
    )


def slice_distance(
    names: Sequence[str], positions: np.ndarray, axes: np.ndarray, pixel_mm: Sequence[float]
) -> float:
    """Return the mean distance in mm of ordered slices of a volume.

    Args:
        names: File, and which slice of it, for errors.
        positions: (N, 3), of the first pixel of each slice, with rising positions along the normal.
        axes: (3, 3), from `axes_of`.
        pixel_mm: Spacing of pixels, (y, x).

    Raises:
        DataError: if the slices are not evenly spaced, or do not lie behind each other.
    """
    along = positions @ axes.T  # x, y, z
    gaps = np.diff(along[:, 2])
    usual = float(np.median(gaps))
    for gap, name in zip(gaps, names[1:], strict=True):
        if not abs(gap - usual) <= MAX_UNEVEN * usual or usual <= 0:
            raise DataError(
                f"{name} is {gap:g} mm from the previous one; the usual distance is {usual:g} mm.",
                code="dicom_series_uneven",
                hint="A slice is missing, or there are two copies of one.",
            )
    height = along[:, 2:] - along[0, 2]
    tilt = (along[-1, :2] - along[0, :2]) / height[-1] if len(along) > 1 else np.zeros(2)
    # Rounded direction cosines look like a small tilt, which adds up over many slices.
    straight = along[:, :2] - height * np.where(np.abs(tilt) <= MAX_TILT, tilt, 0)
    aside = np.ptp(straight, axis=0)
    if (aside > MAX_UNEVEN * np.array(pixel_mm)[::-1]).any():
        raise DataError(
            f"{names[-1]} is not aligned with the first one: the slices are shifted by up to "
            f"{aside.max():.3g} mm along their rows or columns, as by a tilted gantry, so the "
            "pixels do not lie on a grid with right angles.",
            code="sheared_grid",
            hint="Resample image and mask to a grid with right angles, for example with dcm2niix, "
            "which corrects the tilt of a gantry, or with 3D Slicer.",
        )
    return float(np.mean(gaps))


def _check_frames(path: Path, data: Any, positions: Sequence[Sequence[float]]) -> None:
    """Check that all frames are parallel, have pixels of one size, and are at different places."""
    for name, element in (
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        groups = [functional_group(data, frame, name) for frame in range(len(positions))]
        stated = [numbers(group.get(element) or []) for group in groups if group is not None]
        if any(not _are_equal(one, stated[0]) for one in stated):
            raise DataError(
                f"{path}: the frames differ in {element}.",
                code="dicom_series_uneven",
                hint="Save the frames of each direction and resolution as a separate file.",
            )
    count = len({tuple(np.round(position, PLACES)) for position in positions})
    if count < len(positions):
        raise DataError(
            f"{path}: the {len(positions)} frames have only {pluralize(count, 'position')}.",
            code="several_time_points",
            hint="Save each time point, or each kind of image, as a separate file.",
        )


def _are_equal(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=0, atol=MAX_TILT)


def _dose_positions(data: Any, frames: int, normal: np.ndarray) -> list[list[float]] | None:
    """Return the position of each frame of a dose, (x, y, z) in mm; None for other files.

    Source:
        DICOM PS3.3, C.8.8.3.2: the offsets begin with 0, or they are positions along z.
    """
    offsets = numbers(data.get("GridFrameOffsetVector") or [])
    if frames == 1 or len(offsets) != frames:
        return None
    origin = np.array(numbers(data.ImagePositionPatient))
    if offsets[0] != 0 and math.isclose(offsets[0], origin[2], abs_tol=1e-3):
        return [[*origin[:2].tolist(), z] for z in offsets]
    return [(origin + (offset - offsets[0]) * normal).tolist() for offset in offsets]


def frame_order(data: Any, frames: int) -> list[int]:
    """Return the numbers of the frames in the order of their positions along the normal.

    The stored order is kept if positions are missing, or if they increase or decrease in this
    order.
    """
    stored = list(range(frames))
    positions = frame_positions(data, frames)
    plane = functional_group(data, 0, "PlaneOrientationSequence")
    if positions is None or plane is None:
        return stored
    normal = axes_of(numbers(plane.ImageOrientationPatient))[2]
    places = np.round(np.array(positions) @ normal, PLACES)
    steps = np.sign(np.diff(places))
    is_ordered = abs(steps.sum()) == frames - 1
    return stored if is_ordered else [int(n) for n in np.argsort(places, kind="stable")]


def frame_positions(data: Any, frames: int) -> list[list[float]] | None:
    """Return the position (x, y, z) in mm of each frame; None if one is missing."""
    if frames == 1 or not data.get("PerFrameFunctionalGroupsSequence"):
        return None
    found = []
    for frame in range(frames):
        place = functional_group(data, frame, "PlanePositionSequence")
        position = numbers(place.get("ImagePositionPatient") or []) if place else []
        if len(position) != 3:
            return None
        found.append(position)
    return found


def spacing_of(data: Any, frames: int) -> tuple[float, ...] | None:
    """Return the spacing in mm along z, y and x.

    For a single slice, z is its thickness, or 1 if unknown.
    """
    measures = functional_group(data, 0, "PixelMeasuresSequence") or data
    spacing = numbers(measures.get("PixelSpacing") or [])
    offsets = numbers(data.get("GridFrameOffsetVector") or [])  # Dose grids have these.
    between = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0)
    between = abs(offsets[1] - offsets[0]) if len(offsets) > 1 else abs(between)
    if frames == 1 and not between > 0:
        between = 1.0
    steps = (between, *spacing)
    return steps if len(steps) == 3 and min(steps) > 0 and max(steps) < math.inf else None


def axes_of(cosines: list[float]) -> np.ndarray:
    """Return unit vectors in rows: along a row (x), along a column (y), across the slice (z).

    Shapes:
        returns: (3, 3) float64.

    Raises:
        ValueError: if the two given directions are not perpendicular.
    """
    along_x, along_y = np.reshape(cosines, (2, 3))
    lengths = np.linalg.norm([along_x, along_y], axis=1)
    if np.abs(lengths - 1).max() > MAX_TILT or abs(along_x @ along_y) > MAX_TILT:
        raise ValueError(f"the directions of rows and columns are not perpendicular: {cosines}")
    along_x = along_x / lengths[0]
    across = np.cross(along_x, along_y)
    across = across / np.linalg.norm(across)
    return np.stack([along_x, np.cross(across, along_x), across])


def numbers(values: Any) -> list[float]:
    """Return the values of an element as numbers.

    Raises:
        ValueError: if one of them is not a finite number.
    """
    found = [float(value) for value in values]
    if not all(map(math.isfinite, found)):
        raise ValueError(f"not all of these are finite numbers: {found}")
    return found
