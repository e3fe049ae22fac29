"""Measure the shape and the intensities of objects, for the full table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage import measure

from ushape.instances.properties import Cell

FLAT_SHAPES = ("axis_major_length", "axis_minor_length", "eccentricity", "orientation", "solidity")
"""Properties of scikit-image in 2D."""

VOLUME_SHAPES = ("axis_major_length", "axis_minor_length")
"""Properties in volumes, where the others are not defined, or not for flat objects."""

INTENSITIES = ("intensity_mean", "intensity_min", "intensity_max")


def measure_shapes(
    labels: np.ndarray,
    image: np.ndarray,
    *,
    spacing_mm: Sequence[float] | None = None,
) -> dict[str, list[Cell]]:
    """Return further columns of an object table, with a row for each object.

    - axis_major, axis_minor: axes of the ellipse (or ellipsoid) with the same second moments.
    - eccentricity: 0 for a circle, almost 1 for a line; of the same ellipse.
    - orientation_deg: angle of its major axis to the x axis, counterclockwise as displayed, 0 to
      180, as the angle in ImageJ.
    - solidity: area divided by that of the convex hull.
    - mean_intensity, min_intensity, max_intensity: of the pixels of the image file; with several
      channels, of each channel, counted from 1. Empty where a pixel is not finite.

    Eccentricity and orientation take pixels that are not square into account, if the spacing is
    known.

    Args:
        spacing_mm: Spacing along each axis of S; None: nothing in millimeters.

    Shapes:
        labels: (*S) integers, objects numbered from 1, 0 for background; image: (C, *S).

    Source:
        `skimage.measure.regionprops_table`.
    """
    names = FLAT_SHAPES if labels.ndim == 2 else VOLUME_SHAPES
    shapes = measure.regionprops_table(labels, properties=names)
    in_mm = None
    if spacing_mm is not None:
        of_spacing = [name for name in names if name != "solidity"]
        in_mm = measure.regionprops_table(labels, properties=of_spacing, spacing=tuple(spacing_mm))
    count, columns = len(shapes["axis_major_length"]), dict[str, list[Cell]]()
    for axis in ("major", "minor"):
        name = f"axis_{axis}_length"
        columns[f"axis_{axis}_px"] = _cells(shapes[name])
        columns[f"axis_{axis}_mm"] = [None] * count if in_mm is None else _cells(in_mm[name])
    if labels.ndim == 2:
        best = shapes if in_mm is None else in_mm
        columns["eccentricity"] = _cells(best["eccentricity"])
        # scikit-image measures from the y axis.
        columns["orientation_deg"] = _cells((np.degrees(best["orientation"]) + 90) % 180)
        columns["solidity"] = _cells(shapes["solidity"])
    return {**columns, **_measure_intensities(labels, image)}


def _measure_intensities(labels: np.ndarray, image: np.ndarray) -> dict[str, list[Cell]]:
    channels = np.moveaxis(image, 0, -1)
    found = measure.regionprops_table(labels, channels, properties=INTENSITIES)
    columns = {}
    for channel in range(len(image)):
        ending = f"_{channel + 1}" if len(image) > 1 else ""
        for name in INTENSITIES:
            kind = name.removeprefix("intensity_")
            columns[f"{kind}_intensity{ending}"] = _cells(found[f"{name}-{channel}"])
    return columns


def _cells(values: np.ndarray) -> list[Cell]:
    """Return the values, with None for those that are not finite."""
    return [value if np.isfinite(value) else None for value in values.tolist()]
