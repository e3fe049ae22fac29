"""Clean label maps in memory or band by band: remove components, fill holes.

Pixels of a component are connected by their sides, as in everything that is counted and drawn
(`instances.label_objects`, outlines, tables). Pixels of a hole are also connected by their corners,
so that no line of pixels that touch at corners encloses anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from ushape.errors import check_range
from ushape.labels import Region


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What happens to the connected components of one class; by default, they are unchanged.

    Components are removed first, then the holes of the remaining ones are filled.
    """

    RENAMED: ClassVar = {"smallest_px": "min_size_px", "largest_hole_px": "max_hole_size_px"}

    largest_only: bool = False
    """Whether only the largest component is kept."""

    min_size_px: int = 0
    """Size in pixels below which components are removed."""

    max_hole_size_px: int | Literal["all"] = 0
    """Largest hole that is filled, in pixels; all: holes of any size."""

    def __post_init__(self) -> None:
        check_range("min_size_px", self.min_size_px, 0)
        if self.max_hole_size_px != "all":
            check_range("max_hole_size_px", self.max_hole_size_px, 0)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is removed and nothing is filled."""
        return not (self.largest_only or self.min_size_px > 1 or self.max_hole_size_px)


def remove_small(mask: np.ndarray, min_size_px: int) -> np.ndarray:
    """Remove the connected components with fewer pixels; sides connect.

    Shapes:
        mask: (*S) bool -> the same.
    """
    parts, count = ndimage.label(mask)
    is_kept = np.bincount(parts.ravel(), minlength=count + 1) >= min_size_px
    is_kept[0] = False
    return np.asarray(is_kept[parts])


def fill_holes(mask: np.ndarray, largest_px: int | Literal["all"] = "all") -> np.ndarray:
    """Fill the holes of a mask.

    A hole is background that is not connected to the border of the array, by sides or corners. In
    a volume, a hole is closed in all three directions: a hole of one slice may be open in the next.

    Args:
        largest_px: Largest hole that is filled, in pixels.

    Shapes:
        mask: (*S) bool -> the same.
    """
    return mask | (find_holes(~mask, largest_px) > 0)


def find_holes(
    background: np.ndarray,
    largest_px: int | Literal["all"] = "all",
    *,
    reach: int | None = None,
) -> np.ndarray:
    """Label the connected components of the background that do not touch the border of the array.

    Args:
        largest_px: Largest size of a hole.
        reach: Number of axes along which neighbors within a hole may differ; None: all.

    Shapes:
        background: (*S) bool.
        returns: (*S) integers, 0 outside of holes.
    """
    structure = ndimage.generate_binary_structure(background.ndim, reach or background.ndim)
    parts, count = ndimage.label(background, structure)
    is_hole = np.ones(count + 1, dtype=bool)
    if largest_px != "all":
        is_hole = np.bincount(parts.ravel(), minlength=count + 1) <= largest_px
    for axis in range(background.ndim):
        is_hole[np.unique(np.take(parts, [0, -1], axis=axis))] = False
    is_hole[0] = False
    return np.asarray(np.where(is_hole[parts], parts, 0))


def remove_parts(mask: np.ndarray, cleaning: Cleaning) -> np.ndarray:
    """Remove the components (*S) bool that the cleaning does not keep."""
    if cleaning.largest_only:
        mask = keep_largest(mask)
    return remove_small(mask, cleaning.min_size_px) if cleaning.min_size_px > 1 else mask


def clean_classes(
    label_map: np.ndarray, regions: Sequence[Region], cleanings: Sequence[Cleaning]
) -> np.ndarray:
    """Clean a label map, class by class or region by region.

    Removed pixels get the class beneath: for a region within another one, the other region's class;
    otherwise background. They never get the second most likely class, because noise would become
    objects of that class. Holes are filled only where they contain background or the class
    beneath: another class, such as a nucleus in a cell, is kept.

    Args:
        regions: Regions as in LabelSpace.scored, the largest first.
        cleanings: One cleaning for each region.

    Shapes:
        label_map: (*S) class indices -> the same.
    """
    if all(cleaning.is_idle for cleaning in cleanings):
        return label_map
    cleaned = label_map.copy()
    beneath = classes_beneath(regions)
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        own = region.of(cleaned)
        cleaned[own & ~remove_parts(own, cleaning)] = under[-1]
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.max_hole_size_px:
            filled = fill_holes(region.of(cleaned), cleaning.max_hole_size_px)
            cleaned[filled & np.isin(cleaned, under)] = region.classes[0]
    return cleaned


def classes_beneath(regions: Sequence[Region]) -> list[list[int]]:
    """Return for each region the classes beneath it, the closest one last.

    These are background, and the class of each region that contains it.
    """
    found = []
    for place, region in enumerate(regions):
        around = [one for one in regions[:place] if set(region.classes) < set(one.classes)]
        found.append([0, *(one.classes[0] for one in around)])
    return found


def keep_largest(label_map: np.ndarray) -> np.ndarray:
    """Keep only the largest connected component of each foreground class; sides connect.

    Shapes:
        label_map: (*S) class indices -> the same.
    """
    kept = np.zeros_like(label_map)
    for class_index in np.unique(label_map[label_map > 0]):
        parts, count = ndimage.label(label_map == class_index)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept[parts == sizes.argmax()] = class_index
    return kept


BAND_PX = 1 << 22
"""Number of pixels that are processed together."""

RowMask = Callable[[slice], np.ndarray]
"""Function that returns rows of a mask, (n, ...) bool."""


@dataclass(frozen=True)
class Parts:
    """The connected components of a mask, numbered from 1 by their first pixel."""

    bands: Sequence[slice]
    read: RowMask
    reach: np.ndarray
    """Structuring element of connected neighbors, as in `ndimage.label`."""

    part_of: Sequence[np.ndarray]
    """For each band, the component of each of its pieces; that of piece 0 is 0."""

    pixels: np.ndarray
    """Size of each component in pixels; index 0 is unused."""

    touches_edge: np.ndarray
    """Whether each component touches the border of the map."""

    def select(self, is_chosen: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the pixels of the chosen components, band by band. A yielded band may be changed.

        Shapes:
            is_chosen: (components + 1,) bool.
        """
        for band, numbers in self.numbers():
            yield band, is_chosen[numbers]

    def numbers(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the number of the component of each pixel, 0 outside, band by band."""
        for band, parts in zip(self.bands, self.part_of, strict=True):
            pieces, _ = ndimage.label(self.read(band), self.reach)
            yield band, parts[pieces]


def find_parts(read: RowMask, shape: Sequence[int], *, corners_connect: bool) -> Parts:
    """Label each band, and join components that touch across the border between two bands.

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
        edges.append(_touches_edge(pieces, count, band.start == 0, band.stop == shape[0]))
        first, last = (np.where(row > 0, row + sum(counts), 0) for row in (pieces[0], pieces[-1]))
        if above is not None:
            pairs.append(touching_pairs(above, first, corners_connect=corners_connect))
        above = last
        counts.append(count)
    roots = join_pieces(sum(counts), pairs)
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
    label_map: np.ndarray, regions: Sequence[Region], cleanings: Sequence[Cleaning]
) -> None:
    """Apply `clean_classes` in place to a map on disk, with only bands of it in memory.

    Shapes:
        label_map: (*S) class indices, a memory map.
    """
    beneath = classes_beneath(regions)
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.largest_only or cleaning.min_size_px > 1:
            parts = find_parts(_reader(label_map, region), label_map.shape, corners_connect=False)
            for band, pixels in parts.select(~_is_kept(parts, cleaning)):
                label_map[band][pixels] = under[-1]
    for region, cleaning, under in zip(regions, cleanings, beneath, strict=True):
        if cleaning.max_hole_size_px:
            outside = _reader(label_map, region, inverted=True)
            gaps = find_parts(outside, label_map.shape, corners_connect=True)
            for band, pixels in gaps.select(_is_hole(gaps, cleaning)):
                own = label_map[band]
                own[pixels & np.isin(own, under)] = region.classes[0]


def cut_rows(shape: Sequence[int]) -> list[slice]:
    """Cut a map (*S) into bands of rows of about BAND_PX pixels."""
    rows = max(1, BAND_PX // int(np.prod(shape[1:])))
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def _reader(classes: np.ndarray, region: Region, *, inverted: bool = False) -> RowMask:
    return lambda band: region.of(np.asarray(classes[band])) != inverted


def _is_kept(parts: Parts, cleaning: Cleaning) -> np.ndarray:
    is_kept = np.ones(len(parts.pixels), dtype=bool)
    if cleaning.largest_only:
        is_kept = np.arange(len(is_kept)) == parts.pixels.argmax()
    is_kept &= parts.pixels >= cleaning.min_size_px
    is_kept[0] = True  # Index 0 is not a component.
    return is_kept


def _is_hole(gaps: Parts, cleaning: Cleaning) -> np.ndarray:
    is_hole = ~gaps.touches_edge
    if cleaning.max_hole_size_px != "all":
        is_hole &= gaps.pixels <= cleaning.max_hole_size_px
    is_hole[0] = False
    return is_hole


def _touches_edge(pieces: np.ndarray, count: int, is_first: bool, is_last: bool) -> np.ndarray:
    """Return for each piece whether it touches the border of the map, (count,)."""
    found = np.zeros(count + 1, dtype=bool)
    if is_first:
        found[pieces[0]] = True
    if is_last:
        found[pieces[-1]] = True
    for axis in range(1, pieces.ndim):
        found[np.take(pieces, [0, -1], axis=axis)] = True
    return found[1:]


def touching_pairs(above: np.ndarray, below: np.ndarray, *, corners_connect: bool) -> np.ndarray:
    """Return pairs (pairs, 2) of pieces that touch across the border between two bands."""
    steps = (-1, 0, 1) if corners_connect else (0,)
    found = []
    for shift in itertools.product(steps, repeat=above.ndim):
        upper = above[tuple(slice(max(0, s), s or None if s < 0 else None) for s in shift)]
        lower = below[tuple(slice(max(0, -s), -s or None if s > 0 else None) for s in shift)]
        both = (upper > 0) & (lower > 0)
        found.append(np.stack([upper[both], lower[both]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def join_pieces(count: int, pairs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the component of each piece, (count + 1,); 0 stays 0, others by first appearance."""
    touching = np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])
    graph = sparse.coo_array(
        (np.ones(len(touching), dtype=bool), (touching[:, 0], touching[:, 1])),
        shape=(count + 1, count + 1),
    )
    _, labels = csgraph.connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
