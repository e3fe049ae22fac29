"""Read and write images larger than memory, in bands along the first axis of S.

TIFF, .npy, Zarr and NIfTI files are read and written in parts (compressed NIfTI files are only
written in parts); files of every other format are kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from ushape import io
from ushape.errors import DataError
from ushape.formatting import size_text
from ushape.io import files, tiff
from ushape.io.float_range import limit_to_float32
from ushape.io.formats import FORMATS
from ushape.io.mask_encoding import encode_mask, stored_dtype
from ushape.io.sinks import RowLayout, RowSink
from ushape.types import Box, MaskEncoding, Pixels, RowReader, TiffMetadata, box_text


class Bands:
    """An open image that is read in bands along the first axis of S: of rows, or of planes.

    Besides the band that `read` returns, only the strips, tiles or chunks of that band are kept in
    memory, so that overlapping bands are unpacked only once. Not safe for reading by several
    threads at the same time.

    Attributes:
        shape: (C, *S), palettes converted to their colors.
        dtype: Type of the bands.
        spacing_mm: Distance between pixel centers along each axis of S, if the file contains it.
        tiff: Metadata of a TIFF about the position of its pixels.
        orientation: EXIF orientation of the file, 1 to 8; bands are those of the displayed image.
        finest_shape: S of the finest level of a slide, otherwise that of the image.
    """

    def __init__(self, path: Path, source: RowReader, closing: ExitStack):
        self.path, self._source, self._closing = path, source, closing
        self._blocks: dict[int, np.ndarray] = {}
        is_palette, spacing = source.palette is not None, source.spacing_mm
        self.shape = (3, *source.shape[1:]) if is_palette else source.shape
        is_8_bit = is_palette or source.dtype == bool
        self.dtype = np.dtype(np.uint8) if is_8_bit else source.dtype.newbyteorder("=")
        self.spacing_mm = io.plausible_spacing(spacing, len(source.shape) - 1)
        self.tiff, self.orientation = source.tiff, source.orientation
        self.finest_shape = source.finest_shape or self.shape[1:]

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
                f"{self.path}: rows {first} to {last} were requested, but the image has "
                f"{self.shape[1]}.",
                code="rows_out_of_range",
                hint="Rows are counted from 0; the second number is the row after the last one.",
            )
        with files.reading(self.path):
            self._check_size(last - first)
            return self._as_read(self._stored(first, last))

    @property
    def unit_px(self) -> int:
        """Number of values that are unpacked together to read one of them."""
        return self._source.unit_px

    def read_box(self, box: Box) -> np.ndarray:
        """Read a part of the image, with the values of `io.read`.

        Args:
            box: First pixel and the pixel after the last one, along each axis of S.

        Shapes:
            returns: (C, *box), a new array.

        Raises:
            DataError: if the part does not exist, the file is damaged there, or it is too large.
        """
        is_inside = len(box) == len(self.shape) - 1 and all(
            0 <= first < last <= size
            for (first, last), size in zip(box, self.shape[1:], strict=False)
        )
        if not is_inside:
            raise DataError(
                f"{self.path}: {box_text(box)} were requested, but the image has "
                f"{size_text(self.shape[1:])}.",
                code="rows_out_of_range",
                hint="Restore the file to its state when the data were listed.",
            )
        if self._source.read_box is None:
            (first, last), *others = box
            band = self.read(first, last)
            return np.ascontiguousarray(band[:, :, *(slice(*edge) for edge in others)])
        with files.reading(self.path):
            sizes = [last - first for first, last in box]
            self._check_size(sizes[0], *sizes[1:])
            return self._as_read(self._source.read_box(box))

    def read_mask_box(self, box: Box) -> np.ndarray:
        """Read a part of a mask as `read_box` does, but 1 bit per pixel as False and True.

        Raises:
            DataError: if `read_box` raises it.
        """
        part = self.read_box(box)
        return part > 0 if self._source.dtype == bool else part

    def _as_read(self, stored: np.ndarray) -> np.ndarray:
        """Return stored values (C, *box) as `io.read` returns them."""
        if self._source.palette:
            return io.apply_palette(stored, self._source.palette)
        stored = stored * np.uint8(255) if stored.dtype == bool else stored
        return np.require(limit_to_float32(stored), self.dtype, ["C", "W"])

    def _check_size(self, rows: int, *others: int) -> None:
        source = self._source
        shape = (source.shape[0], rows, *(others or source.shape[2:]))
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
    only other libraries can unpack, is kept in memory.

    Raises:
        DataError: as for `io.read`.
    """
    with ExitStack() as closing:
        source = _open_source(path, closing) or _hold(io.read(path))
        io.check_pixels(path, source.shape, source.dtype)
        return Bands(path, source, closing.pop_all())


def open_boxes(path: Path) -> Bands | None:
    """Open an image of which boxes can be read without the rest of the file.

    Returns:
        None for any other file; only its header is read.

    Raises:
        DataError: as for `io.read`, except for the size of the whole image.
    """
    with ExitStack() as closing:
        source = _open_source(path, closing)
        if source is None or source.read_box is None:
            return None
        io.check_pixels(path, source.shape, source.dtype)
        return Bands(path, source, closing.pop_all())


def _open_source(path: Path, closing: ExitStack) -> RowReader | None:
    """Open a file to read parts of it; None if it can only be read as a whole."""
    open_rows = io.format_of(path).open_rows
    if open_rows is None:
        return None
    with files.reading(path):
        return open_rows(path, closing)


def read_spacing(path: Path) -> tuple[float, ...] | None:
    """Return the pixel spacing in mm along each axis of S, if the file contains it.

    Pixels are decoded only if the header does not contain it and the file cannot be read in bands.

    Raises:
        DataError: as for `io.read`.
    """
    read_header = io.format_of(path).read_spacing
    if read_header is not None:
        return read_header(path)
    with open_bands(path) as bands:
        return bands.spacing_mm


def _hold(pixels: Pixels) -> RowReader:
    """Return a reader of the rows of an image that is in memory."""
    array = pixels.array
    return RowReader(
        shape=array.shape,
        dtype=array.dtype,
        read_rows=lambda first, last: array[:, first:last].copy(),
        spacing_mm=pixels.spacing_mm,
        tiff=pixels.tiff,
        orientation=pixels.orientation,
    )


TIFF = (".tif", ".tiff")

NIFTI = (".nii", ".nii.gz")


def is_written_in_bands(suffix: str) -> bool:
    """Whether any mask can be written in this format band by band.

    In NIfTI, only masks of NIfTI images can.
    """
    return _sink_of(suffix) is not None and suffix not in NIFTI


STREAMED_PROBABILITIES = (*TIFF, ".zarr")
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
                hint="Write bands with the width of the image, in order.",
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
                hint="Write all bands before closing the writer.",
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
    """Open a file to write a mask in bands (rows, *S[1:]) of integer codes, atomically.

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
    suffix = _plain_suffix(path)
    open_sink = _sink_of(suffix)
    if open_sink is None and not io.is_writable(suffix):
        raise io.unwritable(path, suffix, ".zarr")
    encoding = replace(encoding, white_is_zero=encoding.white_is_zero and suffix in TIFF)
    layout = RowLayout(
        path=path,
        shape=tuple(shape),
        dtype=stored_dtype(encoding),
        axes="ZYX"[-len(shape) :],
        encoding=encoding,
    )
    image = like.path if isinstance(like, Bands) else like
    has_position = image is not None and io.suffix_of(image) in NIFTI
    if open_sink is not None and (suffix not in NIFTI or has_position):
        channels = {"colors": (3,), "alpha": (4,)}.get(encoding.kind, ())
        whole = (*shape, *channels)
        place = {"spacing_mm": _spacing_of(like), "tiff": _metadata_of(like)}
        layout = replace(layout, shape=whole, **place)  # type: ignore[arg-type]
        layout = replace(layout, nifti=image if has_position else None)
        sink = open_sink(layout)
        to_rows: Callable[[np.ndarray], np.ndarray] = partial(_pixels_of, encoding)
    else:
        codes = np.dtype(np.int32) if encoding.kind == "colors" else layout.dtype
        layout = replace(layout, dtype=codes)
        sink = _collect_mask(layout, like if isinstance(like, Path) else None)
        to_rows = np.asarray
    with sink as opened:
        writer = BandWriter(layout, opened, to_rows)
        yield writer
        writer.finish()


@contextmanager
def open_probability_writer(
    path: Path,
    shape: Sequence[int],
    dtype: io.ProbabilityType = "uint8",
    like: Path | Bands | Pixels | None = None,
) -> Iterator[BandWriter]:
    """Open a file to write probabilities in bands (K, rows, *S[1:]), atomically.

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
        tiff=_metadata_of(like),
    )
    open_sink = _sink_of(suffix)
    assert open_sink is not None, "these formats are written in bands"
    with open_sink(layout) as opened:
        writer = BandWriter(
            layout,
            opened,
            lambda band: np.moveaxis(io.as_stored_probabilities(band, dtype), 0, -1),
        )
        yield writer
        writer.finish()


def _sink_of(suffix: str) -> Callable[[RowLayout], AbstractContextManager[RowSink]] | None:
    """Return the function that opens a file of a format to write it row by row, if there is one."""
    return FORMATS[suffix].open_sink if suffix in FORMATS else None


@contextmanager
def _collect_mask(layout: RowLayout, like: Path | None) -> Iterator[RowSink]:
    """Collect a mask in memory until it is complete, then write it with `io.write_mask`."""
    blocks: list[np.ndarray] = []
    yield RowSink(blocks.append, layout.shape[0])
    io.write_mask(layout.path, blocks[0], layout.encoding, like)


def _plain_suffix(path: Path) -> str:
    return io.suffix_of(path).removeprefix(".ome")


def _spacing_of(like: Path | Bands | Pixels | None) -> tuple[float, ...] | None:
    if not isinstance(like, Path):
        return like.spacing_mm if like is not None else None
    return read_spacing(like)


def _metadata_of(like: Path | Bands | Pixels | None) -> TiffMetadata | None:
    if not isinstance(like, Path):
        return like.tiff if like is not None else None
    if io.format_of(like).read is not tiff.read:
        return None
    with open_bands(like) as bands:
        return bands.tiff


def _pixels_of(encoding: MaskEncoding, codes: np.ndarray) -> np.ndarray:
    """Return the stored values (rows, *S[1:]), or colors (rows, *S[1:], C), of codes."""
    pixels = encode_mask(codes, encoding)
    return tiff.invert(pixels) if encoding.white_is_zero else pixels
