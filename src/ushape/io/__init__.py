"""Files: read images and masks, write predictions. A new format is a file and a line in READERS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from ushape.errors import DataError
from ushape.io import dicom, itk, npy, ome_zarr, raster, safety, tiff
from ushape.io.files import replacing
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
    ".ome.tif": tiff.read,
    ".ome.tiff": tiff.read,
    ".nii": itk.read,
    ".nii.gz": itk.read,
    ".nrrd": itk.read,
    ".mha": itk.read,
    ".mhd": itk.read,
    ".dcm": dicom.read,
    ".npy": npy.read,
    ".npz": npy.read_npz,
    ".zarr": ome_zarr.read,
    ".ome.zarr": ome_zarr.read,
}
"""By whole suffix. Each raises DataError, and nothing else, on a damaged or hostile file."""

WRITERS: dict[str, Callable[[BinaryIO, np.ndarray, Palette | None, str], None]] = {
    ".png": raster.write,
    ".bmp": raster.write,
    ".gif": raster.write,
    ".tif": tiff.write,
    ".tiff": tiff.write,
    ".npy": npy.write,
}
"""Lossless formats, for masks; beside them those of itk.WRITABLE."""

ProbabilityType = Literal["uint8", "float16", "float32"]
"""How probabilities are stored; uint8 holds round(255 p)."""

TURNED_TAG, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF's orientation, and its values that exchange height and width."""


def read(path: Path) -> Pixels:
    """An image: (C, *S) as stored, palettes turned into their colors.

    A folder that is no Zarr is read as a series of DICOM slices.

    Raises:
        DataError: an unknown format, or a damaged file.
    """
    pixels = _read(path)
    if pixels.palette is None:
        array = pixels.array
        return replace(pixels, array=array.astype(np.uint8) if array.dtype == bool else array)
    colors = np.asarray(pixels.palette, dtype=np.uint8)
    indices = pixels.array[0].astype(np.intp).clip(0, len(colors) - 1)
    array = np.ascontiguousarray(np.moveaxis(colors[indices], -1, 0))
    return replace(pixels, array=array, palette=None)


def read_mask(path: Path) -> MaskPixels:
    """A mask: one integer code per pixel, and how the file writes them.

    Where the format cannot be written, its encoding names one that can: .png, .tif for volumes
    and for values beyond 16 bits, .nii.gz for DICOM volumes.

    Raises:
        DataError: an unknown format, a damaged file, values that are no whole numbers.
    """
    pixels = _read(path)
    array = pixels.array
    suffix = _writable_suffix(suffix_of(path), array)
    if pixels.palette is not None:
        encoding = MaskEncoding(kind="palette", palette=pixels.palette, suffix=suffix)
        return MaskPixels(codes=array[0], encoding=encoding)
    if array.shape[0] == 3 and not _is_gray(array):
        if array.dtype != np.uint8:
            raise DataError(
                f"{path}: a mask of 3 channels of {array.dtype}.",
                hint="Masks hold one value per pixel, or 8-bit colors.",
            )
        red, green, blue = array.astype(np.int64)
        can_color = suffix in WRITERS and suffix != ".gif"
        encoding = MaskEncoding(kind="colors", suffix=suffix if can_color else ".png")
        return MaskPixels(codes=red * 65536 + green * 256 + blue, encoding=encoding)
    if array.shape[0] not in (1, 3):
        raise DataError(
            f"{path}: a mask of {array.shape[0]} channels.",
            hint="Masks hold one value per pixel, or red, green and blue.",
        )
    codes = _whole_numbers(path, array[0])
    codes = codes.astype(np.uint8) if codes.dtype == bool else codes
    return MaskPixels(codes=codes, encoding=MaskEncoding(dtype=str(codes.dtype), suffix=suffix))


def read_size(path: Path) -> tuple[int, ...]:
    """S of an image, without decoding it where Pillow can tell.

    Raises:
        DataError: as `read`.
    """
    if READERS.get(suffix_of(path)) is raster.read:
        try:
            with Image.open(path) as image:
                is_turned = image.getexif().get(TURNED_TAG) in TURNED
                size = image.height, image.width
                return size[::-1] if is_turned else size
        except Exception:
            pass  # The reader says what is wrong.
    return tuple(read(path).array.shape[1:])


def write_mask(
    path: Path, codes: np.ndarray, encoding: MaskEncoding, like: Path | None = None
) -> None:
    """Writes codes (*S) as the user's masks are written; whole or not at all.

    Args:
        path: Its suffix decides the format: one of WRITERS or itk.WRITABLE.
        codes: (*S), integer.
        encoding: How values are written.
        like: The image that the mask belongs to. NIfTI, NRRD and MetaImage masks get its
            spacing, origin and direction, and its axes of length 1, where it has them.

    Raises:
        DataError: the mask has another shape than the image; a format that is not written.
    """
    suffix = suffix_of(path).removeprefix(".ome")
    if encoding.kind == "colors":
        array = np.stack([codes >> 16 & 255, codes >> 8 & 255, codes & 255], axis=-1)
        array = array.astype(np.uint8)
    else:
        array = codes.astype(encoding.dtype if encoding.kind == "values" else "uint8")
    if suffix in itk.WRITABLE:
        grid = read_grid(like) if like is not None else None
        with replacing(path) as file:
            return itk.write(path, file, array, grid)
    if suffix not in WRITERS:
        raise DataError(
            f"{path}: masks cannot be written as {suffix or 'files without suffix'}.",
            hint=f"Known formats: {', '.join([*WRITERS, *itk.WRITABLE])}.",
        )
    with replacing(path) as file:
        WRITERS[suffix](file, array, encoding.palette, suffix)
    return None


def read_grid(path: Path) -> itk.Grid | None:
    """Where an image lies in the patient, from its header; None where its format cannot say.

    Raises:
        DataError: a damaged file.
    """
    if suffix_of(path) in itk.ITK_READERS:
        return itk.read_grid(path)
    if is_dicom(path):
        return dicom.read_grid(path)
    return None


def write_rgb(path: Path, picture: np.ndarray) -> None:
    """Writes (H, W, 3) or gray (H, W) uint8 as PNG; whole or not at all."""
    with replacing(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def write_probabilities(
    path: Path,
    probabilities: np.ndarray,
    names: Sequence[str],
    dtype: ProbabilityType = "float32",
) -> None:
    """Writes (K, *S) and the class names as .npz; whole or not at all."""
    with replacing(path) as file:
        shares = shares_as(probabilities, dtype)
        np.savez_compressed(file, probabilities=shares, names=np.asarray(names))


def shares_as(probabilities: np.ndarray, dtype: ProbabilityType) -> np.ndarray:
    """Probabilities as numbers of this type: round(255 p), or the nearest float."""
    if dtype == "uint8":
        return np.rint(probabilities * np.float32(255)).astype(np.uint8)
    return probabilities.astype(dtype, copy=False)


def is_image(path: Path) -> bool:
    """A name that a reader is there for, and not a hidden one. A `.zarr` folder is an image."""
    return suffix_of(path) in READERS and not path.name.startswith(".")


def is_dicom(path: Path) -> bool:
    """A .dcm file, or a folder that is read as a series of slices."""
    suffix = suffix_of(path)
    return suffix == ".dcm" or (suffix not in READERS and path.is_dir())


def is_read_in_bands(path: Path) -> bool:
    """A format of which parts are read without the whole: TIFF, NumPy, Zarr."""
    return READERS.get(suffix_of(path)) in (tiff.read, npy.read, ome_zarr.read)


def is_writable(suffix: str) -> bool:
    """Masks can be written in this format."""
    return suffix in WRITERS or suffix in itk.WRITABLE


def suffix_of(path: Path) -> str:
    """The whole suffix in lower case with its dot: `.nii.gz` and `.ome.tif` are one."""
    name = path.name.lower()
    double = (suffix for suffix in READERS if suffix.count(".") == 2 and name.endswith(suffix))
    return next(double, path.suffix.lower())


def stem_of(path: Path) -> str:
    """The file's name without its whole suffix: `a.1` for `a.1.nii.gz`, `x` for `x.png`."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def _read(path: Path) -> Pixels:
    """What the reader of a file found, held to what all readers promise."""
    pixels = reader_of(path)(path)
    array, spacing = pixels.array, pixels.spacing_mm
    if array.ndim not in (3, 4) or 0 in array.shape or array.dtype.kind not in "buif":
        raise safety.damaged(path, f"holds {array.dtype} of shape {array.shape}")
    if array.dtype.itemsize > 8:
        raise DataError(f"{path}: holds values of type {array.dtype}.", hint="Save 64 bits.")
    array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    has_spacing = spacing is not None and len(spacing) == array.ndim - 1
    is_sane = has_spacing and all(0 < step < math.inf for step in spacing or ())
    return replace(pixels, array=array, spacing_mm=spacing if is_sane else None)


def reader_of(path: Path) -> Callable[[Path], Pixels]:
    suffix = suffix_of(path)
    if is_dicom(path) and path.is_dir():
        return dicom.read_series
    if suffix not in READERS:
        raise DataError(
            f"{path}: no reader for {suffix or 'files without suffix'}.",
            hint=f"Known formats: {', '.join(READERS)}.",
        )
    if not path.exists():
        raise DataError(f"{path}: no such file.", hint="Check the spelling.")
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"{path}: a device or pipe, no file.", hint="Copy it into a file.")
    if path.is_file() and path.stat().st_size == 0:
        raise safety.damaged(path, "empty, 0 bytes")
    return READERS[suffix]


def _writable_suffix(suffix: str, array: np.ndarray) -> str:
    """The suffix that masks (C, *S) read from a file of this one are written with."""
    plain = {".mhd": ".mha", ".npz": ".npy"}.get(suffix, suffix.removeprefix(".ome"))
    if plain in WRITERS or plain in itk.WRITABLE:
        return plain
    if array.ndim == 4:
        return ".nii.gz" if suffix == ".dcm" or suffix not in READERS else ".tif"
    return ".png" if array.dtype in (np.uint8, np.uint16, bool) else ".tif"


def _is_gray(array: np.ndarray) -> bool:
    return bool((array[0] == array[1]).all() and (array[0] == array[2]).all())


def _whole_numbers(path: Path, values: np.ndarray) -> np.ndarray:
    """Integers; floats only where they are whole."""
    if values.dtype.kind in "uib":
        return values
    with np.errstate(invalid="ignore"):  # NaN is refused, not warned of.
        is_odd = ~np.isfinite(values) | (values != np.rint(values))
    if is_odd.any():
        odd = values[is_odd]
        raise DataError(
            f"{path}: a mask with values that are no whole numbers, e.g. {odd.flat[0]:g} "
            f"({odd.size} pixels).",
            hint="Save the classes as integers; probabilities need a threshold first.",
        )
    return values.astype(np.int32)
