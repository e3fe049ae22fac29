"""The image of a file on the grid of the network, read in bands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.io.reducing import pixels_beneath
from ushape.io.streaming import Bands
from ushape.normalization import Normalization
from ushape.transforms.resampling import shrink_part
from ushape.types import Box

MEASURED_PX = 1 << 24
"""Number of pixels that are read at once to measure or to resample an image."""


@dataclass(frozen=True)
class FileRows:
    """The image of a file on the grid of the network, read in bands."""

    bands: Bands
    shape: tuple[int, ...]
    """(C, *working)."""

    normalization: Normalization | None
    """Normalization of the intensities; None before it was measured."""

    def read(self, first: int, last: int) -> np.ndarray:
        """Return (C, last - first, ...), as `Preprocessing.load` gives these rows."""
        return self.read_box(((first, last), *((0, size) for size in self.shape[2:])))

    def read_box(self, box: Box) -> np.ndarray:
        """Return (C, *box) of the values that `read` returns."""
        old, new = self.bands.shape[1:], self.shape[1:]
        if old == new:
            return self._take(box)
        (first, last), *others = box
        across = [pixels_beneath(*one) for one in zip(others, old[1:], new[1:], strict=True)]
        row_px = math.prod(end - start for start, end in across)
        together = max(1, MEASURED_PX * new[0] // (old[0] * row_px))
        parts = []  # The pixels of the file are resampled as floats: only a few at a time.
        for start in range(first, last, together):
            rows = (start, min(last, start + together))
            part = self._take((pixels_beneath(rows, old[0], new[0]), *across))
            parts.append(shrink_part(part, (rows, *others), old, new))
        return np.concatenate(parts, axis=1)

    def _take(self, box: Box) -> np.ndarray:
        """Return a region of the file."""
        (first, last), *others = box
        if all(edge == (0, size) for edge, size in zip(others, self.bands.shape[2:], strict=True)):
            return self.bands.read(first, last)  # Bands that overlap are unpacked only once.
        return self.bands.read_box(box)

    def scale(self, part: np.ndarray) -> np.ndarray:
        """Return a region with normalized intensities."""
        assert self.normalization is not None, "measured before prediction"
        return self.normalization.apply(part)

    def take_pixels(self, step: int) -> np.ndarray:
        """Return every pixel at a multiple of `step` in row-major order, (C, N)."""
        channels, _, *others = self.shape
        row_px = math.prod(others)
        found = []
        for first, last in strips(self.shape):
            start = -(-first * row_px // step) * step
            wanted = np.arange(start, last * row_px, step) - first * row_px
            if wanted.size:
                found.append(self.read(first, last).reshape(channels, -1)[:, wanted])
        return np.concatenate(found, axis=1)


def strips(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first row of each strip of an image (C, *S), and the one after its last."""
    height, row_px = shape[1], math.prod(shape[2:])
    together = max(1, MEASURED_PX // row_px)
    for first in range(0, height, together):
        yield first, min(height, first + together)
