"""Images larger than memory, read in bands along the first axis of S.

TIFF, .npy and Zarr files are read in parts; files of every other format are held in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.io import files, npy, ome_zarr, tiff
from ushape.io.streaming import tiff_segments
from ushape.types import Pixels, RowReader

OPENERS: dict[Callable[[Path], Pixels], Callable[[Path, ExitStack], RowReader | None]] = {
    tiff.read: tiff_segments.open_rows,
    npy.read: lambda path, closing: npy.open_rows(path),
    ome_zarr.read: lambda path, closing: ome_zarr.open_rows(path),
}
"""Functions that open a file to read parts of it, by the reader of the whole file. A function
returns None for a file that can only be read as a whole."""


class Bands:
    """An open image that is read in bands along the first axis of S: of rows, or of planes.

    Besides the band that `read` returns, only the strips, tiles or chunks of that band are held in
    memory, so overlapping bands unpack nothing twice. Not safe for reading by several threads at
    the same time.

    Attributes:
        shape: (C, *S), palettes converted to their colors.
        dtype: Type of the bands.
        spacing_mm: Distance between pixel centers along each axis of S, if the file states it.
    """

    def __init__(self, path: Path, source: RowReader, closing: ExitStack):
        self.path, self._source, self._closing = path, source, closing
        self._blocks: dict[int, np.ndarray] = {}
        is_palette, spacing = source.palette is not None, source.spacing_mm
        self.shape = (3, *source.shape[1:]) if is_palette else source.shape
        is_8_bit = is_palette or source.dtype == bool
        self.dtype = np.dtype(np.uint8) if is_8_bit else source.dtype.newbyteorder("=")
        self.spacing_mm = io.plausible_spacing(spacing, len(source.shape) - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the memory."""
        self._blocks = {}
        self._closing.close()

    def read(self, first: int, last: int) -> np.ndarray:
        """Read the rows (planes) from `first` to before `last`, with the values of `io.read`.

        Shapes:
            returns: (C, last - first, *S[1:]), a new array.

        Raises:
            DataError: if the rows do not exist, the file is damaged there, or the band is too
                large.
        """
        if not 0 <= first < last <= self.shape[1]:
            raise DataError(
                f"{self.path}: rows {first} to {last} were asked for; the image has "
                f"{self.shape[1]}.",
                code="rows_out_of_range",
                hint="Rows are counted from 0; the second number is the row after the last one.",
            )
        with files.reading(self.path):
            self._check_size(last - first)
            band = self._stored(first, last)
            if self._source.palette:
                return io.apply_palette(band, self._source.palette)
            return np.require(band, self.dtype, ["C", "W"])

    def _check_size(self, rows: int) -> None:
        source = self._source
        shape = (source.shape[0], rows, *source.shape[2:])
        files.check_claim(self.path, shape, source.dtype.itemsize, source.present_bytes)

    def _stored(self, first: int, last: int) -> np.ndarray:
        """Return (C, rows, *S[1:]) as stored, from the blocks that contain the rows."""
        source, size = self._source, self._source.block_rows
        if size is None:
            return source.read_rows(first, last)
        numbers = range(first // size, -(-last // size))
        # Free memory before more is unpacked.
        self._blocks = {n: block for n, block in self._blocks.items() if n in numbers}
        band = np.empty((source.shape[0], last - first, *source.shape[2:]), source.dtype)
        for number in numbers:
            start, end = number * size, min((number + 1) * size, source.shape[1])
            if number not in self._blocks:
                self._check_size(end - start)
                self._blocks[number] = source.read_rows(start, end)
            above, below = max(first, start), min(last, end)
            rows = self._blocks[number][:, above - start : below - start]
            band[:, above - first : below - first] = rows
        return band


def open_bands(path: Path) -> Bands:
    """Open an image of any format that `io.read` supports, to read it in bands.

    `with open_bands(path) as bands: top = bands.read(0, 512)`. The whole image may be larger than
    the limit of `io.read`; a band may not. A TIFF that is compressed as a single strip, or that
    only other libraries can unpack, is held in memory.

    Raises:
        DataError: as for `io.read`.
    """
    opener = OPENERS.get(io.reader_of(path))
    with ExitStack() as closing:
        source = None
        if opener is not None:
            with files.reading(path):
                source = opener(path, closing)
        source = source or _hold(io.read(path))
        io.check_pixels(path, source.shape, source.dtype)
        return Bands(path, source, closing.pop_all())


def _hold(pixels: Pixels) -> RowReader:
    """Return the rows of an image that is in memory."""
    array = pixels.array
    return RowReader(
        shape=array.shape,
        dtype=array.dtype,
        read_rows=lambda first, last: array[:, first:last].copy(),
        spacing_mm=pixels.spacing_mm,
    )
