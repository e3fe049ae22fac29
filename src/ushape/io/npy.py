"""NumPy's .npy and .npz files. Pickled objects are never loaded: loading them can run any code."""

from __future__ import annotations

import math
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ushape.errors import DataError
from ushape.io import files
from ushape.types import Box, MaskEncoding, Pixels, RowReader, TiffMetadata

MAX_CHANNELS = 4
"""Longest last axis of a three-axis array that is read as channels, as in RGB."""


def read(path: Path) -> Pixels:
    """Read the array of a .npy: (C, y, x) or (C, z, y, x), arranged by `channels_first`.

    Raises:
        DataError: if the file is not a .npy of numbers, is truncated or too large, or if the array
            does not have 2 to 4 axes.
    """
    with files.reading(path), path.open("rb") as file:
        array = _load(path, file, path.stat().st_size)
        return Pixels(array=channels_first(path, array))


def read_npz(path: Path) -> Pixels:
    """Read the only array of a .npz, arranged as that of a .npy.

    Raises:
        DataError: as for `read`, or if the file contains several arrays.
    """
    with files.reading(path), zipfile.ZipFile(path) as packed:
        names = [info.filename.removesuffix(".npy") for info in packed.infolist()]
        if len(names) != 1:
            raise DataError(
                f"{path}: the file contains {len(names)} arrays ({', '.join(names[:5])}).",
                code="several_arrays",
                hint="Save one array per file, with numpy.save.",
            )
        member = packed.infolist()[0]
        # NumPy writes only these two; the other methods can unpack to an unlimited size.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise files.damaged(path, f"compression method {member.compress_type} is not supported")
        with packed.open(member) as file:
            array = _load(path, cast(BufferedIOBase, file), path.stat().st_size)
            return Pixels(array=channels_first(path, array))


def read_size(path: Path) -> tuple[int, ...]:
    """Return S of the array of a .npy, from its header.

    Raises:
        DataError: as for `read`, except for the size.
    """
    with files.reading(path), path.open("rb") as file:
        shape, _, dtype = _read_header(path, file)
        return channels_first(path, placeholder(shape, dtype)).shape[1:]


def read_npz_size(path: Path) -> tuple[int, ...]:
    """Return S of the first array of a .npz, from its header.

    Raises:
        DataError: as for `read_npz`, except for the size.
    """
    with (
        files.reading(path),
        zipfile.ZipFile(path) as packed,
        packed.open(packed.infolist()[0]) as file,
    ):
        shape, _, dtype = _read_header(path, cast(BufferedIOBase, file))
        return channels_first(path, placeholder(shape, dtype)).shape[1:]


def open_rows(path: Path) -> RowReader:
    """Open a .npy to read parts of it; the array may be stored in C or Fortran order.

    The file is mapped into memory for each read and unmapped afterwards, so that the pages that
    were read do not add up to the size of the file.

    Raises:
        DataError: as for `read`, except for the size of the whole array.
    """
    with path.open("rb") as file:
        shape, _, dtype = _read_header(path, file)
    if min(shape, default=0) < 1:
        raise files.damaged(path, f"according to the header, the shape is {shape}")
    axis = 1 if len(shape) == 4 else 0
    is_color = len(shape) == 3 and shape[-1] <= MAX_CHANNELS
    whole = channels_first(path, placeholder(shape, dtype))

    def read_rows(first: int, last: int) -> np.ndarray:
        return read_box(((first, last),))

    def read_box(box: Box) -> np.ndarray:
        stored = np.lib.format.open_memmap(path, mode="r")
        part = stored[(slice(None),) * axis + tuple(slice(*edge) for edge in box)]
        part = np.array(part, stored.dtype.newbyteorder("="))
        # A narrow box of a volume must not be taken for colors.
        return np.moveaxis(part, -1, 0) if is_color else part.reshape(-1, *part.shape[axis:])

    np.lib.format.open_memmap(path, mode="r")  # Raises ValueError if the file is cut off.
    return RowReader(shape=whole.shape, dtype=dtype, read_rows=read_rows, read_box=read_box)


def write(
    file: BinaryIO, array: np.ndarray, encoding: MaskEncoding, like: TiffMetadata | None
) -> None:
    """Write (*S) gray values or palette indices, or (y, x, C) colors, as .npy."""
    np.save(file, array, allow_pickle=False)


def channels_first(path: Path, array: np.ndarray) -> np.ndarray:
    """Return an array without axis names as (C, *S).

    Two axes are (y, x). Three axes are (y, x, C) if the last one has a length of 1 to 4, otherwise
    (z, y, x). Four axes are (C, z, y, x).

    Raises:
        DataError: if the array has fewer than 2 or more than 4 axes.
    """
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3:
        is_color = array.shape[-1] <= MAX_CHANNELS
        return np.moveaxis(array, -1, 0) if is_color else array[None]
    if array.ndim == 4:
        return array
    raise DataError(
        f"{path}: the array has {array.ndim} axes (shape {array.shape}).",
        code="unsupported_axes",
        hint="Save it as (y, x), (y, x, channel), (z, y, x) or (channel, z, y, x).",
    )


def placeholder(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return a read-only array of any shape that takes no memory, to find out how axes move."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _load(path: Path, file: BufferedIOBase, present_bytes: int) -> np.ndarray:
    """Load the array of an open .npy after checking its header."""
    shape, is_fortran, dtype = _read_header(path, file)
    files.check_claim(path, shape, dtype.itemsize, present_bytes)
    flat = np.empty(math.prod(shape), dtype)
    present = file.readinto(flat.view(np.uint8).data)
    if present < flat.nbytes:
        raise files.damaged(path, f"the file is cut off after {present} of {flat.nbytes} bytes")
    return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)


def _read_header(
    path: Path, file: BufferedIOBase | BinaryIO
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether the first axis varies fastest, and type."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        header = np.lib.format.read_array_header_2_0(file)
    else:
        raise files.damaged(path, f".npy version {version} is not supported")
    if header[2].kind not in "buif":
        raise DataError(
            f"{path}: the values are of type {header[2]}, not numbers.",
            code="unsupported_values",
            hint="Save plain numbers; pickled objects are never loaded.",
        )
    return header
