"""TIFF through tifffile, in its forms: 8 and 16 bits, float, several pages, several channels."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

from ushape.errors import DataError
from ushape.io import raster
from ushape.types import Palette, Pixels


def read(path: Path) -> Pixels:
    """The pixels as stored: (C, y, x), or (C, z, y, x) where the file has several planes.

    Raises:
        DataError: not a TIFF, truncated, or of a form that is not supported.
    """
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                raise DataError(f"{path}: a TIFF without images.", hint=raster.DAMAGED)
            series = file.series[0]
            if series.size > raster.MOST_PIXELS:
                raise DataError(
                    f"{path}: claims {series.size} values.", hint="Cut the image into parts."
                )
            array, axes, palette = series.asarray(), series.axes, _palette_of(file)
    except ValueError as error:
        if "imagecodecs" in str(error):
            return _read_compressed(path)
        raise DataError(f"{path}: cannot be read: {error}.", hint=raster.DAMAGED) from None
    except (
        tifffile.TiffFileError,
        OSError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        ZeroDivisionError,
        RuntimeError,
        MemoryError,
        struct.error,
    ) as error:
        raise DataError(f"{path}: cannot be read: {error}.", hint=raster.DAMAGED) from None
    return Pixels(array=_order_axes(path, array, axes), palette=palette)


def write(file: BinaryIO, array: np.ndarray, palette: Palette | None, suffix: str) -> None:
    """Writes (*S) grey values or palette indices, or (H, W, 3) colours; zlib-compressed."""
    if palette is not None:
        table = np.zeros((3, 256), dtype=np.uint16)
        table[:, : len(palette)] = 257 * np.asarray(palette, dtype=np.uint16).T
        indices = array.astype(np.uint8)
        tifffile.imwrite(file, indices, photometric="palette", colormap=table, compression="zlib")
        return
    is_colour = array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8
    photometric = "rgb" if is_colour else "minisblack"
    tifffile.imwrite(file, array, photometric=photometric, compression="zlib")


def _order_axes(path: Path, array: np.ndarray, axes: str) -> np.ndarray:
    """(C, *S) from tifffile's axes; channels are C (planes of colour) or S (samples)."""
    names = list(axes)
    for channel in ("S", "C"):
        if channel in names:
            array = np.moveaxis(array, names.index(channel), 0)
            names.remove(channel)
            break
    else:
        array = array[None]
    while len(names) > 2 and 1 in array.shape[1:]:
        place = array.shape[1:].index(1)
        array = array.squeeze(place + 1)
        names.pop(place)
    if len(names) not in (2, 3) or names[-2:] != ["Y", "X"]:
        raise DataError(
            f"{path}: axes {axes} of shape {array.shape}; images have y and x, volumes z before.",
            hint="Save each time point or position as a file of its own.",
        )
    if array.shape[0] == 4 and array.dtype == np.uint8 and axes.endswith("S"):
        array = array[:3]  # Transparency is no intensity.
    return np.ascontiguousarray(array)


def _read_compressed(path: Path) -> Pixels:
    """tifffile needs imagecodecs for some compressions that Pillow reads by itself (LZW)."""
    try:
        return raster.read(path)
    except DataError:
        raise DataError(
            f"{path}: its compression needs another package.",
            hint='pip install "ushape[tiff]" installs it.',
        ) from None


def _palette_of(file: tifffile.TiffFile) -> Palette | None:
    page = file.pages[0]
    table = getattr(page, "colormap", None)
    if table is None or getattr(page, "photometric", None) != tifffile.PHOTOMETRIC.PALETTE:
        return None
    levels = (np.asarray(table) // 257).T
    return tuple((int(r), int(g), int(b)) for r, g, b in levels)
