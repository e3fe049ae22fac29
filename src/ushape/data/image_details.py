"""Fine details of images, by which near duplicates are found."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from ushape.io.float_range import mean_of_channels
from ushape.transforms.resampling import resample_image

COMPARED_PX = 64
"""Side of the reduced images that are compared, in pixels."""

SMOOTHING_PX = 0.5
"""Standard deviation of the Gaussian by which reduced images are smoothed, so that noise and slight
blur have less influence."""

SHADING_PX = 9
"""Width of the square whose mean is subtracted, because shading differs between copies."""

FLAT = 1e-3
"""Details weaker than this share of the image's contrast are treated as noise."""

FRAME_TOLERANCE = 0.03
"""Largest range of the values in a row or column of a border, relative to that of the image."""

DARK = 0.06
"""Largest value outside of a field of view, relative to the range of the image."""


def describe_details(image: np.ndarray) -> np.ndarray:
    """Return the fine details of a reduced image, without its shading, with mean 0 and norm 1.

    What is dark around a round field of view is left out, since it is the same in images of
    different subjects. An image with a plain border is described twice: with it and without it.

    Shapes:
        image: (C, *S); of a volume the middle plane is used.
        returns: (1 or 2, COMPARED_PX ** 2) float32; zeros for an image without details.
    """
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, min(plane.shape[1:]) // (4 * COMPARED_PX))
    gray = mean_of_channels(plane[:, ::step, ::step])
    scale = float(np.abs(gray).max())
    gray = gray / scale if scale > 0 else gray  # Squares of huge values would overflow.
    trimmed = trim_border(gray)
    views = [gray] if trimmed.shape == gray.shape else [gray, trimmed]
    return np.stack([_details_of(view) for view in views])


def trim_border(gray: np.ndarray) -> np.ndarray:
    """Return the image (y, x) without rows and columns of one value along its sides."""
    limit = FRAME_TOLERANCE * float(np.ptp(gray))
    edges = []
    for axis in (1, 0):
        places = np.flatnonzero(_spread(gray, axis) > limit)
        if len(places) < max(1, gray.shape[1 - axis] // 3):  # Nearly all of it is plain.
            return gray
        edges.append(slice(int(places[0]), int(places[-1]) + 1))
    return gray[edges[0], edges[1]]


def _spread(gray: np.ndarray, axis: int) -> np.ndarray:
    """Return the difference of the 98th and the 2nd percentile along an axis.

    It sorts, which is several times as fast as np.percentile for the rows of an image.
    """
    ordered = np.moveaxis(np.sort(gray, axis=axis), axis, 0)
    low, high = (share * (len(ordered) - 1) for share in (0.02, 0.98))
    return _interpolate(ordered, high) - _interpolate(ordered, low)


def _interpolate(ordered: np.ndarray, place: float) -> np.ndarray:
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return np.asarray(below + (place % 1) * (above - below))


def _details_of(gray: np.ndarray) -> np.ndarray:
    side = (COMPARED_PX, COMPARED_PX)
    small = np.asarray(resample_image(gray[None], side)[0], dtype=np.float32)
    inside = find_field_of_view(small)
    smooth = ndimage.gaussian_filter(small, SMOOTHING_PX)
    weight = ndimage.uniform_filter(inside, SHADING_PX)
    shading = ndimage.uniform_filter(smooth * inside, SHADING_PX) / np.maximum(weight, 1e-3)
    fine = (smooth - shading) * inside
    fine -= inside * (fine.sum() / inside.sum())
    norm = float(np.linalg.norm(fine))
    if norm <= FLAT * float(np.abs(small).max()) * COMPARED_PX or norm == 0:
        return np.zeros(COMPARED_PX**2, dtype=np.float32)
    return np.asarray(fine / norm, dtype=np.float32).ravel()


def find_field_of_view(small: np.ndarray) -> np.ndarray:
    """Return 1 inside a round field of view and 0 in the dark area that fills the corners.

    Shapes:
        small: (y, x).
        returns: (y, x) float32; all 1 if at most two corners are dark.
    """
    low, high = float(small.min()), float(small.max())
    parts, _ = ndimage.label(small <= low + DARK * (high - low))
    corners = [int(parts[y, x]) for y in (0, -1) for x in (0, -1)]
    outside = np.isin(parts, [part for part in corners if part])
    if sum(part > 0 for part in corners) < 3 or not 0.02 < outside.mean() < 0.7:
        return np.ones(small.shape, dtype=np.float32)
    # The edge of the field has details of its own, which are not part of the subject.
    return np.asarray(~ndimage.binary_dilation(outside, iterations=2), dtype=np.float32)


def symmetric_views(details: np.ndarray) -> Iterator[np.ndarray]:
    """Yield details as they are, and as they would be if the images were rotated or mirrored.

    Shapes:
        details: (N, COMPARED_PX ** 2).
        yields: the same, eight times.
    """
    squares = details.reshape(-1, COMPARED_PX, COMPARED_PX)
    for mirrored in (squares, squares[:, :, ::-1]):
        for turns in range(4):
            yield np.rot90(mirrored, turns, axes=(1, 2)).reshape(details.shape)
