"""Masks and probabilities larger than memory, written band by band along the first axis of S.

TIFF, Zarr and .npy are written as the bands come; for every other format the whole mask is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.io import itk
from ushape.io.streaming import sinks
from ushape.io.streaming.reader import open_bands
from ushape.io.streaming.sinks import Layout, Sink
from ushape.types import MaskEncoding

SINKS: dict[str, Callable[[Layout], AbstractContextManager[Sink]]] = {
    ".tif": sinks.tiff,
    ".tiff": sinks.tiff,
    ".zarr": sinks.zarr,
    ".npy": sinks.npy,
}
"""Formats whose masks need not be held, by suffix; `.ome` before it changes nothing."""

PROBABILITIES = (".tif", ".tiff", ".zarr")
"""Formats of probabilities in bands."""


class BandWriter:
    """A file that bands are written to, in order, from the first row (plane) on.

    Holds no more rows than are packed together. One thread may write at a time.
    """

    def __init__(self, layout: Layout, sink: Sink, to_rows: Callable[[np.ndarray], np.ndarray]):
        self._layout, self._sink, self._to_rows = layout, sink, to_rows
        self._block = np.empty((0, *layout.shape[1:]), layout.dtype)
        self._filled = self._written = 0

    def write(self, band: np.ndarray) -> None:
        """The next rows of the image.

        Shapes:
            band: (rows, *S[1:]) of a mask, (K, rows, *S[1:]) of probabilities.

        Raises:
            DataError: a band of another width, or of more rows than are left.
        """
        rows, shape = self._to_rows(band), self._layout.shape
        left = shape[0] - self._written
        if rows.shape[1:] != shape[1:] or len(rows) > left:
            raise DataError(
                f"{self._layout.path}: a band of shape {band.shape}, with {left} of {shape[0]} "
                f"rows of {shape[1:]} left.",
                hint="Bands have the width of the image, and follow each other.",
            )
        while len(rows):
            rows = rows[self._take(rows) :]

    def finish(self) -> None:
        """Refuses to call a file whole before its last row was written.

        Raises:
            DataError: rows are missing.
        """
        length = self._layout.shape[0]
        if self._written < length:
            raise DataError(
                f"{self._layout.path}: {self._written} of {length} rows written.",
                hint="Write all bands before the writer is closed.",
            )

    def _take(self, rows: np.ndarray) -> int:
        """How many rows went into the current block, which is stored once it is full."""
        if self._filled == 0:
            size = min(self._sink.grain, self._layout.shape[0] - self._written)
            self._block = np.empty((size, *self._layout.shape[1:]), self._layout.dtype)
        taken = min(len(rows), len(self._block) - self._filled)
        self._block[self._filled : self._filled + taken] = rows[:taken]
        self._filled += taken
        self._written += taken
        if self._filled == len(self._block):
            self._sink.put(self._block)
            self._filled = 0
        return taken


@contextmanager
def open_band_writer(
    path: Path, shape: Sequence[int], encoding: MaskEncoding, like: Path | None = None
) -> Iterator[BandWriter]:
    """A mask to be written in bands (rows, *S[1:]) of integer codes; whole or not at all.

    `with open_band_writer(path, (height, width), encoding) as writer: writer.write(band)`. The
    file gets its name when that block ends and all rows were written. After an exception, what
    was there before is still there.

    Args:
        path: Its suffix decides the format: any of `io.write_mask`, or .zarr.
        shape: (*S).
        encoding: How values are written. Zarr has no palettes: it gets the indices.
        like: The image that the mask belongs to. TIFF and Zarr get its spacing, other formats
            what `io.write_mask` gives them.

    Raises:
        DataError: a format that is not written; rows that are missing at the end.
    """
    suffix, is_colors = _plain_suffix(path), encoding.kind == "colors"
    if suffix not in SINKS and not io.is_writable(suffix):
        raise DataError(
            f"{path}: masks cannot be written as {suffix or 'files without suffix'}.",
            hint=f"Known formats: {', '.join([*io.WRITERS, *itk.WRITABLE, '.zarr'])}.",
        )
    dtype = np.dtype(encoding.dtype if encoding.kind == "values" else "uint8")
    if suffix in SINKS:
        layout = Layout(
            path=path,
            shape=(*shape, 3) if is_colors else tuple(shape),
            dtype=dtype,
            axes="ZYX"[-len(shape) :],
            spacing_mm=_spacing_of(like),
            palette=encoding.palette if encoding.kind == "palette" else None,
            is_rgb=is_colors,
        )
        sink = SINKS[suffix](layout)
    else:
        codes = np.dtype(np.int32) if is_colors else dtype
        layout = Layout(path=path, shape=tuple(shape), dtype=codes, axes="ZYX"[-len(shape) :])
        sink = sinks.held(layout, encoding, like)
    with sink as opened:
        is_split = is_colors and suffix in SINKS
        writer = BandWriter(layout, opened, _colors_of if is_split else np.asarray)
        yield writer
        writer.finish()


@contextmanager
def open_probability_writer(
    path: Path,
    shape: Sequence[int],
    dtype: io.ProbabilityType = "uint8",
    like: Path | None = None,
) -> Iterator[BandWriter]:
    """Probabilities to be written in bands (K, rows, *S[1:]), 0 to 1; whole or not at all.

    As uint8 the file holds round(255 p), as a float the nearest such number. `io.read` gives
    (K, *S) back. A TIFF has the classes as samples of each pixel, for they come together.

    Args:
        path: A file of PROBABILITIES.
        shape: (K, *S).
        like: The image that they belong to, for its spacing. A TIFF of float16 has only the
            tags of resolution, as OME knows no such numbers.

    Raises:
        DataError: another format; rows that are missing at the end.
    """
    suffix = _plain_suffix(path)
    if suffix not in PROBABILITIES:
        raise DataError(
            f"{path}: probabilities in bands cannot be written as {suffix or 'such files'}.",
            hint=f"Known formats: {', '.join(PROBABILITIES)}.",
        )
    classes, *space = shape
    layout = Layout(
        path=path,
        shape=(*space, classes),
        dtype=np.dtype(dtype),
        axes="ZYX"[-len(space) :],
        spacing_mm=_spacing_of(like),
    )
    with SINKS[suffix](layout) as opened:
        writer = BandWriter(
            layout, opened, lambda band: np.moveaxis(io.shares_as(band, dtype), 0, -1)
        )
        yield writer
        writer.finish()


def _plain_suffix(path: Path) -> str:
    return io.suffix_of(path).removeprefix(".ome")


def _spacing_of(like: Path | None) -> tuple[float, ...] | None:
    if like is None:
        return None
    with open_bands(like) as bands:
        return bands.spacing_mm


def _colors_of(codes: np.ndarray) -> np.ndarray:
    """(rows, *S[1:], 3) red, green, blue."""
    levels = [codes >> 16 & 255, codes >> 8 & 255, codes & 255]
    return np.stack(levels, axis=-1).astype(np.uint8)
