"""DICOM structure sets (RTSTRUCT): contours in the patient, drawn on the slices of their series."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.io import dicom, files
from ushape.io.annotations.shapes import Outline, Patch, Rings
from ushape.io.caching import keep_latest
from ushape.io.itk import axes_kept
from ushape.io.placement import MAX_LOST
from ushape.types import Grid, MaskEncoding, MaskPixels, ShapesMask

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Geometric types of contours that enclose an area."""

SAME_PLANE = 0.1
"""Largest distance of two contours of one plane, in slice distances."""

MAX_TILT = 0.5
"""Largest distance of the points of a contour along the normal of the slices, in slice
distances."""

MAX_PX = 1e6
"""Largest coordinate of a contour in pixels."""


@dataclass(frozen=True, kw_only=True)
class Roi:
    """A region of interest."""

    name: str
    contours: tuple[np.ndarray, ...]
    """Closed contours, each (n, 3) float64: x, y and z of its points in mm."""

    without_area: int = 0
    """Number of contours that enclose no area: points and open lines."""


@dataclass(frozen=True, kw_only=True)
class StructureSet:
    """Content of an RTSTRUCT file."""

    series: frozenset[str]
    """SeriesInstanceUID of each series that the file refers to."""

    frames: frozenset[str]
    """FrameOfReferenceUID of its coordinates."""

    rois: tuple[Roi, ...]


@keep_latest(files=2)
def read_structures(path: Path) -> StructureSet:
    """Read the contours of an RTSTRUCT file.

    Raises:
        DataError: if the file cannot be read, or the coordinates of a contour are not finite
            numbers in threes.
        MissingPackageError: if pydicom is not installed.
    """
    data = dicom.read_headers(path)[0]
    with files.reading(path):
        frames = {
            str(item.get("FrameOfReferenceUID") or "")
            for item in data.get("ReferencedFrameOfReferenceSequence") or []
        }
        drawn = {
            int(item.ReferencedROINumber): item.get("ContourSequence") or []
            for item in data.get("ROIContourSequence") or []
        }
        rois = []
        for item in data.get("StructureSetROISequence") or []:
            number = int(item.ROINumber)
            frames.add(str(item.get("ReferencedFrameOfReferenceUID") or ""))
            name = " ".join(str(item.get("ROIName") or "").split()) or f"ROI {number}"
            rois.append(_roi_of(name, drawn.get(number, [])))
        series = dicom.contoured_series(data)
    return StructureSet(series=frozenset(series), frames=frozenset(frames - {""}), rois=tuple(rois))


def _roi_of(name: str, contours: Iterable[Any]) -> Roi:
    """Return the closed contours of a region.

    Raises:
        ValueError: if a contour is damaged.
    """
    closed, others = [], 0
    for number, item in enumerate(contours, start=1):
        points = _points_of(item, f"contour {number} of {name}")
        if str(item.get("ContourGeometricType")).strip() in CLOSED and len(points) > 2:
            closed.append(points)
        else:
            others += 1
    return Roi(name=name, contours=tuple(closed), without_area=others)


def _points_of(item: Any, place: str) -> np.ndarray:
    """Return (n, 3) from the text of the element, since pydicom converts each number slowly."""
    element = item.get_item("ContourData")
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.decode("ascii").strip("\0 ").split("\\")
    numbers = np.array([float(one) for one in value or [] if one != ""], dtype=np.float64)
    stated = item.get("NumberOfContourPoints")
    if len(numbers) != 3 * int(len(numbers) / 3 if stated is None else stated):
        raise ValueError(f"{place} has {len(numbers)} coordinates for {stated} points")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{place} has a coordinate that is not a finite number")
    return numbers.reshape(-1, 3)


def roi_key(name: str) -> str:
    """Return a name without regard to upper case and spaces, which differ between patients."""
    return " ".join(name.split()).casefold()


def draw_structures(mask: ShapesMask) -> MaskPixels:
    """Draw the regions that `mask.classes` names on the grid of the image.

    Each contour belongs to the nearest slice, and a pixel to a region if its center is within an
    odd number of the contours on its slice, so that contours within others are holes. Where regions
    overlap, the smaller one covers the larger one.

    Shapes:
        returns: codes (*S): 0, or the position of the region in `classes`, counted from 1.

    Raises:
        DataError: if the image has no position, if a contour is not parallel to its slices, or if
            most contours lie outside the image.
    """
    structures = read_structures(mask.path)
    grid = io.read_grid(mask.image)
    if grid is None or len(grid.shape) != 3:
        raise DataError(
            f"{mask.image}: the image does not contain its position in the patient, so the "
            f"contours in {mask.path} cannot be drawn on it.",
            code="contours_unplaced",
            hint="Use the DICOM series that the contours were drawn on.",
        )
    code_of = {roi_key(name): code for code, name in enumerate(mask.classes, start=1)}
    files.check_claim(mask.image, grid.shape, 2, math.prod(grid.shape))
    drawn: list[tuple[int, int, list[tuple[int, Patch]]]] = []
    remarks: list[str] = []
    lost, total = 0, 0
    for roi in structures.rois:
        if roi_key(roi.name) not in code_of:
            continue
        slices, outside = _slices_of(mask, roi, grid)
        patches = [(place, _fill(mask, roi, own, grid.shape[1:])) for place, own in slices.items()]
        lost, total = lost + outside, total + len(roi.contours)
        remarks += _remarks_on(roi, slices, outside)
        size = sum(int(inside.sum()) for _, (_, _, inside) in patches)
        drawn.append((size, code_of[roi_key(roi.name)], patches))
    if lost > MAX_LOST * total:
        raise DataError(
            f"{mask.path}: {lost} of {pluralize(total, 'contour')} lie outside {mask.image}, "
            "according to the positions in the files.",
            code="mask_outside_image",
            hint="These are the contours of another series. Keep them next to the series that "
            "they were drawn on.",
        )
    codes = np.zeros(grid.shape, np.min_scalar_type(max(code_of.values(), default=0)))
    for _, code, patches in sorted(drawn, key=lambda one: -one[0]):
        for place, (top, left, inside) in patches:
            rows, columns = inside.shape
            codes[place, top : top + rows, left : left + columns][inside] = code
    return MaskPixels(
        codes=codes.reshape([grid.shape[axis] for axis in axes_kept(grid)]),
        encoding=MaskEncoding(
            dtype=str(codes.dtype), suffix=".nii.gz" if grid.shape[0] > 1 else ".png"
        ),
        grid=grid,
        remarks=frozenset(grid.remarks),
        shape_remarks=tuple(remarks),
    )


def _slices_of(
    mask: ShapesMask, roi: Roi, grid: Grid
) -> tuple[dict[int, list[tuple[float, np.ndarray]]], int]:
    """Return the contours of each slice, and the number of those outside of the image.

    Returns:
        By the number of the slice: the distance from it in slice distances, and (n, 2) x and y in
        pixels of each contour.
    """
    to_index = np.linalg.inv(grid.matrix[:, :3])
    found: dict[int, list[tuple[float, np.ndarray]]] = {}
    outside = 0
    for contour in roi.contours:
        along = (contour - grid.origin_mm) @ to_index.T  # z, y, x
        if np.abs(along).max() > MAX_PX:
            outside += 1
            continue
        if np.ptp(along[:, 0]) > MAX_TILT:
            raise DataError(
                f"{mask.path}: a contour of {roi.name} is not parallel to the slices of "
                f"{mask.image}.",
                code="contours_not_on_slices",
                hint="Keep the contours next to the series that they were drawn on, or save them "
                "as a label map (NIfTI or NRRD), for example with 3D Slicer.",
            )
        middle = float(along[:, 0].mean())
        place = int(np.floor(middle + 0.5))
        points = along[:, :0:-1] + 0.5  # The center of the first pixel is at (0.5, 0.5).
        is_beside = (points.max(axis=0) < 0) | (points.min(axis=0) > grid.shape[:0:-1])
        if not 0 <= place < grid.shape[0] or is_beside.any():
            outside += 1
            continue
        found.setdefault(place, []).append((middle - place, points))
    return found, outside


def _fill(
    mask: ShapesMask,
    roi: Roi,
    contours: Sequence[tuple[float, np.ndarray]],
    size: tuple[int, ...],
) -> Patch:
    """Return the pixels within an odd number of the contours that are nearest to a slice."""
    outlines: list[np.ndarray] = []
    for points in _nearest(contours):
        if not any(np.array_equal(points, other) for other in outlines):  # Listed twice.
            outlines.append(points)
    rings = Rings(outlines=tuple(Outline(points=one, may_leave=True) for one in outlines))
    return rings.fill((size[0], size[1]))[0]


def _nearest(contours: Sequence[tuple[float, np.ndarray]]) -> list[np.ndarray]:
    """Return the contours of the plane nearest to the slice, where several planes share it."""
    best = min((offset for offset, _ in contours), key=abs)
    return [points for offset, points in contours if abs(offset - best) <= SAME_PLANE]


def _remarks_on(
    roi: Roi, slices: dict[int, list[tuple[float, np.ndarray]]], outside: int
) -> list[str]:
    """Return clauses about contours that were not drawn, or not exactly at their place."""
    offsets = [offset for own in slices.values() for offset, _ in own]
    between = sum(abs(offset) > SAME_PLANE for offset in offsets)
    unused = len(offsets) - sum(len(_nearest(own)) for own in slices.values())
    step = np.median(np.diff(sorted(slices))) if len(slices) > 2 else 1
    count = pluralize(len(roi.contours), "contour")
    found = []
    if outside:
        found.append(f"{outside} of {count} of {roi.name} lie outside the image")
    if between:
        found.append(
            f"{between} of {count} of {roi.name} lie between slices and belong to the nearest one"
            + (f"; {unused} of them are not used, since others are nearer" if unused else "")
        )
    if step > 1:
        found.append(
            f"{roi.name} has contours on about one of {step:g} slices only; the slices between "
            "them have no pixels of it"
        )
    return found
