"""Cutting a mask into the surroundings of the peaks of a relief: a seeded watershed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage, sparse
from skimage import measure, morphology, segmentation


def split_by_peaks(relief: np.ndarray, mask: np.ndarray, rise: float, reach: int) -> np.ndarray:
    """Labels each part of a mask by the peak above it.

    A peak has a label of its own where it rises at least `rise` above the highest pass to a
    higher peak. The highest peak of each connected part always has one, so no part is lost. These
    are the h-maxima of the relief; instead of reconstructing it, which takes several times as long,
    all peaks are flooded and the shallow ones joined to the neighbour across their highest pass.

    Args:
        rise: In the units of the relief, above 0.
        reach: How many axes two neighbours may differ along.

    Shapes:
        relief: (*S); mask: (*S) bool.
        returns: (*S) integers, 0 outside the mask.

    Source:
        Vincent & Soille 1991 (watershed by flooding); Grimaud 1992 (dynamics of a peak).
    """
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int32)
    # A rim of lowest ground, for the image's edge must not hide a peak.
    below_all = float(relief[mask].min()) - 1
    height = np.pad(np.where(mask, relief, below_all), 1, constant_values=below_all)
    structure = ndimage.generate_binary_structure(mask.ndim, reach)
    tops = morphology.local_maxima(height, footprint=structure)
    seeds = measure.label(tops, connectivity=reach)
    basins = segmentation.watershed(-height, seeds, connectivity=structure, mask=np.pad(mask, 1))
    peaks = np.zeros(int(seeds.max()) + 1)
    peaks[seeds[tops]] = height[tops]
    joined = _join_shallow(peaks, _find_passes(basins, height, structure), rise)
    inner = (slice(1, -1),) * mask.ndim
    return np.asarray(joined[basins[inner]])


def _find_passes(
    basins: np.ndarray, height: np.ndarray, structure: np.ndarray
) -> list[tuple[int, int, float]]:
    """Pairs of basins that touch, with the height of the pass between them, highest first."""
    lows, highs, heights = [], [], []
    for here, there in _neighbours(structure):
        one, other = basins[here], basins[there]
        touch = (one != other) & (one > 0) & (other > 0)
        lows.append(np.minimum(one[touch], other[touch]))
        highs.append(np.maximum(one[touch], other[touch]))
        heights.append(np.minimum(height[here][touch], height[there][touch]))
    low, high, top = (np.concatenate(values) for values in (lows, highs, heights))
    order = np.lexsort((high, low, -top))
    pairs = low.astype(np.int64) * (int(basins.max()) + 1) + high
    _, first = np.unique(pairs[order], return_index=True)
    kept = order[np.sort(first)]
    return list(zip(low[kept].tolist(), high[kept].tolist(), top[kept].tolist(), strict=True))


def _neighbours(structure: np.ndarray) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For each direction, once: the pixels that have a neighbour there, and these neighbours."""
    steps = np.argwhere(structure) - 1
    for step in steps[len(steps) // 2 + 1 :].tolist():
        yield (
            tuple(slice(max(0, -one), -one if one > 0 else None) for one in step),
            tuple(slice(max(0, one), one if one < 0 else None) for one in step),
        )


def _join_shallow(
    peaks: np.ndarray, passes: list[tuple[int, int, float]], rise: float
) -> np.ndarray:
    """The label of each basin, once the sea has sunk from the highest pass to the lowest.

    At each pass two islands become one. Where the lower peak rises too little above the pass, the
    basins on both sides are of one object as well.

    Shapes:
        peaks: (basins + 1,) heights -> labels, 0 for the first.
    """
    island = list(range(len(peaks)))
    top = peaks.tolist()

    def island_of(basin: int) -> int:
        while island[basin] != basin:
            island[basin] = island[island[basin]]
            basin = island[basin]
        return basin

    one_object = []
    for first, second, height in passes:
        lower, higher = sorted((island_of(first), island_of(second)), key=lambda one: top[one])
        if lower != higher:
            island[lower] = higher
            if top[lower] - height < rise:
                one_object.append((first, second))
    ends = np.array(one_object, dtype=np.int64).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(len(peaks),) * 2)
    # Basin 0 is the ground outside, touches none, and so has the label 0.
    return np.asarray(sparse.csgraph.connected_components(graph, directed=False)[1])
