"""Prediction of volumes slice by slice, with a network in 2D."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.config import resolved
from ushape.data.preprocessing import Preprocessing
from ushape.data.slices import stack_slices
from ushape.inference.network import Network
from ushape.inference.sliding_window import (
    BATCH_PX,
    ArrayRows,
    Rows,
    TileSettings,
    sliding_bands,
    sliding_window_batch,
    touched_box,
)
from ushape.types import Box

READ_PX = 1 << 26
"""Number of pixels of several slices that are read together."""


def predict_preprocessed(
    network: Network,
    images: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    settings: TileSettings,
) -> list[np.ndarray]:
    """Return the class probabilities of normalized images of one size, or volumes by slice.

    Shapes:
        images: (C, *S) float32 each, on the grid of the network.
        returns: (K, *S) float32 each.
    """
    if not preprocessing.by_slice:
        return sliding_window_batch(network, images, preprocessing.space, settings)
    return [
        np.concatenate(list(_slice_bands(network, ArrayRows(image), preprocessing, settings)), 1)
        for image in images
    ]


def predict_bands(
    network: Network,
    rows: Rows,
    preprocessing: Preprocessing,
    settings: TileSettings,
    box: Box | None = None,
) -> Iterator[np.ndarray]:
    """Yield the class probabilities of an image, or of a part of it, as `sliding_bands` does.

    Args:
        box: Part of S to predict; None: all of it.

    Shapes:
        yields: (K, n, *S[1:]), or (K, n, *box[1:]), float32, n >= 1 rows or slices that follow the
            previous ones.
    """
    if not preprocessing.by_slice:
        return sliding_bands(network, rows, preprocessing.space, settings, box)
    if box is None:
        return _slice_bands(network, rows, preprocessing, settings)
    return _slice_bands_in(network, rows, preprocessing, settings, box)


def _slice_bands(
    network: Network, rows: Rows, preprocessing: Preprocessing, settings: TileSettings
) -> Iterator[np.ndarray]:
    """Yield the probabilities (K, n, y, x) of the slices of a volume; small ones share a batch."""
    slices = resolved(preprocessing.config.slices)
    assert slices is not None, "a network in 3D has no slices"
    depth, reach = rows.shape[1], slices // 2
    together = max(1, BATCH_PX // math.prod(rows.shape[2:]))
    for first in range(0, depth, together):
        last = min(depth, first + together)
        start = max(0, first - reach)
        inside = ((0, size) for size in rows.shape[2:])
        part = rows.scale(rows.read_box(((start, min(depth, last + reach)), *inside)))
        images = [stack_slices(part, index - start, slices) for index in range(first, last)]
        yield np.stack(sliding_window_batch(network, images, preprocessing.space, settings), axis=1)


@dataclass(frozen=True)
class _PartOfSlice:
    """A part of a slice, with its neighbors as channels."""

    image: np.ndarray
    """(C N, *part) normalized float32."""

    shape: tuple[int, ...]
    """(C N, y, x) of the whole slice."""

    origin: tuple[int, ...]
    """First pixel of the part."""

    def read_box(self, box: Box) -> np.ndarray:
        places = zip(box, self.origin, strict=True)
        return self.image[(slice(None), *(slice(a - o, b - o) for (a, b), o in places))]

    def scale(self, part: np.ndarray) -> np.ndarray:
        return part


def _slice_bands_in(
    network: Network,
    rows: Rows,
    preprocessing: Preprocessing,
    settings: TileSettings,
    box: Box,
) -> Iterator[np.ndarray]:
    """Yield the probabilities (K, 1, *box[1:]) of a part of each slice of a part of a volume."""
    slices, space = resolved(preprocessing.config.slices), preprocessing.space
    assert slices is not None, "a network in 3D has no slices"
    (top, bottom), *others = box
    _, depth, *size = rows.shape
    inside = tuple(others)
    read = touched_box(network, size, space, settings, inside)
    together = max(1, READ_PX // math.prod(last - first for first, last in read))
    for first in range(top, bottom, together):
        last = min(bottom, first + together)
        start = max(0, first - slices // 2)
        part = rows.read_box(((start, min(depth, last + slices // 2)), *read))
        for index in range(first - start, last - start):
            above = max(0, index - slices // 2)
            near = rows.scale(part[:, above : index + slices // 2 + 1])
            image = stack_slices(near, index - above, slices)
            own = _PartOfSlice(image, (len(image), *size), tuple(edge[0] for edge in read))
            found = list(sliding_bands(network, own, space, settings, inside))
            yield np.concatenate(found, axis=1)[:, None]
