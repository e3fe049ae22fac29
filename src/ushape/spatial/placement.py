"""From a file's grid to the network's, and back: crop, pad, resample."""

from __future__ import annotations

import numpy as np

from ushape.spatial.grid import resample_classes, resample_image, resample_probabilities
from ushape.types import Geometry


def place_image(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(C, *file) -> (C, *working)."""
    part = _pad(image[(slice(None), *_slices(geometry))], geometry)
    return np.ascontiguousarray(resample_image(part, geometry.working_shape))


def place_classes(classes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(*file) -> (*working); the padding is background."""
    part = _pad(classes[_slices(geometry)][None], geometry)[0]
    return np.ascontiguousarray(resample_classes(part, geometry.working_shape))


def restore_probabilities(probabilities: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(K, *working) -> (K, *file); what was cropped away is background.

    Probabilities, not labels: thin structures survive.
    """
    if probabilities.shape[1:] != geometry.padded_shape:
        probabilities = resample_probabilities(probabilities, geometry.padded_shape)
    sizes = [last - first for first, last in geometry.box]
    inner = tuple(
        slice((padded - size) // 2, (padded - size) // 2 + size)
        for padded, size in zip(geometry.padded_shape, sizes, strict=True)
    )
    part = probabilities[(slice(None), *inner)]
    if part.shape[1:] == geometry.file_shape:
        return part
    whole = np.zeros((len(part), *geometry.file_shape), dtype=np.float32)
    if len(whole) > 1:
        whole[0] = 1  # The background's own channel.
    whole[(slice(None), *_slices(geometry))] = part
    return whole


def find_box(image: np.ndarray, share: float = 0.1) -> tuple[tuple[int, int], ...]:
    """The smallest box around all pixels brighter than a share of the brightest.

    Shapes:
        image: (C, *S); any channel counts. A dark image: the whole.
    """
    bright: np.ndarray = np.any(image > share * float(image.max()), axis=0)
    if not bright.any():
        return tuple((0, size) for size in bright.shape)
    box = []
    for axis in range(bright.ndim):
        rows = np.moveaxis(bright, axis, 0).reshape(bright.shape[axis], -1)
        shown = np.flatnonzero(rows.any(axis=1))
        box.append((int(shown[0]), int(shown[-1]) + 1))
    return tuple(box)


def _slices(geometry: Geometry) -> tuple[slice, ...]:
    return tuple(slice(first, last) for first, last in geometry.box)


def _pad(part: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Zeros around (C, *S), as many before as after."""
    widths = [(0, 0)]
    for size, padded in zip(part.shape[1:], geometry.padded_shape, strict=True):
        before = (padded - size) // 2
        widths.append((before, padded - size - before))
    return np.pad(part, widths) if any(map(any, widths)) else part
