"""Connected components, cleaning of label maps, and separation of objects, in NumPy."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Cleaning:
    """What happens to the connected components of one class."""

    largest_only: bool
    min_size_px: int
    """Size in pixels below which components are removed."""

    max_hole_size_px: int | Literal["all"]
    """Largest hole that is filled, in pixels; all: holes of any size."""


@dataclass(frozen=True)
class Separation:
    """How objects are separated by the distance to their border that the network predicts."""

    h: float
    """Smallest difference between a peak of the distance and the saddle to a higher peak."""

    corners_connect: bool
    """Whether pixels that touch only at a corner are connected."""

    min_size_px: int
    """Size in pixels below which objects are removed."""

    draws_lines: bool
    """Whether a line of background is drawn between objects of one class that touch."""

    writes_numbers: bool
    """Whether NAME_instances.tif is written, with the number of each object."""


def label_components(
    values: np.ndarray, reach: int = 1, inside: np.ndarray | None = None
) -> np.ndarray:
    """Number the connected components of equal values by their first pixel, from 1.

    Args:
        reach: Number of axes along which two neighbors may differ.
        inside: Pixels that belong to components; None: those that are not 0.

    Shapes:
        values, inside: (*S) -> (*S) integers, 0 outside.
    """
    inside = values != 0 if inside is None else inside
    # Pixels that follow each other along the last axis are joined first, as runs.
    starts = inside.copy()
    starts[..., 1:] &= ~(inside[..., :-1] & (values[..., 1:] == values[..., :-1]))
    runs = np.where(inside, np.cumsum(starts).reshape(values.shape), 0)
    firsts, seconds = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for here, there in neighbor_pairs(values.ndim, reach):
        touch = inside[here] & inside[there] & (values[here] == values[there])
        firsts.append(runs[here][touch])
        seconds.append(runs[there][touch])
    roots = join(int(starts.sum()) + 1, np.concatenate(firsts), np.concatenate(seconds))
    is_root = roots == np.arange(len(roots))
    return np.asarray((np.cumsum(is_root) - 1)[roots][runs])


def join(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the smallest member of the group of each of `count` things, given pairs of things."""
    group = np.arange(count)
    while True:
        one, other = group[first], group[second]
        is_apart = one != other
        if not is_apart.any():
            return group
        first, second, one, other = (each[is_apart] for each in (first, second, one, other))
        np.minimum.at(group, np.maximum(one, other), np.minimum(one, other))
        while ((further := group[group]) != group).any():
            group = further


def neighbor_pairs(dims: int, reach: int) -> Iterator[tuple[Slices, Slices]]:
    """Yield for each direction once the pixels that have a neighbor there, and the neighbors."""
    for step in itertools.product((-1, 0, 1), repeat=dims):
        if 0 < sum(map(abs, step)) <= reach and step > (0,) * dims:
            yield (
                tuple(slice(max(0, -one), -one if one > 0 else None) for one in step),
                tuple(slice(max(0, one), one if one < 0 else None) for one in step),
            )


def clean_classes(
    classes: np.ndarray, regions: Sequence[Sequence[int]], cleanings: Sequence[Cleaning]
) -> np.ndarray:
    """Remove components and fill holes, class by class or region by region.

    Removed pixels get the class beneath. Holes are filled where they contain background or the
    class beneath.

    Args:
        regions: Classes of each region, the largest region first.
        cleanings: One cleaning for each region.

    Shapes:
        classes: (*S) class indices -> the same.
    """
    cleaned = classes.copy()
    beneath = [
        [0, *(other[0] for other in regions[:place] if set(own) < set(other))]
        for place, own in enumerate(regions)
    ]
    for own, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.largest_only or cleaning.min_size_px > 1:
            mask = np.isin(cleaned, own)
            cleaned[mask & ~_kept_components(mask, cleaning)] = under[-1]
    for own, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.max_hole_size_px:
            mask = np.isin(cleaned, own)
            filled = mask | _find_holes(mask, cleaning.max_hole_size_px)
            cleaned[filled & np.isin(cleaned, under)] = own[0]
    return cleaned


def _kept_components(mask: np.ndarray, cleaning: Cleaning) -> np.ndarray:
    parts = label_components(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    is_kept = sizes >= max(1, cleaning.min_size_px)
    if cleaning.largest_only:
        is_kept &= np.arange(len(sizes)) == sizes.argmax()
    return np.asarray(is_kept[parts])


def _find_holes(mask: np.ndarray, largest_px: int | Literal["all"]) -> np.ndarray:
    """Return the parts of the background that do not touch the border; corners connect them."""
    parts = label_components(~mask, reach=mask.ndim)
    sizes = np.bincount(parts.ravel())
    is_hole = np.ones(len(sizes), bool) if largest_px == "all" else sizes <= largest_px
    for axis in range(mask.ndim):
        is_hole[np.take(parts, [0, -1], axis=axis)] = False
    is_hole[0] = False
    return np.asarray(is_hole[parts])


def separate(
    classes: np.ndarray, distance: np.ndarray, how: Separation
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the classes into objects; small ones become background.

    Shapes:
        classes: (*S) class indices; distance: (*S), 0 to 1.
        returns: (*S) class indices, and (*S) numbers of the objects, 0 outside.
    """
    reach = classes.ndim if how.corners_connect else 1
    labels = np.zeros(classes.shape, dtype=np.int32)
    for index in np.unique(classes[classes > 0]):
        found = split_by_peaks(distance, classes == index, how.h, reach)
        labels[found > 0] = found[found > 0] + labels.max()
    labels = number_objects(labels, how.min_size_px)
    if how.draws_lines:
        labels = np.where(_is_beside_later(labels, classes), 0, labels)
    return np.where(labels > 0, classes, np.uint8(0)), labels


def number_objects(labels: np.ndarray, min_size_px: int = 0) -> np.ndarray:
    """Drop small objects and number the others by their first pixel, (*S) int32."""
    found, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    is_kept = (found > 0) & (sizes >= min_size_px)
    kept = found[is_kept][np.argsort(first[is_kept])]
    numbers = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return np.asarray(numbers[labels])


def _is_beside_later(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return which pixels share a side with an object of their class that has a higher number."""
    found = np.zeros(labels.shape, dtype=bool)
    for here, there in neighbor_pairs(labels.ndim, 1):
        one, other = labels[here], labels[there]
        touch = (classes[here] == classes[there]) & (one > 0) & (other > 0)
        found[here] |= touch & (other > one)
        found[there] |= touch & (one > other)
    return found


def split_by_peaks(relief: np.ndarray, mask: np.ndarray, h: float, reach: int) -> np.ndarray:
    """Label each part of a mask by the peak above it.

    A peak gets a label of its own if it is at least `h` higher than the highest saddle to a higher
    peak. All peaks are flooded, then shallow ones are joined across their highest saddle.

    Shapes:
        relief: (*S); mask: (*S) bool.
        returns: (*S) integers, 0 outside the mask.
    """
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int32)
    below_all = float(relief[mask].min()) - 1
    height = np.pad(np.where(mask, relief, below_all), 1, constant_values=below_all)
    padded = np.pad(mask, 1)
    seeds = find_peaks(height, padded, reach)
    basins = flood(height, seeds, padded, reach)
    peaks = np.zeros(int(seeds.max()) + 1)
    peaks[seeds[seeds > 0]] = height[seeds > 0]
    joined = _join_shallow(peaks, _find_passes(basins, height, reach), h)
    return np.asarray(joined[basins[(slice(1, -1),) * mask.ndim]])


def find_peaks(height: np.ndarray, mask: np.ndarray, reach: int) -> np.ndarray:
    """Number the plateaus without a higher neighbor, (*S); all of them lie in the mask."""
    plateaus = label_components(height, reach, mask)
    is_peak = np.ones(int(plateaus.max()) + 1, dtype=bool)
    is_peak[0] = False
    for here, there in neighbor_pairs(height.ndim, reach):
        is_peak[plateaus[here][height[there] > height[here]]] = False
        is_peak[plateaus[there][height[here] > height[there]]] = False
    return np.asarray(np.where(is_peak, np.cumsum(is_peak), 0)[plateaus])


def flood(height: np.ndarray, seeds: np.ndarray, mask: np.ndarray, reach: int) -> np.ndarray:
    """Extend the seeds over the mask, from the highest pixels to the lowest ones.

    The pixels of a plateau are reached in the order of their distance from the first seed, as in
    `skimage.segmentation.watershed(-height, seeds, mask=mask)`. Equal seeds follow each other in
    raster order.

    Shapes:
        height, seeds, mask: (*S), with nothing of the mask at the border.
        returns: (*S) number of the seed of each pixel of the mask.
    """
    depths = np.unique(-height, return_inverse=True)[1]
    keys = (depths.ravel() << 32).tolist()
    owners, is_open = seeds.ravel().tolist(), (mask & (seeds == 0)).ravel().tolist()
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=height.ndim)))
    lengths = np.abs(steps).sum(axis=1)
    near = steps[np.argsort(lengths, kind="stable")][1 : int((lengths <= reach).sum())]
    offsets = (near @ (np.array(height.strides) // height.itemsize)).tolist()
    queue = [(keys[place], place) for place in np.flatnonzero(seeds).tolist()]
    heapq.heapify(queue)
    age = 1
    while queue:
        place = heapq.heappop(queue)[1]
        owner = owners[place]
        for offset in offsets:
            neighbor = place + offset
            if is_open[neighbor]:
                is_open[neighbor] = False
                owners[neighbor] = owner
                age += 1
                heapq.heappush(queue, (keys[neighbor] + age, neighbor))
    return np.array(owners).reshape(height.shape)


def _find_passes(
    basins: np.ndarray, height: np.ndarray, reach: int
) -> list[tuple[int, int, float]]:
    """Return pairs of touching basins with the height of their saddle, highest first."""
    lows, highs, heights = [], [], []
    for here, there in neighbor_pairs(height.ndim, reach):
        one, other = basins[here], basins[there]
        touch = (one != other) & (one > 0) & (other > 0)
        lows.append(np.minimum(one[touch], other[touch]))
        highs.append(np.maximum(one[touch], other[touch]))
        heights.append(np.minimum(height[here][touch], height[there][touch]))
    low, high, top = (np.concatenate(values) for values in (lows, highs, heights))
    order = np.lexsort((high, low, -top))
    pairs = low.astype(np.int64) * (int(basins.max()) + 1) + high
    first = np.sort(np.unique(pairs[order], return_index=True)[1])
    kept = order[first]
    return list(zip(low[kept].tolist(), high[kept].tolist(), top[kept].tolist(), strict=True))


def _join_shallow(
    peaks: np.ndarray, passes: Sequence[tuple[int, int, float]], h: float
) -> np.ndarray:
    """Return the label of each basin after joining shallow peaks from the highest saddle down."""
    parent, top = list(range(len(peaks))), peaks.tolist()

    def find_root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    one_object = []
    for first, second, height in passes:
        lower, higher = sorted((find_root(first), find_root(second)), key=lambda one: top[one])
        if lower != higher:
            parent[lower] = higher
            if top[lower] - height < h:
                one_object.append((first, second))
    ends = np.array(one_object, dtype=np.intp).reshape(-1, 2)
    return join(len(peaks), ends[:, 0], ends[:, 1])
