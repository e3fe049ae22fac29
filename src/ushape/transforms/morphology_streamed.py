"""`clean_classes` of a class map larger than memory: the same result, band by band."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from ushape.labels import Region
from ushape.transforms.morphology import Cleaning, classes_beneath

BAND_PX = 1 << 22
"""Pixels that are looked at together."""

Reader = Callable[[slice], np.ndarray]
"""Rows of a mask: (n, ...) bool."""


@dataclass(frozen=True)
class Parts:
    """The connected parts of a mask, numbered from 1 by their first pixel; 0 is what is no part."""

    bands: Sequence[slice]
    read: Reader
    reach: np.ndarray
    """Which neighbors connect, as in `ndimage.label`."""

    part_of: Sequence[np.ndarray]
    """For each band: the part of each piece of it, 0 first."""

    pixels: np.ndarray
    """Of each part; of 0 none."""

    touches_edge: np.ndarray
    """Whether a part reaches the border of the map."""

    def select(self, is_chosen: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """The pixels of the chosen parts, band by band. A band may change once it was handed out.

        Shapes:
            is_chosen: (parts + 1,) bool.
        """
        for band, parts in zip(self.bands, self.part_of, strict=True):
            pieces, _ = ndimage.label(self.read(band), self.reach)
            yield band, is_chosen[parts][pieces]


def find_parts(read: Reader, shape: Sequence[int], *, corners_connect: bool) -> Parts:
    """Labels each band, and joins what meets where two bands touch.

    Args:
        shape: (*S) of the map.
    """
    reach = ndimage.generate_binary_structure(len(shape), len(shape) if corners_connect else 1)
    bands = cut_rows(shape)
    counts, pixels, edges, pairs = [0], [np.zeros(1, np.int64)], [np.zeros(1, bool)], []
    above: np.ndarray | None = None
    for band in bands:
        pieces, count = ndimage.label(read(band), reach)
        pixels.append(np.bincount(pieces.ravel(), minlength=count + 1)[1:])
        edges.append(_touching(pieces, count, band.start == 0, band.stop == shape[0]))
        first, last = (np.where(row > 0, row + sum(counts), 0) for row in (pieces[0], pieces[-1]))
        if above is not None:
            pairs.append(_meeting(above, first, corners_connect=corners_connect))
        above = last
        counts.append(count)
    roots = _join(sum(counts), pairs)
    starts = np.cumsum(counts)
    part_of = [
        np.concatenate([[0], roots[start + 1 : start + 1 + count]])
        for start, count in zip(starts, counts[1:], strict=False)
    ]
    return Parts(
        bands=bands,
        read=read,
        reach=reach,
        part_of=part_of,
        pixels=np.bincount(roots, weights=np.concatenate(pixels)).astype(np.int64),
        touches_edge=np.bincount(roots, weights=np.concatenate(edges)) > 0,
    )


def clean_stored(
    classes: np.ndarray, regions: Sequence[Region], cleanings: Sequence[Cleaning]
) -> None:
    """As `clean_classes`, in place; of the map only bands are in memory, where it is a memmap.

    Shapes:
        classes: (*S) class indices.
    """
    beneath = classes_beneath(regions)
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.largest_only or cleaning.smallest_px > 1:
            parts = find_parts(_reader(classes, region), classes.shape, corners_connect=True)
            for band, pixels in parts.select(~_stays(parts, cleaning)):
                classes[band][pixels] = under[-1]
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.largest_hole_px:
            outside = _reader(classes, region, inverted=True)
            gaps = find_parts(outside, classes.shape, corners_connect=False)
            for band, pixels in gaps.select(_is_hole(gaps, cleaning)):
                own = classes[band]
                own[pixels & np.isin(own, under)] = region.classes[0]


def cut_rows(shape: Sequence[int]) -> list[slice]:
    """Bands of a map (*S) of which each is easily held."""
    rows = max(1, BAND_PX // int(np.prod(shape[1:])))
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


@contextmanager
def held_classes(shape: Sequence[int], folder: Path | None) -> Iterator[np.ndarray]:
    """A class map (*S), uint8, in a file that has no name and goes with the process.

    Args:
        folder: Where there is room for it; None: the system's place for such files.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        yield np.memmap(file, dtype=np.uint8, mode="w+", shape=tuple(shape))


def _reader(classes: np.ndarray, region: Region, *, inverted: bool = False) -> Reader:
    return lambda band: region.of(np.asarray(classes[band])) != inverted


def _stays(parts: Parts, cleaning: Cleaning) -> np.ndarray:
    stays = np.ones(len(parts.pixels), dtype=bool)
    if cleaning.largest_only:
        stays = np.arange(len(stays)) == parts.pixels.argmax()
    stays &= parts.pixels >= cleaning.smallest_px
    stays[0] = True  # What is no part is not taken away.
    return stays


def _is_hole(gaps: Parts, cleaning: Cleaning) -> np.ndarray:
    is_hole = ~gaps.touches_edge
    if cleaning.largest_hole_px != "all":
        is_hole &= gaps.pixels <= cleaning.largest_hole_px
    is_hole[0] = False
    return is_hole


def _touching(pieces: np.ndarray, count: int, is_first: bool, is_last: bool) -> np.ndarray:
    """(count,) whether each piece reaches the border of the map."""
    found = np.zeros(count + 1, dtype=bool)
    if is_first:
        found[pieces[0]] = True
    if is_last:
        found[pieces[-1]] = True
    for axis in range(1, pieces.ndim):
        found[np.take(pieces, [0, -1], axis=axis)] = True
    return found[1:]


def _meeting(above: np.ndarray, below: np.ndarray, *, corners_connect: bool) -> np.ndarray:
    """(pairs, 2) numbers of the pieces that touch across the line between two bands."""
    steps = (-1, 0, 1) if corners_connect else (0,)
    found = []
    for shift in itertools.product(steps, repeat=above.ndim):
        upper = above[tuple(slice(max(0, s), s or None if s < 0 else None) for s in shift)]
        lower = below[tuple(slice(max(0, -s), -s or None if s > 0 else None) for s in shift)]
        both = (upper > 0) & (lower > 0)
        found.append(np.stack([upper[both], lower[both]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _join(count: int, pairs: Sequence[np.ndarray]) -> np.ndarray:
    """(count + 1,) the part of each piece; 0 stays 0, parts are numbered as they appear."""
    met = np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])
    graph = sparse.coo_array(
        (np.ones(len(met), dtype=bool), (met[:, 0], met[:, 1])), shape=(count + 1, count + 1)
    )
    _, labels = csgraph.connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
