"""NumPy's .npy and .npz. Never pickled objects: those run code when they are loaded."""

from __future__ import annotations

import math
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ushape.errors import DataError
from ushape.io import safety
from ushape.types import Palette, Pixels

MAX_SAMPLES = 4
"""A last axis of up to this length holds channels, as in RGB."""


def read(path: Path) -> Pixels:
    """The array of a .npy: (C, y, x) or (C, z, y, x), by the rule of `channels_first`.

    Raises:
        DataError: not an .npy of numbers, truncated, too large, or of other than 2 to 4 axes.
    """
    with safety.reading(path), path.open("rb") as file:
        array = _load(path, file, path.stat().st_size)
        return Pixels(array=channels_first(path, array))


def read_npz(path: Path) -> Pixels:
    """The only array of a .npz, by the same rule as .npy.

    Raises:
        DataError: as for .npy; or several arrays.
    """
    with safety.reading(path), zipfile.ZipFile(path) as packed:
        names = [info.filename.removesuffix(".npy") for info in packed.infolist()]
        if len(names) != 1:
            raise DataError(
                f"{path}: holds {len(names)} arrays ({', '.join(names[:5])}).",
                hint="Save one array per file, with np.save.",
            )
        member = packed.infolist()[0]
        # NumPy writes these two only; the others can be made to unpack without a limit.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise safety.damaged(path, f"compressed by method {member.compress_type}")
        with packed.open(member) as file:
            array = _load(path, cast(BufferedIOBase, file), path.stat().st_size)
            return Pixels(array=channels_first(path, array))


def write(file: BinaryIO, array: np.ndarray, palette: Palette | None, suffix: str) -> None:
    """Writes (*S) gray values or palette indices, or (H, W, 3) colors, as .npy."""
    np.save(file, array, allow_pickle=False)


def channels_first(path: Path, array: np.ndarray) -> np.ndarray:
    """(C, *S) of an array whose axes have no names.

    (y, x) has one channel. Three axes are (y, x, C) where the last has a length of 1 to 4, else
    (z, y, x) of one channel. Four axes are (C, z, y, x).

    Raises:
        DataError: fewer than 2 axes, or more than 4.
    """
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3:
        is_color = array.shape[-1] <= MAX_SAMPLES
        return np.moveaxis(array, -1, 0) if is_color else array[None]
    if array.ndim == 4:
        return array
    raise DataError(
        f"{path}: an array of {array.ndim} axes, {array.shape}.",
        hint="Save (y, x), (y, x, channel), (z, y, x) or (channel, z, y, x).",
    )


def _load(path: Path, file: BufferedIOBase, present_bytes: int) -> np.ndarray:
    """The array of an open .npy, its header checked before memory is asked for."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise safety.damaged(path, f"of .npy version {version}")
    if dtype.kind not in "buif":
        raise DataError(
            f"{path}: holds values of type {dtype}, not numbers.",
            hint="Save plain numbers: pickled objects are never loaded.",
        )
    safety.check_claim(path, shape, dtype.itemsize, present_bytes)
    flat = np.empty(math.prod(shape), dtype)
    present = file.readinto(flat.view(np.uint8).data)
    if present < flat.nbytes:
        raise safety.damaged(path, f"cut off after {present} of {flat.nbytes} bytes")
    return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
