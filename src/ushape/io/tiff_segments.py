"""Read rows of a TIFF from the strips or tiles that contain them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ushape.io import files, tiff
from ushape.io.npy import placeholder
from ushape.types import Box, RowReader

JPEG = (6, 7, 34892, 33007)
"""TIFF's compressions whose segments share tables."""


def open_rows(path: Path, closing: ExitStack) -> RowReader | None:
    """Open the first series of a TIFF at its full resolution, to read parts of it.

    Args:
        closing: Closes the file.

    Returns:
        None if the series can only be read as a whole.

    Raises:
        DataError: as for `tiff.read`, except for the size of the whole image.
    """
    tiff.check_codecs(path)
    # An OME-TIFF could name any other file as the place of its planes.
    file = closing.enter_context(tifffile.TiffFile(path, _multifile=False))
    series = _Series(path=path, file=file, stored=tiff.first_series(path, file))
    if min(series.stored.shape, default=0) < 1:
        raise files.damaged(path, f"according to the header, the shape is {series.stored.shape}")
    if not series.is_separable():
        return None
    present = path.stat().st_size
    series.check_present(present)
    shape, names = series.ordered_shape()
    steps = tiff.steps_mm(file)
    return RowReader(
        shape=shape,
        dtype=series.stored.dtype,
        read_rows=lambda first, last: series.read_rows(first, last).reshape(
            shape[0], last - first, *shape[2:]
        ),
        block_rows=series.block_rows(),
        read_box=lambda box: series.read_box(box).reshape(
            shape[0], *(last - first for first, last in box)
        ),
        unit_px=series.unit_px(),
        palette=tiff.palette_of(file),
        spacing_mm=tuple(steps[name] for name in names) if set(names) <= set(steps) else None,
        tiff=tiff.metadata_of(file, series.stored.axes),
        present_bytes=present,
    )


@dataclass(frozen=True)
class _Part:
    """Some rows of a TIFF series, in the form that `tiff.arrange_series` takes."""

    array: np.ndarray
    axes: str
    shape: tuple[int, ...]
    keyframe: Any

    def asarray(self) -> np.ndarray:
        return self.array


@dataclass(frozen=True, kw_only=True)
class _Series:
    """A series of TIFF pages that are stacked along its first axes."""

    path: Path
    file: tifffile.TiffFile
    stored: Any
    """TiffPageSeries of tifffile."""

    @property
    def lead(self) -> int:
        """Number of axes along which whole pages are stacked."""
        return len(self.stored.shape) - len(self.stored.keyframe.shape)

    @property
    def axis(self) -> int:
        """Axis of the series that becomes the first axis of S."""
        names, lengths = self.stored.axes, self.stored.shape
        channel = "S" if "S" in names else "C"
        depth = [
            place
            for place, (name, length) in enumerate(zip(names, lengths, strict=True))
            if name not in (channel, "Y", "X") and length > 1
        ]
        return depth[0] if depth else names.index("Y")

    @property
    def contiguous(self) -> _Contiguous | None:
        """The series, if it is stored uncompressed in one piece."""
        if self.stored.dataoffset is None:
            return None
        dtype = np.dtype(self.file.byteorder + self.stored.dtype.char)
        return _Contiguous(self.path, self.stored.dataoffset, self.stored.shape, dtype)

    def is_separable(self) -> bool:
        """Whether rows can be read without the rest of the image."""
        page, shape = self.stored.keyframe, self.stored.shape
        if self.stored.transform is not None or page.jpegheader is not None:
            return False
        if "Y" not in self.stored.axes or tiff.orientation_of(page) != 1:
            return False
        if self.contiguous is not None:
            return True
        is_stack = shape[self.lead :] == page.shape
        is_stack = is_stack and math.prod(shape[: self.lead]) == len(self.stored)
        is_row = self.axis < self.lead or self.stored.axes[self.axis] == "Y"
        return is_stack and is_row and _is_decodable(page)

    def check_present(self, present_bytes: int) -> None:
        """Raise DataError if the file is cut off."""
        if self.contiguous is not None:
            tiff.check_segment_count(self.path, self.stored.keyframe)
            self.contiguous.check_present(present_bytes)
            return
        for page in self.stored:
            tiff.check_segment_count(self.path, page)
            _check_segments(self.path, page, present_bytes)

    def block_rows(self) -> int | None:
        """Return the number of rows, or planes, that are unpacked together."""
        if self.contiguous is not None:
            return None
        return 1 if self.axis < self.lead else _rows_per_segment(self.stored.keyframe)

    def unit_px(self) -> int:
        """Return the number of values in a strip or tile; 1 if any value can be read alone."""
        if self.contiguous is not None or all(map(_contiguous_page, self.stored)):
            return 1
        return math.prod(self.stored.keyframe.chunks)

    def ordered_shape(self) -> tuple[tuple[int, ...], str]:
        """Return (C, *S) and the names of S."""
        axes, lengths = self.stored.axes, self.stored.shape
        # A single pixel represents all: dropping transparency copies the array.
        shape = [1 if name in "YX" else n for name, n in zip(axes, lengths, strict=True)]
        array, names, _ = self._ordered(placeholder(tuple(shape), self.stored.dtype))
        height, width = (lengths[axes.index(name)] for name in "YX")
        return (*array.shape[:-2], height, width), names

    def read_rows(self, first: int, last: int) -> np.ndarray:
        """Return (C, rows, *S[1:]); an axis of length 1 may be missing."""
        if self.contiguous is not None:
            return self._ordered(self.contiguous.read(self.axis, first, last))[0]
        shape = list(self.stored.shape)
        pages = np.arange(len(self.stored)).reshape(shape[: self.lead])
        shape[self.axis] = last - first
        if self.axis < self.lead:
            pages = pages.take(range(first, last), axis=self.axis)
            first, last = 0, self.stored.keyframe.imagelength
        rows = [_read_page(self.stored[int(page)], first, last) for page in pages.flat]
        return self._ordered(np.stack(rows).reshape(shape))[0]

    def read_box(self, box: Box) -> np.ndarray:
        """Return a box of S, (C, *box); an axis of length 1 may be missing."""
        names = self.stored.axes
        places = [*([self.axis] if len(box) == 3 else []), names.index("Y"), names.index("X")]
        edges = dict(zip(places, box, strict=True))
        if self.contiguous is not None:
            return self._ordered(self.contiguous.read_box(edges))[0]
        shape = list(self.stored.shape)
        pages = np.arange(len(self.stored)).reshape(shape[: self.lead])
        for place, (first, last) in edges.items():
            shape[place] = last - first
            if place < self.lead:
                pages = pages.take(range(first, last), axis=place)
        rows = [_read_page(self.stored[int(page)], *box[-2], box[-1]) for page in pages.flat]
        return self._ordered(np.stack(rows).reshape(shape))[0]

    def _ordered(self, array: np.ndarray) -> tuple[np.ndarray, str, np.ndarray | None]:
        stored = self.stored
        part = _Part(array, stored.axes, stored.shape, stored.keyframe)
        return tiff.arrange_series(self.path, part)


@dataclass(frozen=True)
class _Contiguous:
    """An array that is stored uncompressed in one piece of a file."""

    path: Path
    start: int
    """Offset of its first byte."""

    shape: tuple[int, ...]
    dtype: np.dtype
    """Type with the byte order of the file."""

    def check_present(self, present_bytes: int) -> None:
        """Raise DataError if the file ends before the array."""
        wanted = math.prod(self.shape) * self.dtype.itemsize
        if min(self.shape) < 1 or self.start + wanted > present_bytes:
            present = max(present_bytes - self.start, 0)
            raise files.damaged(self.path, f"the file is cut off after {present} of {wanted} bytes")

    def read(self, axis: int, first: int, last: int) -> np.ndarray:
        """Return the array from `first` to before `last` along an axis, in native byte order.

        The file is mapped for this read only, so that the pages that were read do not add up to
        its size.
        """
        return self.read_box({axis: (first, last)})

    def read_box(self, edges: Mapping[int, tuple[int, int]]) -> np.ndarray:
        """Return the part between two edges along some axes, as `read` does along one."""
        stored = np.memmap(self.path, self.dtype, "r", self.start, self.shape)
        part = tuple(slice(*edges.get(axis, (None,))) for axis in range(len(self.shape)))
        return np.array(stored[part], self.dtype.newbyteorder("="))


def _contiguous_page(page: Any) -> _Contiguous | None:
    """Return a TIFF page (samples, z, y, x, samples) that is stored uncompressed in one piece."""
    if not page.is_final:
        return None
    key = page.keyframe
    dtype = np.dtype(key.parent.byteorder + key.dtype.char)
    return _Contiguous(Path(key.parent.filehandle.path), page.dataoffsets[0], key.shaped, dtype)


def _check_segments(path: Path, page: Any, present_bytes: int) -> None:
    """Raise DataError if strips or tiles end beyond the file, or claim too large a size."""
    if (whole := _contiguous_page(page)) is not None:
        whole.check_present(present_bytes)
        return
    files.check_claim(path, page.chunks, page.keyframe.dtype.itemsize, present_bytes)
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    end = max(start + size for start, size in places)
    if end > present_bytes:
        raise files.damaged(path, f"the file is cut off after {present_bytes} of {end} bytes")


def _is_decodable(page: Any) -> bool:
    """Whether tifffile can unpack the strips or tiles of a page with the installed packages."""
    if _contiguous_page(page) is not None:
        return True
    try:
        page.keyframe.init_decode()
        page.keyframe.decode(None, 0)
    except (ValueError, NotImplementedError):
        return False
    return True


def _rows_per_segment(page: Any) -> int | None:
    """Return the rows of a strip or tile of a page; None if any row can be read alone."""
    if _contiguous_page(page) is not None:
        return None
    return int(page.keyframe.tilelength if page.keyframe.is_tiled else page.keyframe.rowsperstrip)


def _read_page(
    page: Any, first: int, last: int, columns: tuple[int, int] | None = None
) -> np.ndarray:
    """Read rows of a page from the strips or tiles that contain them.

    Args:
        columns: First column and the one after the last; None for all.

    Shapes:
        returns: (samples, z, last - first, columns, samples), one of the two samples axes being 1.
    """
    key = page.keyframe
    separate, depth, _, width, samples = key.shaped
    left, right = columns or (0, width)
    if (whole := _contiguous_page(page)) is not None:
        return whole.read_box({2: (first, last), 3: (left, right)})
    band = np.empty((separate, depth, last - first, right - left, samples), key.dtype)
    for number in _segments_of(key, (first, last), (left, right)):
        segment, (s, z, y, x, _), shape = _decode(page, number)
        above, below = max(y, first), min(y + shape[1], last)
        start, end = max(x, left), min(x + shape[2], right)
        part = band[s, z : z + shape[0], above - first : below - first, start - left : end - left]
        # A segment that was never written has the value `nodata`, as in tifffile.
        part[...] = (
            key.nodata
            if segment is None
            else segment[: depth - z, above - y : below - y, start - x : end - x]
        )
    return band


def _segments_of(key: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[int]:
    """Yield the numbers of the strips or tiles that contain some of these rows and columns."""
    separate, depth, length, width, _ = key.shaped
    (first, last), (left, right) = rows, columns
    if key.is_tiled:
        step, wide = key.tilelength, key.tilewidth
        planes = separate * -(-depth // key.tiledepth)
    else:
        step, wide, planes = key.rowsperstrip, width, separate * depth
    down, across = -(-length // step), -(-width // wide)
    for plane in range(planes):
        for row in range(first // step, -(-last // step)):
            start = (plane * down + row) * across
            yield from range(start + left // wide, start + -(-right // wide))


def _decode(page: Any, number: int) -> tuple[np.ndarray | None, tuple[int, ...], tuple[int, ...]]:
    """Return an unpacked strip or tile, its position and its shape."""
    key, file = page.keyframe, page.parent.filehandle
    tables = {}
    if key.compression in JPEG:
        tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
    start, size = page.dataoffsets[number], page.databytecounts[number]
    packed = None
    if start and size:
        file.seek(start)
        packed = file.read(size)
    found: tuple[np.ndarray | None, tuple[int, ...], tuple[int, ...]]
    found = key.decode(packed, number, **tables)
    return found
