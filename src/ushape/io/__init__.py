"""Files: read images and masks, write predictions. A new format is a file and a line in READERS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ushape.errors import DataError
from ushape.io import raster, tiff
from ushape.io.atomic import replacing
from ushape.types import MaskEncoding, MaskPixels, Palette, Pixels

READERS: dict[str, Callable[[Path], Pixels]] = {
    ".png": raster.read,
    ".jpg": raster.read,
    ".jpeg": raster.read,
    ".bmp": raster.read,
    ".gif": raster.read,
    ".webp": raster.read,
    ".tif": tiff.read,
    ".tiff": tiff.read,
}

WRITERS: dict[str, Callable[[BinaryIO, np.ndarray, Palette | None, str], None]] = {
    ".png": raster.write,
    ".bmp": raster.write,
    ".gif": raster.write,
    ".tif": tiff.write,
    ".tiff": tiff.write,
}
"""Lossless formats, for masks."""


def read(path: Path) -> Pixels:
    """An image: (C, *S) as stored, palettes turned into their colours.

    Raises:
        DataError: an unknown format, or a damaged file.
    """
    pixels = _reader_of(path)(path)
    if pixels.palette is None:
        array = pixels.array
        return Pixels(array=array.astype(np.uint8) if array.dtype == bool else array)
    colours = np.asarray(pixels.palette, dtype=np.uint8)
    indices = pixels.array[0].astype(np.intp).clip(max=len(colours) - 1)
    return Pixels(array=np.ascontiguousarray(np.moveaxis(colours[indices], -1, 0)))


def read_mask(path: Path) -> MaskPixels:
    """A mask: one integer code per pixel, and how the file writes them.

    Raises:
        DataError: an unknown format, a damaged file, values that are no whole numbers.
    """
    pixels = _reader_of(path)(path)
    array, suffix = pixels.array, path.suffix.lower()
    suffix = suffix if suffix in WRITERS else ".png"
    if pixels.palette is not None:
        encoding = MaskEncoding(kind="palette", palette=pixels.palette, suffix=suffix)
        return MaskPixels(codes=array[0], encoding=encoding)
    if array.shape[0] == 3 and not _is_grey(array):
        if array.dtype != np.uint8:
            raise DataError(
                f"{path}: a mask of 3 channels of {array.dtype}.",
                hint="Masks hold one value per pixel, or 8-bit colours.",
            )
        red, green, blue = array.astype(np.int64)
        encoding = MaskEncoding(kind="colours", suffix=".png" if suffix == ".gif" else suffix)
        return MaskPixels(codes=red * 65536 + green * 256 + blue, encoding=encoding)
    if array.shape[0] not in (1, 3):
        raise DataError(
            f"{path}: a mask of {array.shape[0]} channels.",
            hint="Masks hold one value per pixel, or red, green and blue.",
        )
    codes = _whole_numbers(path, array[0])
    encoding = MaskEncoding(dtype=str(codes.dtype), suffix=suffix)
    return MaskPixels(
        codes=codes.astype(np.uint8) if codes.dtype == bool else codes, encoding=encoding
    )


def read_size(path: Path) -> tuple[int, ...]:
    """S of an image, without decoding it where Pillow can tell."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError:
        return tuple(read(path).array.shape[1:])


def write_mask(path: Path, codes: np.ndarray, encoding: MaskEncoding) -> None:
    """Writes codes (*S) as the user's masks are written; whole or not at all."""
    suffix = path.suffix.lower()
    if encoding.kind == "colours":
        array = np.stack([codes >> 16 & 255, codes >> 8 & 255, codes & 255], axis=-1)
        array = array.astype(np.uint8)
    else:
        array = codes.astype(encoding.dtype if encoding.kind == "values" else "uint8")
    with replacing(path) as file:
        WRITERS[suffix](file, array, encoding.palette, suffix)


def write_rgb(path: Path, picture: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 as PNG; whole or not at all."""
    with replacing(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def write_probabilities(path: Path, probabilities: np.ndarray, names: Sequence[str]) -> None:
    """Writes (K, *S) and the class names as .npz; whole or not at all."""
    with replacing(path) as file:
        np.savez_compressed(file, probabilities=probabilities, names=np.asarray(names))


def is_image(path: Path) -> bool:
    """A file that a reader is there for, and not a hidden one."""
    return path.suffix.lower() in READERS and not path.name.startswith(".")


def _reader_of(path: Path) -> Callable[[Path], Pixels]:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(
            f"{path}: no reader for {suffix or 'files without suffix'}.",
            hint=f"Known formats: {', '.join(READERS)}.",
        )
    if not path.exists():
        raise DataError(f"{path}: no such file.", hint="Check the spelling.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: empty, 0 bytes.", hint=raster.DAMAGED)
    return READERS[suffix]


def _is_grey(array: np.ndarray) -> bool:
    return bool((array[0] == array[1]).all() and (array[0] == array[2]).all())


def _whole_numbers(path: Path, values: np.ndarray) -> np.ndarray:
    """Integers; floats only where they are whole."""
    if values.dtype.kind in "uib":
        return values
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        odd = values[~np.isfinite(values) | (values != np.rint(values))]
        raise DataError(
            f"{path}: a mask with values that are no whole numbers, e.g. {odd.flat[0]:g} "
            f"({odd.size} pixels).",
            hint="Save the classes as integers; probabilities need a threshold first.",
        )
    return values.astype(np.int32)
