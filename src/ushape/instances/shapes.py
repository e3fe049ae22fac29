"""Measure the shape and the intensities of objects, for the full table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ushape.instances.convex import convex_areas
from ushape.instances.properties import Cell


def measure_shapes(
    labels: np.ndarray,
    image: np.ndarray,
    *,
    spacing_mm: Sequence[float] | None = None,
) -> dict[str, list[Cell]]:
    """Return additional columns of an object table, with a row for each object.

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
        As in `skimage.measure.regionprops_table`, which takes objects one by one.
    """
    count = int(labels.max(initial=0))
    inside = np.flatnonzero(labels)
    owner = labels.ravel()[inside] - 1
    size = np.bincount(owner, minlength=count)
    moments = _covariances(labels.shape, inside, owner, size)
    shapes, columns = _ellipses(moments), dict[str, list[Cell]]()
    in_mm = None
    if spacing_mm is not None:
        steps = np.asarray(spacing_mm, dtype=np.float64)
        in_mm = _ellipses(moments * np.outer(steps, steps))
    for axis in ("major", "minor"):
        columns[f"axis_{axis}_px"] = _cells(shapes[axis])
        columns[f"axis_{axis}_mm"] = [None] * count if in_mm is None else _cells(in_mm[axis])
    if labels.ndim == 2:
        best = shapes if in_mm is None else in_mm
        columns["eccentricity"] = _cells(best["eccentricity"])
        columns["orientation_deg"] = _cells(best["orientation_deg"])
        columns["solidity"] = _cells(size / convex_areas(labels, count))
    return {**columns, **_measure_intensities(image, inside, owner, size)}


def _covariances(
    shape: Sequence[int], inside: np.ndarray, owner: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Return the covariance of the coordinates of the pixels of each object.

    Args:
        inside: Flat indices of the labeled pixels.
        owner: Index of the object of each labeled pixel.
        size: (N,) number of pixels of each object.

    Shapes:
        returns: (N, D, D), in pixels.
    """
    count = len(size)
    centered = []
    for place in np.unravel_index(inside, tuple(shape)):
        mean = np.bincount(owner, place, minlength=count) / size
        centered.append(place - mean[owner])
    rows = [
        [np.bincount(owner, one * other, minlength=count) / size for other in centered]
        for one in centered
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _ellipses(covariances: np.ndarray) -> dict[str, np.ndarray]:
    """Return the axes, eccentricity and orientation of ellipses, or the axes of ellipsoids.

    Shapes:
        covariances: (N, D, D) -> (N,) each.

    Source:
        `skimage.measure.regionprops`: axis_major_length, axis_minor_length, eccentricity,
        orientation, of all objects at once.
    """
    spread = np.linalg.eigvalsh(covariances).clip(0)[:, ::-1]
    # The variances of an ellipse are a quarter of its squared half axes, of an ellipsoid a fifth.
    factor = 4 if covariances.shape[-1] == 2 else 2 * math.sqrt(5)
    found = {"major": factor * np.sqrt(spread[:, 0]), "minor": factor * np.sqrt(spread[:, -1])}
    if covariances.shape[-1] == 2:
        share = spread[:, 1] / np.where(spread[:, 0] > 0, spread[:, 0], 1)
        found["eccentricity"] = np.where(spread[:, 0] > 0, np.sqrt(1 - share), 0)
        (yy, xy), (_, xx) = np.moveaxis(covariances, 0, -1)
        # Rows run down, but angles run counterclockwise as displayed.
        angle = np.degrees(np.arctan2(-2 * xy, xx - yy)) / 2 % 180
        found["orientation_deg"] = np.where((xy == 0) & (xx == yy), 45.0, angle)
    return found


def _measure_intensities(
    image: np.ndarray, inside: np.ndarray, owner: np.ndarray, size: np.ndarray
) -> dict[str, list[Cell]]:
    columns = {}
    for number, channel in enumerate(image, start=1):
        ending = f"_{number}" if len(image) > 1 else ""
        values = channel.ravel()[inside].astype(np.float64)
        lowest, highest = np.full(len(size), np.inf), np.full(len(size), -np.inf)
        with np.errstate(invalid="ignore"):  # NaN stays NaN.
            np.minimum.at(lowest, owner, values)
            np.maximum.at(highest, owner, values)
        mean = np.bincount(owner, values, minlength=len(size)) / size
        for kind, found in (("mean", mean), ("min", lowest), ("max", highest)):
            columns[f"{kind}_intensity{ending}"] = _cells(found)
    return columns


def _cells(values: np.ndarray) -> list[Cell]:
    """Return the values, with None for those that are not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
