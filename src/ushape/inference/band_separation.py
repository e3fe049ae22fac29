"""Separate the objects of images larger than memory, whose rows come in bands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage import measure

from ushape.inference.separation import separate_filled
from ushape.instances.label import ObjectConfig, fill_with_class_around
from ushape.io.limits import free_memory_bytes, sharing_processes
from ushape.labels import LabelSpace

MAX_OPEN_PX = 1 << 25
"""Number of pixels, background included, that may wait for the end of objects in any case."""

OPEN_PX_BYTES = 64
"""Memory for each pixel that waits while parts are divided, in bytes; 55 were measured on 4 million
pixels of many small parts."""


def separate_bands(
    bands: Iterable[tuple[np.ndarray, np.ndarray]],
    space: LabelSpace,
    how: ObjectConfig,
    on_cut: Callable[[int], object],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Separate objects band by band; they equal those of `separate` for the whole image.

    Each connected component of the foreground is divided after its last row, independently of
    all others, and rows are yielded when all of their parts have been. Holes are filled before
    that, so a part also waits for the end of those that it touches. If more pixels wait than fit
    into half of the free memory, the parts that are longer than half of the waiting rows are cut at
    the last row; holes that are open there are not filled.

    Args:
        bands: Classes (n, ...) and distance (n, ...) of rows that follow each other.
        on_cut: Function that receives the number of parts that were cut, each time.

    Shapes:
        yields: (m, ...) uint8 class indices, and (m, ...) int32 numbers of the objects in any
            order, of rows that follow each other, m >= 0; at least once for each band, and once
            after the last one.
    """
    waiting: _Waiting | None = None
    free = free_memory_bytes() // sharing_processes()
    open_px = max(MAX_OPEN_PX, free // (2 * OPEN_PX_BYTES))
    for classes, distance in bands:
        if waiting is None:
            waiting = _Waiting.begin(space, how, classes, distance)
        elif waiting.classes.size > open_px:  # Not before it is known that more rows come.
            rows = open_px // math.prod(classes.shape[1:])
            found = waiting.take(len(waiting.classes) - rows // 2)
            on_cut(waiting.cut_parts)
            yield found
        waiting.add(classes, distance)
        yield waiting.take()
    if waiting is not None:
        yield waiting.take(len(waiting.classes))


def separate_streamed(
    bands: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    space: LabelSpace,
    how: ObjectConfig,
    on_cut: Callable[[int], object],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the probabilities of each band, and the classes of the rows that are complete.

    Args:
        bands: Probabilities (K, n, ...), classes (n, ...) and distance (n, ...) of rows that follow
            each other.
        on_cut: As for `separate_bands`.

    Shapes:
        yields: probabilities (K, n, ...), n = 0 if none are new; classes (m, ...).
    """
    own: list[np.ndarray] = []

    def keep() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for probabilities, classes, distance in bands:
            assert distance is not None, "only networks that predict it separate objects"
            own.append(probabilities)
            yield classes, distance

    for classes, _ in separate_bands(keep(), space, how, on_cut):
        # The probabilities of all rows so far have been given with their bands.
        none = np.empty((space.channels, 0, *classes.shape[1:]), dtype=np.float32)
        yield own.pop() if own else none, classes


@dataclass
class _Waiting:
    """Rows of which some parts are not complete."""

    space: LabelSpace
    how: ObjectConfig
    classes: np.ndarray
    """(m, ...) classes before the separation; 0 where a part has been divided."""

    filled: np.ndarray
    """(m, ...) the same with the class of each hole that is filled."""

    settled: np.ndarray
    """(m, ...) bool; parts that have been divided, and background that is not filled."""

    distance: np.ndarray
    done: np.ndarray
    """(m, ...) classes of the parts that have been divided."""

    numbers: np.ndarray
    """(m, ...) int32 numbers of their objects."""

    _used: int = field(default=0, init=False)
    """Highest number so far."""

    cut_parts: int = field(default=0, init=False)
    """Number of parts that the last call of `take` divided before their last row."""

    _reach: int = field(init=False)

    def __post_init__(self) -> None:
        self._reach = self.classes.ndim if self.how.corners_connect else 1

    @classmethod
    def begin(
        cls, space: LabelSpace, how: ObjectConfig, classes: np.ndarray, distance: np.ndarray
    ) -> _Waiting:
        """Return no rows, of the shapes of the rows that will come."""
        none = classes[:0]
        numbers = np.zeros(none.shape, dtype=np.int32)
        return cls(space, how, none, none, none.astype(bool), distance[:0], none, numbers)

    def add(self, classes: np.ndarray, distance: np.ndarray) -> None:
        """Append rows."""
        settled = np.zeros(classes.shape, dtype=bool)
        if not len(self.classes):
            # It touches the edge of the image, or rows of settled background above.
            settled[:1] = classes[:1] == 0
        self.settled = np.concatenate([self.settled, settled])
        self.filled = np.concatenate([self.filled, classes])
        self.classes = np.concatenate([self.classes, classes])
        self.distance = np.concatenate([self.distance, distance])
        self.done = np.concatenate([self.done, np.zeros_like(classes)])
        self.numbers = np.concatenate([self.numbers, np.zeros(classes.shape, dtype=np.int32)])

    def take(self, ends_before: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Divide the parts that are complete, and return the rows before the first open part.

        Args:
            ends_before: Row; parts that begin before it are divided whether complete or not.
        """
        # A part that touches an open hole is open, because the hole may join it to others.
        open_holes = self._fill_holes()
        parts = measure.label((self.filled > 0) | open_holes, connectivity=self._reach)
        is_open = np.zeros(int(parts.max(initial=0)) + 1, dtype=bool)
        if len(parts):
            is_open[parts[-1]] = True
        is_open[0] = False
        count = int(is_open.sum())
        is_open[parts[:ends_before]] = False
        self.cut_parts = count - int(is_open.sum())
        stays = is_open[parts]
        complete, filled = (
            np.where(stays, 0, own).astype(np.uint8) for own in (self.classes, self.filled)
        )
        if complete.any():
            own, labels = separate_filled(complete, filled, self.distance, self.space, self.how)
            self.done |= own
            self.numbers[labels > 0] = labels[labels > 0] + self._used
            self._used += int(labels.max(initial=0))
        self.settled |= (parts > 0) & ~stays
        self.classes = np.where(stays, self.classes, 0)
        self.filled = np.where(stays, self.filled, 0)
        open_rows = np.flatnonzero(stays.any(axis=tuple(range(1, stays.ndim))))
        first = int(open_rows[0]) if open_rows.size else len(stays)
        found = self.done[:first], self.numbers[:first]
        self.classes, self.distance = self.classes[first:], self.distance[first:]
        self.filled, self.settled = self.filled[first:], self.settled[first:]
        self.done, self.numbers = self.done[first:].copy(), self.numbers[first:].copy()
        return found

    def _fill_holes(self) -> np.ndarray:
        """Fill the holes whose last row has come, as `fill_enclosed_holes`.

        Shapes:
            returns: (m, ...) bool, background that may be part of a hole when more rows have come.
        """
        if not self.how.max_hole_size_px or not len(self.filled):
            return np.zeros(self.filled.shape, dtype=bool)
        reach = 1 if self.how.corners_connect else self.filled.ndim
        structure = ndimage.generate_binary_structure(self.filled.ndim, reach)
        gaps, count = ndimage.label(self.filled == 0, structure)
        may_be_hole = np.bincount(gaps.ravel(), minlength=count + 1) <= self.how.max_hole_size_px
        may_be_hole[gaps[self.settled]] = False
        for axis in range(1, gaps.ndim):
            may_be_hole[np.take(gaps, [0, -1], axis=axis)] = False
        may_be_hole[0] = False
        is_open = np.zeros(count + 1, dtype=bool)
        is_open[gaps[-1]] = True
        holes = np.where((may_be_hole & ~is_open)[gaps], gaps, 0)
        self.filled = fill_with_class_around(self.filled, holes)
        open_holes = (may_be_hole & is_open)[gaps]
        self.settled |= (self.filled == 0) & ~open_holes
        return open_holes
