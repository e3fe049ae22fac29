"""Prediction of volumes slice by slice, with a network in 2D."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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
)


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
    network: Network, rows: Rows, preprocessing: Preprocessing, settings: TileSettings
) -> Iterator[np.ndarray]:
    """Yield the class probabilities of an image in bands, as `sliding_bands` does.

    Shapes:
        yields: (K, n, *S[1:]) float32, n >= 1 rows or slices that follow the previous ones.
    """
    if preprocessing.by_slice:
        return _slice_bands(network, rows, preprocessing, settings)
    return sliding_bands(network, rows, preprocessing.space, settings)


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
        part = rows.scale(rows.read(start, min(depth, last + reach)))
        images = [stack_slices(part, index - start, slices) for index in range(first, last)]
        yield np.stack(sliding_window_batch(network, images, preprocessing.space, settings), axis=1)
