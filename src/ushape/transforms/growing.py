"""Resample probabilities linearly: whole images, bands of them, or parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.types import Box

GROWN_PX = 1 << 20
"""Approximate number of target pixels that are computed together."""


def resample_probabilities(probabilities: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample probabilities linearly to another shape.

    The positions are those of `torch.nn.functional.interpolate` without aligned corners, but in
    double precision: in single precision, they would be wrong by a hundredth of a pixel after
    100,000 pixels, and would depend on where a part of an image begins.

    Shapes:
        probabilities: (K, *S) -> (K, *shape) float32.
    """
    old = probabilities.shape[1:]
    beneath = source_box(tuple((0, size) for size in shape), old, shape)
    needed = probabilities[(slice(None), *(slice(*edge) for edge in beneath))]
    whole = np.empty((len(probabilities), *shape), dtype=np.float32)
    done = 0
    for rows in grow_bands([needed], old, shape):
        whole[:, done : done + rows.shape[1]] = rows
        done += rows.shape[1]
    return whole


def grow_bands(
    bands: Iterable[np.ndarray], old: Sequence[int], new: Sequence[int], box: Box | None = None
) -> Iterator[np.ndarray]:
    """Yield `resample_probabilities` of an image, or a part of it, few rows at a time.

    Args:
        bands: (K, n, ...) rows of the `source_box` that follow each other.
        old: S of the whole source.
        new: S of the whole target.
        box: Part of the target; None: all of it.

    Shapes:
        yields: (K, m, *new[1:]), or (K, m, *box[1:]), m >= 1.
    """
    box = box or tuple((0, size) for size in new)
    row_px = math.prod(last - first for first, last in box[1:])
    together = max(1, GROWN_PX * old[0] // (row_px * new[0]))
    grower = RowGrower(old, new, box)
    for band in bands:
        for top in range(0, band.shape[1], together):
            rows = grower.add(band[:, top : top + together])
            if rows.shape[1]:
                yield rows


def source_box(box: Box, old: Sequence[int], new: Sequence[int]) -> Box:
    """Return the part of the source that is needed to compute a part of the target."""
    places = [_Places.along(*one) for one in zip(box, old, new, strict=True)]
    return tuple((int(own.lower.min()), int(own.upper.max()) + 1) for own in places)


@dataclass(frozen=True)
class _Places:
    """Positions of target pixels among the source pixels of an axis."""

    lower: np.ndarray
    """(N,) source pixel at or before the center of each target pixel."""

    upper: np.ndarray
    """(N,) the next source pixel, or the last one."""

    weight: np.ndarray
    """(N,) float32 weight of the upper pixel."""

    @classmethod
    def along(cls, edge: tuple[int, int], old: int, new: int) -> _Places:
        """Return the positions of the target pixels from `edge[0]` to before `edge[1]`."""
        places = ((np.arange(*edge) + 0.5) * (old / new) - 0.5).clip(0)
        lower = np.floor(places).astype(int)
        weight = (places - lower).astype(np.float32)
        return cls(lower, np.minimum(lower + 1, old - 1), weight)

    @property
    def is_copy(self) -> bool:
        """Whether the target pixels are source pixels that follow each other."""
        return not self.weight.any() and bool((np.diff(self.lower) == 1).all())

    def rows(self, rows: slice) -> _Places:
        """Return some of the positions."""
        return _Places(self.lower[rows], self.upper[rows], self.weight[rows])

    def take(self, values: np.ndarray, axis: int, first: int) -> np.ndarray:
        """Interpolate along an axis of (K, *S), whose first pixel is `first`.

        Each operation is rounded by itself, so that the result does not depend on the extent.
        """
        if self.is_copy:
            start = int(self.lower[0]) - first
            return values[(slice(None),) * axis + (slice(start, start + len(self.lower)),)]
        weight = self.weight.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        # The indices are valid: "clip" only makes it faster.
        lower = values.take(self.lower - first, axis=axis, mode="clip")
        result = values.take(self.upper - first, axis=axis, mode="clip")
        result -= lower
        result *= weight
        result += lower
        return result


class RowGrower:
    """Compute `resample_probabilities`, or a part of it, in bands along the first axis.

    Args:
        old: S of the whole source.
        new: S of the whole target.
        box: Part of the target.
    """

    def __init__(self, old: Sequence[int], new: Sequence[int], box: Box):
        self._places = [_Places.along(*one) for one in zip(box, old, new, strict=True)]
        self._origin = [first for first, _ in source_box(box, old, new)]
        self._seen, self._done = self._origin[0], 0
        self._last: np.ndarray | None = None

    def add(self, band: np.ndarray) -> np.ndarray:
        """Add source rows and return the target rows that they complete.

        With the last band, the last rows are returned. The number of rows may be 0.

        Shapes:
            band: (K, n, *source[1:]) -> (K, m, *box[1:]) float32.
        """
        known = band if self._last is None else np.concatenate([self._last, band], axis=1)
        first = self._seen - (known.shape[1] - band.shape[1])  # Row number in the source.
        self._seen += band.shape[1]
        rows, *others = self._places
        ready = slice(self._done, int(np.searchsorted(rows.upper, self._seen)))
        self._done = ready.stop
        self._last = known[:, -1:].copy()
        if ready.start == ready.stop:
            sizes = [len(own.lower) for own in others]
            return np.empty((len(band), 0, *sizes), dtype=np.float32)
        values = rows.rows(ready).take(known.astype(np.float32, copy=False), 1, first)
        for axis, (own, start) in enumerate(zip(others, self._origin[1:], strict=True), start=2):
            values = own.take(values, axis, start)
        return values
