"""Rows of a TIFF, from the strips or tiles of its pages that they lie in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ushape.errors import DataError
from ushape.io import safety, tiff
from ushape.io.streaming.sources import Contiguous, Source, claimed

JPEG = (6, 7, 34892, 33007)
"""TIFF's compressions whose segments share tables."""


def open_tiff(path: Path, closing: ExitStack) -> Source | None:
    """The first series of a TIFF at its full size; None where that is only read whole.

    Raises:
        DataError: as `tiff.read`, but for the size of the whole.
    """
    # An OME-TIFF could name any other file as the place of its planes.
    file = closing.enter_context(tifffile.TiffFile(path, _multifile=False))
    series = _Series(path=path, file=file, stored=_check_tiff(path, file))
    if not series.is_separable():
        return None
    present = path.stat().st_size
    series.check_present(present)
    shape, names = series.ordered_shape()
    steps = tiff.steps_mm(file)
    return Source(
        shape=shape,
        dtype=series.stored.dtype,
        read_rows=lambda first, last: series.read_rows(first, last).reshape(
            shape[0], last - first, *shape[2:]
        ),
        grain=series.grain(),
        palette=tiff.palette_of(file),
        spacing_mm=tuple(steps[name] for name in names) if set(names) <= set(steps) else None,
        present_bytes=present,
    )


@dataclass(frozen=True)
class _Part:
    """Some rows of a TIFF series, in the form that `tiff.order_axes` takes."""

    array: np.ndarray
    axes: str
    shape: tuple[int, ...]
    keyframe: Any

    def asarray(self) -> np.ndarray:
        return self.array


@dataclass(frozen=True, kw_only=True)
class _Series:
    """A series of TIFF pages that are stacked along the first of its axes."""

    path: Path
    file: tifffile.TiffFile
    stored: Any
    """tifffile's TiffPageSeries."""

    @property
    def lead(self) -> int:
        """Axes along which whole pages are stacked."""
        return len(self.stored.shape) - len(self.stored.keyframe.shape)

    @property
    def axis(self) -> int:
        """Of the series, the one that becomes the first of S."""
        names, lengths = self.stored.axes, self.stored.shape
        channel = "S" if "S" in names else "C"
        depth = [
            place
            for place, (name, length) in enumerate(zip(names, lengths, strict=True))
            if name not in (channel, "Y", "X") and length > 1
        ]
        return depth[0] if depth else names.index("Y")

    @property
    def whole(self) -> Contiguous | None:
        """The series, where it lies in the file in one piece."""
        if self.stored.dataoffset is None:
            return None
        dtype = np.dtype(self.file.byteorder + self.stored.dtype.char)
        shape, start = self.stored.shape, self.stored.dataoffset
        return Contiguous(start=start, shape=shape, dtype=dtype)

    def is_separable(self) -> bool:
        """Rows can be read without the rest."""
        page, shape = self.stored.keyframe, self.stored.shape
        if self.stored.transform is not None or page.jpegheader is not None:
            return False
        if "Y" not in self.stored.axes:
            return False
        if self.whole is not None:
            return True
        is_stack = shape[self.lead :] == page.shape
        is_stack = is_stack and math.prod(shape[: self.lead]) == len(self.stored)
        is_row = self.axis < self.lead or self.stored.axes[self.axis] == "Y"
        return is_stack and is_row and _is_decodable(page)

    def check_present(self, present_bytes: int) -> None:
        """Refuses a file that is cut off."""
        if self.whole is not None:
            _check_count(self.path, self.stored.keyframe)
            self.whole.check_present(self.path, present_bytes)
            return
        for page in self.stored:
            _check_count(self.path, page)
            _check_segments(self.path, page, present_bytes)

    def grain(self) -> int | None:
        """Rows, or planes, that are unpacked together."""
        if self.whole is not None:
            return None
        return 1 if self.axis < self.lead else _rows_per_segment(self.stored.keyframe)

    def ordered_shape(self) -> tuple[tuple[int, ...], str]:
        """(C, *S), and the names of S."""
        axes, lengths = self.stored.axes, self.stored.shape
        # A single pixel stands for all: to leave out transparency copies the array.
        shape = [1 if name in "YX" else n for name, n in zip(axes, lengths, strict=True)]
        array, names = self._ordered(claimed(tuple(shape), self.stored.dtype))
        height, width = (lengths[axes.index(name)] for name in "YX")
        return (*array.shape[:-2], height, width), names

    def read_rows(self, first: int, last: int) -> np.ndarray:
        """(C, rows, *S[1:]), or without the rows where S is three axes and there is one."""
        if self.whole is not None:
            return self._ordered(self.whole.read(self.file.filehandle, self.axis, first, last))[0]
        shape = list(self.stored.shape)
        pages = np.arange(len(self.stored)).reshape(shape[: self.lead])
        shape[self.axis] = last - first
        if self.axis < self.lead:
            pages = pages.take(range(first, last), axis=self.axis)
            first, last = 0, self.stored.keyframe.imagelength
        rows = [_read_page(self.stored[int(page)], first, last) for page in pages.flat]
        return self._ordered(np.stack(rows).reshape(shape))[0]

    def _ordered(self, array: np.ndarray) -> tuple[np.ndarray, str]:
        stored = self.stored
        part = _Part(array, stored.axes, stored.shape, stored.keyframe)
        return tiff.order_axes(self.path, part)


def _check_tiff(path: Path, file: tifffile.TiffFile) -> Any:
    """The first series of a file that is whole as far as its pages go."""
    tiff.check_chain(path, file)
    tiff.check_description(path, file)
    if not file.series:
        raise safety.damaged(path, "a TIFF without images")
    series = file.series[0]
    is_part = file.is_ome and series.kind != "ome"
    if is_part or any(page is None for page in series):
        raise DataError(
            f"{path}: some of its planes lie in other files, or its OME-XML is damaged.",
            hint="Save it as one OME-TIFF file.",
        )
    if not series.shape or min(series.shape) < 1:
        raise safety.damaged(path, f"claims the shape {series.shape}")
    return series


def _contiguous_page(page: Any) -> Contiguous | None:
    """A TIFF page (samples, z, y, x, samples) that lies in its file as it is in memory."""
    if not page.is_final:
        return None
    key = page.keyframe
    dtype = np.dtype(key.parent.byteorder + key.dtype.char)
    return Contiguous(start=page.dataoffsets[0], shape=key.shaped, dtype=dtype)


def _check_count(path: Path, page: Any) -> None:
    """Refuses a TIFF page without all of its strips or tiles: tifffile would fill up with zeros."""
    wanted = math.prod(page.chunked)
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found < wanted:
        raise safety.damaged(path, f"{found} of {wanted} strips or tiles")


def _check_segments(path: Path, page: Any, present_bytes: int) -> None:
    """Refuses a TIFF page whose strips or tiles end behind the file, or claim too much."""
    if (whole := _contiguous_page(page)) is not None:
        whole.check_present(path, present_bytes)
        return
    safety.check_claim(path, page.chunks, page.keyframe.dtype.itemsize, present_bytes)
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    end = max(start + size for start, size in places)
    if end > present_bytes:
        raise safety.damaged(path, f"cut off after {present_bytes} of {end} bytes")


def _is_decodable(page: Any) -> bool:
    """tifffile can unpack the strips or tiles of a page, with the packages that are there."""
    if _contiguous_page(page) is not None:
        return True
    try:
        page.keyframe.init_decode()
        page.keyframe.decode(None, 0)
    except (ValueError, NotImplementedError):
        return False
    return True


def _rows_per_segment(page: Any) -> int | None:
    """Rows of a strip or tile of a TIFF page; None where any row can be read alone."""
    if _contiguous_page(page) is not None:
        return None
    return int(page.keyframe.tilelength if page.keyframe.is_tiled else page.keyframe.rowsperstrip)


def _read_page(page: Any, first: int, last: int) -> np.ndarray:
    """Rows of a TIFF page, from those of its strips or tiles that they lie in.

    Shapes:
        returns: (samples, z, last - first, x, samples), one of the samples being 1.
    """
    file, key = page.parent.filehandle, page.keyframe
    if (whole := _contiguous_page(page)) is not None:
        return whole.read(file, 2, first, last)
    separate, depth, _, width, samples = key.shaped
    band = np.empty((separate, depth, last - first, width, samples), key.dtype)
    for number in _segments_of(key, first, last):
        segment, (s, z, y, x, _), shape = _decode(page, number)
        above, below = max(y, first), min(y + shape[1], last)
        part = band[s, z : z + shape[0], above - first : below - first, x : x + shape[2]]
        # A segment that was never written is `nodata`, as tifffile reads it.
        part[...] = (
            key.nodata
            if segment is None
            else segment[: depth - z, above - y : below - y, : width - x]
        )
    return band


def _segments_of(key: Any, first: int, last: int) -> Iterator[int]:
    """Numbers of the strips or tiles that hold some of these rows."""
    separate, depth, length, width, _ = key.shaped
    if key.is_tiled:
        step, across = key.tilelength, -(-width // key.tilewidth)
        planes = separate * -(-depth // key.tiledepth)
    else:
        step, across, planes = key.rowsperstrip, 1, separate * depth
    down = -(-length // step)
    for plane in range(planes):
        start = (plane * down + first // step) * across
        yield from range(start, start + (-(-last // step) - first // step) * across)


def _decode(page: Any, number: int) -> tuple[np.ndarray | None, tuple[int, ...], tuple[int, ...]]:
    """A strip or tile unpacked, its place and its shape."""
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
