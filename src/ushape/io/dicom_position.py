"""Positions of DICOM slices and frames in the patient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ushape.types import Grid

MAX_UNEVEN = 0.1
"""Largest deviation of a gap in a series, as a share of the slice distance, before a slice counts
as missing."""

MAX_TILT = 1e-3
"""Largest difference of direction cosines within one series."""


def functional_group(data: Any, frame: int, name: str) -> Any:
    """Return a functional group of an enhanced file: that of a frame, or that of all frames."""
    own = data.get("PerFrameFunctionalGroupsSequence") or []
    for item in [*own[frame : frame + 1], *(data.get("SharedFunctionalGroupsSequence") or [])]:
        if item.get(name):
            return item.get(name)[0]
    return None


def grid_of(data: Any, frames: int) -> Grid | None:
    """Return the position of a file, its frames in the order of `frame_order`.

    Returns:
        None if the file does not state all of it.
    """
    spacing = spacing_of(data, frames)
    order = frame_order(data, frames)
    plane = functional_group(data, 0, "PlaneOrientationSequence") or data
    place = functional_group(data, order[0], "PlanePositionSequence") or data
    cosines = numbers(plane.get("ImageOrientationPatient") or [])
    origin = numbers(place.get("ImagePositionPatient") or [])
    if spacing is None or len(cosines) != 6 or len(origin) != 3:
        return None
    axes = axes_of(cosines)
    last = functional_group(data, order[-1], "PlanePositionSequence")
    if frames > 1 and last is not None:
        step = np.dot(axes[2], np.subtract(numbers(last.ImagePositionPatient), origin))
        if step != 0:
            spacing = (abs(float(step)) / (frames - 1), *spacing[1:])
            axes[2] *= np.sign(step)
    return Grid(
        shape=(frames, int(data.Rows), int(data.Columns)),
        spacing_mm=spacing,
        origin_mm=tuple(origin),
        direction=tuple(float(cosine) for cosine in axes.T.ravel()),
    )


def frame_order(data: Any, frames: int) -> list[int]:
    """Return the numbers of the frames in the order of their positions along the normal.

    The stored order is kept if it rises or falls, if frames share a position (time points), or if
    positions are not stated.
    """
    stored = list(range(frames))
    places = frame_places(data, frames)
    if places is None or len(set(places)) < frames:
        return stored
    steps = np.sign(np.diff(places))
    return stored if abs(steps.sum()) == frames - 1 else [int(n) for n in np.argsort(places)]


def frame_places(data: Any, frames: int) -> list[float] | None:
    """Return the position of each frame along the normal in mm; None if one is not stated."""
    if frames == 1 or not data.get("PerFrameFunctionalGroupsSequence"):
        return None
    plane = functional_group(data, 0, "PlaneOrientationSequence")
    cosines = numbers(plane.get("ImageOrientationPatient") or []) if plane else []
    found = []
    for frame in range(frames):
        place = functional_group(data, frame, "PlanePositionSequence")
        position = numbers(place.get("ImagePositionPatient") or []) if place else []
        if len(cosines) != 6 or len(position) != 3:
            return None
        found.append(round(float(np.dot(axes_of(cosines)[2], position)), 4))
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
        ValueError: if the two stated directions are not perpendicular.
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
