"""Write masks and probabilities larger than memory, in bands along the first axis of S.

TIFF, Zarr and .npy files are written band by band; masks of other formats are held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.io import itk
from ushape.io.streaming import Bands, open_bands, sinks
from ushape.io.streaming.sinks import RowLayout, RowSink
from ushape.types import MaskEncoding, Pixels

SINKS: dict[str, Callable[[RowLayout], AbstractContextManager[RowSink]]] = {
    ".tif": sinks.write_tiff,
    ".tiff": sinks.write_tiff,
    ".zarr": sinks.write_zarr,
    ".npy": sinks.write_npy,
}
"""Formats that are written band by band, by suffix without `.ome`."""

STREAMED_PROBABILITIES = (".tif", ".tiff", ".zarr")
"""Suffixes of the formats in which probabilities can be written in bands."""


class BandWriter:
    """A file to which bands are written in order, from the first row (plane) on.

    Holds no more rows in memory than are packed together. Not safe for writing by several threads
    at the same time.
    """

    def __init__(
        self, layout: RowLayout, sink: RowSink, to_rows: Callable[[np.ndarray], np.ndarray]
    ):
        self._layout, self._sink, self._to_rows = layout, sink, to_rows
        self._block = np.empty((0, *layout.shape[1:]), layout.dtype)
        self._filled = self._written = 0

    def write(self, band: np.ndarray) -> None:
        """Write the next rows of the image.

        Shapes:
            band: (rows, *S[1:]) of a mask, (K, rows, *S[1:]) of probabilities.

        Raises:
            DataError: if the band has another width, or more rows than are left.
        """
        rows, shape = self._to_rows(band), self._layout.shape
        left = shape[0] - self._written
        if rows.shape[1:] != shape[1:] or len(rows) > left:
            raise DataError(
                f"{self._layout.path}: a band of shape {band.shape} was written, but {left} of "
                f"{shape[0]} rows of shape {shape[1:]} are left.",
                code="band_mismatch",
                hint="Write bands of the image's width, in order.",
            )
        while len(rows):
            rows = rows[self._take(rows) :]

    def finish(self) -> None:
        """Check that the last row was written.

        Raises:
            DataError: if rows are missing.
        """
        length = self._layout.shape[0]
        if self._written < length:
            raise DataError(
                f"{self._layout.path}: only {self._written} of {length} rows were written.",
                code="bands_missing",
                hint="Write all bands before the writer is closed.",
            )

    def _take(self, rows: np.ndarray) -> int:
        """Copy rows to the current block, store it if full, and return how many were copied."""
        if self._filled == 0:
            size = min(self._sink.block_rows, self._layout.shape[0] - self._written)
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
    path: Path, shape: Sequence[int], encoding: MaskEncoding, like: Path | Bands | None = None
) -> Iterator[BandWriter]:
    """Open a file to write a mask in bands (rows, *S[1:]) of integer codes; whole or not at all.

    `with open_band_writer(path, (height, width), encoding) as writer: writer.write(band)`. The
    file gets its name when the block ends and all rows were written. After an exception, a former
    file is left as it was.

    Args:
        path: Output file; its suffix selects the format, any of `io.write_mask`, or .zarr.
        shape: (*S).
        encoding: How codes are represented in the file. Zarr has no palettes: it stores the
            indices.
        like: Image that the mask belongs to. TIFF and Zarr store its spacing, other formats what
            `io.write_mask` stores.

    Raises:
        DataError: if the format cannot be written, or rows are missing at the end.
    """
    suffix, is_colors = _plain_suffix(path), encoding.kind == "colors"
    if suffix not in SINKS and not io.is_writable(suffix):
        raise DataError(
            f"{path}: masks cannot be written as {suffix or 'a file without suffix'}.",
            code="unwritable_format",
            hint=f"Supported formats: {', '.join([*io.WRITERS, *itk.WRITABLE, '.zarr'])}.",
        )
    dtype = np.dtype(encoding.dtype if encoding.kind == "values" else "uint8")
    if suffix in SINKS:
        layout = RowLayout(
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
        layout = RowLayout(path=path, shape=tuple(shape), dtype=codes, axes="ZYX"[-len(shape) :])
        sink = sinks.hold_mask(layout, encoding, like if isinstance(like, Path) else None)
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
    like: Path | Bands | Pixels | None = None,
) -> Iterator[BandWriter]:
    """Open a file to write probabilities in bands (K, rows, *S[1:]); whole or not at all.

    As uint8 the file stores round(255 p), otherwise the nearest float. `io.read` returns (K, *S).
    In a TIFF the classes are the samples of a pixel, because they are written together.

    Args:
        path: Output file with a suffix of STREAMED_PROBABILITIES.
        shape: (K, *S).
        like: Image that the probabilities belong to, for its spacing. A TIFF of float16 has only
            the tags of resolution, because OME does not define this type.

    Raises:
        DataError: if the format is not supported, or rows are missing at the end.
    """
    suffix = _plain_suffix(path)
    if suffix not in STREAMED_PROBABILITIES:
        raise DataError(
            f"{path}: probabilities in bands cannot be written as "
            f"{suffix or 'a file without suffix'}.",
            code="unwritable_format",
            hint=f"Supported formats: {', '.join(STREAMED_PROBABILITIES)}.",
        )
    classes, *space = shape
    layout = RowLayout(
        path=path,
        shape=(*space, classes),
        dtype=np.dtype(dtype),
        axes="ZYX"[-len(space) :],
        spacing_mm=_spacing_of(like),
    )
    with SINKS[suffix](layout) as opened:
        writer = BandWriter(
            layout,
            opened,
            lambda band: np.moveaxis(io.as_stored_probabilities(band, dtype), 0, -1),
        )
        yield writer
        writer.finish()


def _plain_suffix(path: Path) -> str:
    return io.suffix_of(path).removeprefix(".ome")


def _spacing_of(like: Path | Bands | Pixels | None) -> tuple[float, ...] | None:
    if not isinstance(like, Path):
        return like.spacing_mm if like is not None else None
    with open_bands(like) as bands:
        return bands.spacing_mm


def _colors_of(codes: np.ndarray) -> np.ndarray:
    """Return the colors (rows, *S[1:], 3) of color codes."""
    levels = [codes >> 16 & 255, codes >> 8 & 255, codes & 255]
    return np.stack(levels, axis=-1).astype(np.uint8)
