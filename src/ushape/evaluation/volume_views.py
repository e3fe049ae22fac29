"""Views of a volume for the report: slices to scroll through, planes across, a projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from ushape.evaluation.picture_files import check_webp, encode_webp
from ushape.labels import IGNORE
from ushape.transforms.overlay import outline

MAX_SLICES = 32
"""Largest number of slices of a volume; of more, evenly spaced ones are kept."""

SIDE_PX = 256
"""Longest side of a view in pixels."""

QUALITY = 60
"""WebP quality of a view."""

MIN_STRIP = 0.25
"""Smallest height of a plane across the slices, relative to its width; a flatter one is
stretched."""

WINDOW = (0.5, 99.5)
"""Percentiles of the volume that are drawn black and white."""

MEASURED_PX = 1 << 20
"""Approximate number of voxels that are used to measure these percentiles."""


@dataclass(frozen=True, kw_only=True)
class VolumeViews:
    """Views of a volume, in which annotation and prediction are outlined."""

    slices: tuple[str, ...]
    """Data URI of each slice that is kept."""

    numbers: tuple[int, ...]
    """Number of each of these slices in the volume, from 1."""

    total: int
    """Number of slices of the volume."""

    start: int
    """Index of the slice that is shown first: that with the most foreground."""

    planes: tuple[tuple[str, str], ...]
    """Title and data URI of the projection and of the two planes across the slices."""

    note: str
    """How the planes across the slices are drawn."""

    def as_json(self) -> dict[str, Any]:
        """Return the views as a JSON object."""
        return {
            "slices": list(self.slices),
            "numbers": list(self.numbers),
            "total": self.total,
            "start": self.start,
            "planes": [list(plane) for plane in self.planes],
            "note": self.note,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> VolumeViews:
        """Return the views of `as_json`.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: if the content is invalid.
        """
        slices, start = tuple(map(check_webp, stored["slices"])), int(stored["start"])
        numbers = tuple(map(int, stored["numbers"]))
        if len(numbers) != len(slices) or not 0 <= start < len(slices):
            raise ValueError("its slices are not numbered")
        return cls(
            slices=slices,
            numbers=numbers,
            total=int(stored["total"]),
            start=start,
            planes=tuple((str(title), check_webp(uri)) for title, uri in stored["planes"]),
            note=str(stored["note"]),
        )


def make_views(
    image: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    spacing: Sequence[float] | None,
) -> VolumeViews:
    """Make the views of a volume, all with the same range of intensities.

    The planes, and the slice that is shown first, lie where the annotation, or else the prediction,
    has the most voxels.

    Args:
        spacing: Distance of the voxels along z, y and x; None: they are drawn as cubes.

    Shapes:
        image: (C, z, y, x), any dtype, of which the first three channels are drawn in color, or
            the first one in gray if there are fewer; truth, predicted: (z, y, x) class indices.
    """
    image = image[:3] if len(image) >= 3 else image[:1]
    foreground = (truth > 0) & (truth != IGNORE)
    found = foreground if foreground.any() else predicted > 0
    place = [int(found.sum(axis=others).argmax()) for others in ((1, 2), (0, 2), (0, 1))]
    steps = np.array(spacing if spacing is not None else (1.0, 1.0, 1.0), dtype=float)
    low, high = _window(image)
    kept = _kept_slices(len(truth), place[0])

    def view(plane: np.ndarray, masks: Sequence[np.ndarray], height: float, width: float) -> str:
        return _draw((plane - low) / (high - low), masks, height, width)

    def cut(axis: int, number: int) -> str:
        """Draw one plane; those across the slices are stretched if they are very flat."""
        rows, columns = (other for other in range(3) if other != axis)
        height, width = truth.shape[rows] * steps[rows], truth.shape[columns] * steps[columns]
        height = max(height, MIN_STRIP * width) if axis else height
        plane = image.take(number, axis=axis + 1)
        return view(
            plane, [mask.take(number, axis=axis) for mask in (truth, predicted)], height, width
        )

    flat = [np.where(mask == IGNORE, 0, mask).max(axis=0) for mask in (truth, predicted)]
    size = (truth.shape[1] * steps[1], truth.shape[2] * steps[2])
    return VolumeViews(
        slices=tuple(cut(0, number) for number in kept),
        numbers=tuple(number + 1 for number in kept),
        total=len(truth),
        start=kept.index(place[0]),
        planes=(
            ("Maximum projection along z", view(np.fmax.reduce(image, axis=1), flat, *size)),
            (f"Row {place[1] + 1} of {truth.shape[1]}", cut(1, place[1])),
            (f"Column {place[2] + 1} of {truth.shape[2]}", cut(2, place[2])),
        ),
        note=_describe_planes(truth.shape, steps, spacing is not None),
    )


def _window(image: np.ndarray) -> tuple[float, float]:
    """Return the intensities that are drawn black and white."""
    step = max(1, image[0].size // MEASURED_PX)
    values = image.reshape(len(image), -1)[:, ::step].astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, WINDOW) if values.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-9 * max(1.0, abs(low))))


def _kept_slices(count: int, fullest: int) -> list[int]:
    """Return evenly spaced slices from the first to the last, with the fullest one."""
    evenly = np.linspace(0, count - 1, min(count, MAX_SLICES)).round().astype(int).tolist()
    nearest = min(evenly, key=lambda number: abs(number - fullest))
    return sorted({*evenly, fullest} - ({nearest} - {fullest, 0, count - 1}))


def _draw(plane: np.ndarray, masks: Sequence[np.ndarray], height: float, width: float) -> str:
    """Draw the outlines of annotation and prediction on a plane, and return it as a data URI.

    Args:
        height, width: Size in any unit, of which the ratio is kept.

    Shapes:
        plane: (1 or 3, h, w), 0 to 1; masks: (h, w) class indices.
    """
    scale = SIDE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    channels = plane if len(plane) == 3 else plane.repeat(3, axis=0)
    levels = (255 * np.nan_to_num(channels).clip(0, 1)).astype(np.uint8)
    drawn = Image.fromarray(np.ascontiguousarray(np.moveaxis(levels, 0, -1)))
    shown = np.moveaxis(np.asarray(drawn.resize(size, Resampling.BILINEAR)), -1, 0)
    wanted, found = (
        np.asarray(
            Image.fromarray(np.ascontiguousarray(mask, np.uint8)).resize(size, Resampling.NEAREST)
        )
        for mask in masks
    )
    return encode_webp(outline(shown, wanted, found), quality=QUALITY)


def _describe_planes(shape: tuple[int, ...], steps: np.ndarray, is_known: bool) -> str:
    """Return a sentence about the proportions of the planes across the slices."""
    depth, widths = shape[0] * steps[0], np.multiply(shape[1:], steps[1:])
    known = (
        "to scale, with the voxel spacing of the file"
        if is_known
        else "with cubic voxels, because the file does not specify a spacing"
    )
    if depth < MIN_STRIP * widths.max():
        return f"Rows and columns are drawn {known}, but stretched along z."
    return f"Rows and columns are drawn {known}."
