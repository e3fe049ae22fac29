"""Number the objects of images larger than memory, whose label maps lie on the disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from ushape.transforms.morphology import cut_rows, find_parts


def label_stored(classes: np.ndarray, labels: np.ndarray, *, corners_connect: bool) -> None:
    """Write a number for each connected component of each foreground class, in any order.

    Shapes:
        classes: (*S) class indices, a memory map; labels: (*S) int32, a memory map of zeros.
    """
    used = 0
    present = {int(own) for band in cut_rows(classes.shape) for own in np.unique(classes[band])}

    def rows_of(index: int, band: slice) -> np.ndarray:
        return np.asarray(classes[band]) == index

    for index in sorted(present - {0}):
        read = partial(rows_of, index)
        parts = find_parts(read, classes.shape, corners_connect=corners_connect)
        for band, numbers in parts.numbers():
            inside = numbers > 0
            labels[band][inside] = numbers[inside] + used
        used += len(parts.pixels) - 1


def number_stored(
    classes: np.ndarray, labels: np.ndarray, min_size_px: int = 0
) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Number objects by their first pixel in raster order, as `label_prediction` does.

    Objects without a pixel that has a class, which are filled holes only, are dropped.

    Args:
        min_size_px: Size in pixels below which objects are dropped.

    Shapes:
        classes: (*S) class indices, 0 also in filled holes; labels: (*S) int32, 0 outside of
            objects; both memory maps.
        returns: (n, *S[1:]) uint32 bands of rows that follow each other; (N,) uint8 class index of
            object 1, 2, ...
    """
    bands = cut_rows(labels.shape)
    count = max(int(labels[band].max(initial=0)) for band in bands)
    first = np.full(count + 1, labels.size)
    areas = np.zeros(count + 1, dtype=np.int64)
    owners = np.zeros(count + 1, dtype=np.uint8)
    row_px = math.prod(labels.shape[1:])
    for band in bands:
        flat, own = np.ravel(labels[band]), np.ravel(classes[band])
        inside = np.flatnonzero(flat)
        found, place, sizes = np.unique(flat[inside], return_index=True, return_counts=True)
        areas[found] += sizes
        is_new = first[found] == labels.size
        first[found[is_new]] = band.start * row_px + inside[place[is_new]]
        known = inside[own[inside] > 0]
        owners[flat[known]] = own[known]
    kept = np.flatnonzero((areas >= max(1, min_size_px)) & (owners > 0))
    kept = kept[np.argsort(first[kept])]
    numbers = np.zeros(count + 1, dtype=np.uint32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return (numbers[labels[band]] for band in bands), owners[kept]
