"""Images larger than memory, read band by band along the first axis of S.

TIFF, .npy and Zarr are read in parts; of every other format the whole image is held.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.io import npy, ome_zarr, safety, tiff
from ushape.io.streaming import sources, tiff_segments
from ushape.io.streaming.sources import Source
from ushape.types import Pixels

OPENERS: dict[Callable[[Path], Pixels], Callable[[Path, ExitStack], Source | None]] = {
    tiff.read: tiff_segments.open_tiff,
    npy.read: sources.open_npy,
    ome_zarr.read: sources.open_zarr,
}
"""By the reader of the whole image. None says that this file is only read whole."""


class Bands:
    """An open image, to be read in bands along the first axis of S: of rows, or of planes.

    Holds, beside what `read` returns, only the strips, tiles or chunks that the last band lay in:
    bands that overlap unpack nothing twice. One thread may read at a time.

    Attributes:
        shape: (C, *S), palettes turned into their colors.
        dtype: Of what `read` returns.
        spacing_mm: Distance between pixel centers along each axis of S, where the file says so.
    """

    def __init__(self, path: Path, source: Source, closing: ExitStack):
        self.path, self._source, self._closing = path, source, closing
        self._blocks: dict[int, np.ndarray] = {}
        is_palette, spacing = source.palette is not None, source.spacing_mm
        self.shape = (3, *source.shape[1:]) if is_palette else source.shape
        is_8_bit = is_palette or source.dtype == bool
        self.dtype = np.dtype(np.uint8) if is_8_bit else source.dtype.newbyteorder("=")
        has_spacing = spacing is not None and len(spacing) == len(source.shape) - 1
        is_sane = has_spacing and all(0 < step < math.inf for step in spacing or ())
        self.spacing_mm = spacing if is_sane else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and lets go of what was unpacked."""
        self._blocks = {}
        self._closing.close()

    def read(self, first: int, last: int) -> np.ndarray:
        """The rows (planes) from `first` to before `last`, as `io.read` gives them.

        Shapes:
            returns: (C, last - first, *S[1:]), an array of its own.

        Raises:
            DataError: no such rows; the file is damaged there; the band alone is too large.
        """
        if not 0 <= first < last <= self.shape[1]:
            raise DataError(
                f"{self.path}: no rows {first} to {last}, it has {self.shape[1]}.",
                hint="Rows count from 0; the second number is the one after the last.",
            )
        with safety.reading(self.path):
            self._check_size(last - first)
            band = self._stored(first, last)
            if self._source.palette:
                return self._in_colors(band)
            return np.require(band, self.dtype, ["C", "W"])

    def _check_size(self, rows: int) -> None:
        source = self._source
        shape = (source.shape[0], rows, *source.shape[2:])
        safety.check_claim(self.path, shape, source.dtype.itemsize, source.present_bytes)

    def _stored(self, first: int, last: int) -> np.ndarray:
        """(C, rows, *S[1:]) as the file has it, from the blocks that the rows lie in."""
        source, grain = self._source, self._source.grain
        if grain is None:
            return source.read_rows(first, last)
        numbers = range(first // grain, -(-last // grain))
        # Let go before more is unpacked.
        self._blocks = {n: block for n, block in self._blocks.items() if n in numbers}
        band = np.empty((source.shape[0], last - first, *source.shape[2:]), source.dtype)
        for number in numbers:
            start, end = number * grain, min((number + 1) * grain, source.shape[1])
            if number not in self._blocks:
                self._check_size(end - start)
                self._blocks[number] = source.read_rows(start, end)
            above, below = max(first, start), min(last, end)
            rows = self._blocks[number][:, above - start : below - start]
            band[:, above - first : below - first] = rows
        return band

    def _in_colors(self, indices: np.ndarray) -> np.ndarray:
        colors = np.asarray(self._source.palette, dtype=np.uint8)
        known = indices[0].astype(np.intp).clip(0, len(colors) - 1)
        return np.stack([levels[known] for levels in colors.T])


def open_bands(path: Path) -> Bands:
    """Opens an image of any format that `io.read` knows, to be read in bands.

    `with open_bands(path) as bands: top = bands.read(0, 512)`. The whole image may have more
    values than `io.read` takes, one band may not. Of a TIFF that is compressed as one strip, or
    only other libraries unpack, the whole image is held.

    Raises:
        DataError: as `io.read`.
    """
    opener = OPENERS.get(io.reader_of(path))
    with ExitStack() as closing:
        source = None
        if opener is not None:
            with safety.reading(path):
                source = opener(path, closing)
        source = source or sources.held(io.read(path))
        if len(source.shape) not in (3, 4) or 0 in source.shape or source.dtype.kind not in "buif":
            raise safety.damaged(path, f"holds {source.dtype} of shape {source.shape}")
        if source.dtype.itemsize > 8:
            raise DataError(f"{path}: holds values of type {source.dtype}.", hint="Save 64 bits.")
        return Bands(path, source, closing.pop_all())
