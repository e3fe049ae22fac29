"""DICOM segmentations: frames of single segments become a label volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.io.dicom_position import (
    MAX_TILT,
    MAX_UNEVEN,
    axes_of,
    functional_group,
    numbers,
    spacing_of,
)
from ushape.io.files import check_claim
from ushape.io.itk import on_grid
from ushape.types import Grid, Pixels

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP classes of segmentations: a frame for each segment, or frames of segment numbers."""

UNREADABLE = "Save the segmentation as a label map (NIfTI or NRRD), for example with 3D Slicer."


def is_segmentation(data: Any) -> bool:
    """Whether a data set is a segmentation."""
    return str(data.get("SOPClassUID")) in (SEGMENTATION, LABEL_MAP)


def names_of(data: Any) -> dict[int, str]:
    """Return the label of each segment by its number."""
    return {
        int(segment.SegmentNumber): str(segment.get("SegmentLabel") or segment.SegmentNumber)
        for segment in data.get("SegmentSequence") or []
    }


def place_segments(path: Path, data: Any, array: np.ndarray) -> Pixels:
    """Return a label volume (1, z, y, x) of segment numbers, each frame at its position.

    Fractional segments are cut at half of their largest value.

    Args:
        array: (1, frames, y, x), or (1, y, x) for a single frame.

    Raises:
        DataError: if segments overlap, or the frames are not slices of one grid.
    """
    stored = array[0].reshape(-1, *array.shape[-2:])
    grid, places = slices_of(path, data, len(stored))
    is_map = str(data.SOPClassUID) == LABEL_MAP
    half = int(data.get("MaximumFractionalValue") or 1) / 2
    check_claim(path, grid.shape, 2, stored.size)
    labels = np.zeros(grid.shape, np.uint16)
    for frame, place in enumerate(places):
        drawn = stored[frame]
        if not is_map:
            drawn = np.where(drawn >= half, _segment_of(data, frame), 0)
        own = labels[place]
        if ((own != 0) & (drawn != 0) & (own != drawn)).any():
            names = names_of(data)
            raise DataError(
                f"{path}: the {pluralize(len(names), 'segment')} ({', '.join(names.values())}) "
                "overlap, but a mask has one class per pixel.",
                code="overlapping_segments",
                hint=UNREADABLE,
            )
        own[drawn != 0] = drawn[drawn != 0]
    kept = labels.astype(np.uint8) if labels.max() < 256 else labels
    return on_grid(kept[None], grid)


def slices_of(path: Path, data: Any, frames: int) -> tuple[Grid, list[int]]:
    """Return the grid from the first to the last slice, and the slice of each frame.

    Raises:
        DataError: if a frame does not contain its position, or is not parallel to the others.
    """
    cosines, positions = [], []
    for frame in range(frames):
        plane = functional_group(data, frame, "PlaneOrientationSequence")
        place = functional_group(data, frame, "PlanePositionSequence")
        cosines.append(numbers(plane.get("ImageOrientationPatient") or []) if plane else [])
        positions.append(numbers(place.get("ImagePositionPatient") or []) if place else [])
    spacing = spacing_of(data, 1)
    if spacing is None or any(len(c) != 6 for c in cosines) or any(len(p) != 3 for p in positions):
        raise _uneven(path, "a frame of the segmentation does not contain its position")
    if np.abs(np.subtract(cosines, cosines[0])).max() > MAX_TILT:
        raise _uneven(path, "the frames of the segmentation differ in direction")
    axes = axes_of(cosines[0])
    along = np.asarray(positions) @ axes.T
    if np.ptp(along[:, :2], axis=0).max() > MAX_UNEVEN * min(spacing[1:]):
        raise _uneven(path, "the frames of the segmentation are not aligned with each other")
    thickness = _slice_distance(path, along[:, 2], spacing[0])
    first = int(along[:, 2].argmin())
    places = np.rint((along[:, 2] - along[first, 2]) / thickness).astype(int)
    return Grid(
        shape=(int(places.max()) + 1, int(data.Rows), int(data.Columns)),
        spacing_mm=(thickness, *spacing[1:]),
        origin_mm=tuple(positions[first]),
        direction=tuple(float(cosine) for cosine in axes.T.ravel()),
    ), places.tolist()


def _slice_distance(path: Path, along: np.ndarray, stated: float) -> float:
    """Return the distance of which all gaps are multiples: the given one or the smallest gap."""
    gaps = np.diff(np.unique(np.round(along, 3)))
    for distance in (stated, *([float(gaps.min())] if len(gaps) else [])):
        if not len(gaps) or (np.abs(gaps / distance - np.rint(gaps / distance)) < MAX_UNEVEN).all():
            return distance
    raise _uneven(path, "the frames of the segmentation are not evenly spaced")


def _segment_of(data: Any, frame: int) -> int:
    identified = functional_group(data, frame, "SegmentIdentificationSequence")
    return int(identified.ReferencedSegmentNumber)


def _uneven(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}.", code="dicom_series_uneven", hint=UNREADABLE)
