"""Image files of which a part is read, open, with the place of their rows: .npy and Zarr."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ushape.errors import DataError
from ushape.io import npy, ome_zarr, safety
from ushape.types import Palette, Pixels


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open file of one format, whose rows along the first axis of S can be had alone."""

    shape: tuple[int, ...]
    """(C, *S) as stored."""

    dtype: np.dtype
    """As stored."""

    read_rows: Callable[[int, int], np.ndarray]
    """From the first row, and the one after the last, to (C, rows, *S[1:]) as stored."""

    grain: int | None = None
    """Rows that are unpacked together, as those of a tile; None where any row can be had alone."""

    palette: Palette | None = None
    spacing_mm: tuple[float, ...] | None = None

    present_bytes: int = sys.maxsize
    """Of the file that a band is unpacked from; the largest number where that is checked."""


@dataclass(frozen=True, kw_only=True)
class Contiguous:
    """An array that lies in a file in one piece and unpacked."""

    start: int
    """Its first byte in the file."""

    shape: tuple[int, ...]
    """In the order of the file: the last axis is the one that changes fastest."""

    dtype: np.dtype
    """With the byte order of the file."""

    def check_present(self, path: Path, present_bytes: int) -> None:
        """Refuses a file that is too short for it.

        Raises:
            DataError: an axis of length 0; the file ends before the array does.
        """
        if min(self.shape) < 1:
            raise safety.damaged(path, f"claims the shape {self.shape}")
        wanted = math.prod(self.shape) * self.dtype.itemsize
        if self.start + wanted > present_bytes:
            present = max(present_bytes - self.start, 0)
            raise safety.damaged(path, f"cut off after {present} of {wanted} bytes")

    def read(self, file: Any, axis: int, first: int, last: int) -> np.ndarray:
        """The array from `first` to before `last` along an axis, in the order of this machine.

        Args:
            file: With `seek` and `readinto`.
        """
        band = np.empty((*self.shape[:axis], last - first, *self.shape[axis + 1 :]), self.dtype)
        row_bytes = math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize
        pieces = band.reshape(math.prod(self.shape[:axis]), -1).view(np.uint8)
        for number, piece in enumerate(pieces):
            file.seek(self.start + (number * self.shape[axis] + first) * row_bytes)
            if file.readinto(piece.data) < piece.nbytes:
                raise EOFError("the file ends too soon")
        return band.astype(self.dtype.newbyteorder("="), copy=False)


def held(pixels: Pixels) -> Source:
    """A whole image in memory."""
    array = pixels.array
    return Source(
        shape=array.shape,
        dtype=array.dtype,
        read_rows=lambda first, last: array[:, first:last].copy(),
        spacing_mm=pixels.spacing_mm,
    )


def open_npy(path: Path, closing: ExitStack) -> Source:
    """A .npy, in either order of its axes.

    Raises:
        DataError: as `npy.read`.
    """
    file = closing.enter_context(path.open("rb"))
    shape, is_fortran, dtype = _npy_header(path, file)
    present = path.stat().st_size
    order = shape[::-1] if is_fortran else shape
    stored = Contiguous(start=file.tell(), shape=order, dtype=dtype)
    stored.check_present(path, present)
    axis = 1 if len(shape) == 4 else 0

    def read_rows(first: int, last: int) -> np.ndarray:
        if is_fortran:
            band = stored.read(file, len(shape) - 1 - axis, first, last).T
        else:
            band = stored.read(file, axis, first, last)
        return npy.channels_first(path, band)

    whole = npy.channels_first(path, claimed(shape, dtype))
    return Source(shape=whole.shape, dtype=dtype, read_rows=read_rows, present_bytes=present)


def open_zarr(path: Path, closing: ExitStack) -> Source:
    """A Zarr array, or level 0 of an OME-Zarr image.

    Raises:
        DataError: as `ome_zarr.read`, but for the size of the whole.
    """
    zarr = safety.need("zarr", "zarr", path)
    attributes = ome_zarr.attributes_of(path)
    if "bioformats2raw.layout" in attributes:
        path = path / "0"
        attributes = ome_zarr.attributes_of(path)
    level, axes, scales = ome_zarr.level_0(path, attributes)
    names = ome_zarr.check_metadata(path, level, is_whole=False)
    version: Any = 3 if (level / "zarr.json").exists() else 2
    stored = zarr.open_array(store=str(level), mode="r", zarr_format=version)
    if not axes and names and len(set(names) & set("tczyx")) == stored.ndim:
        axes = [(name, None) for name in names]
    if axes:
        whole = ome_zarr.order_axes(path, claimed(stored.shape, stored.dtype), axes, scales)
        first_of_s = "z" if whole.array.ndim == 4 else "y"
        axis = [name.lower() for name, _ in axes].index(first_of_s)
    else:
        whole = Pixels(array=npy.channels_first(path, claimed(stored.shape, stored.dtype)))
        axis = 1 if stored.ndim == 4 else 0
    channels, _, *rest = whole.array.shape

    def read_rows(first: int, last: int) -> np.ndarray:
        band = np.asarray(stored[(slice(None),) * axis + (slice(first, last),)])
        if axes:
            band = ome_zarr.order_axes(path, band, axes, []).array
        else:
            band = npy.channels_first(path, band)
        return band.reshape(channels, last - first, *rest)

    return Source(
        shape=whole.array.shape,
        dtype=stored.dtype,
        read_rows=read_rows,
        grain=int(stored.chunks[axis]),
        spacing_mm=whole.spacing_mm,
    )


def claimed(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of any size that takes no memory: for what becomes of its axes."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis changes fastest, and type."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        found = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        found = np.lib.format.read_array_header_2_0(file)
    else:
        raise safety.damaged(path, f"of .npy version {version}")
    if found[2].kind not in "buif":
        raise DataError(
            f"{path}: holds values of type {found[2]}, not numbers.",
            hint="Save plain numbers: pickled objects are never loaded.",
        )
    return found
