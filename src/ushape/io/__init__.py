"""Read images and masks, write predictions. The formats are those of the table FORMATS."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ushape.errors import DataError
from ushape.io import dicom
from ushape.io.caching import keep_latest
from ushape.io.files import damaged, replacing
from ushape.io.formats import DICOM, DICOM_SERIES, FORMATS, Format
from ushape.io.mask_encoding import decode_mask, encode_mask
from ushape.types import Grid, MaskEncoding, MaskPixels, Palette, Pixels

DOUBLE_SUFFIXES = tuple(suffix for suffix in FORMATS if suffix.count(".") == 2)

ProbabilityType = Literal["uint8", "float16", "float32"]
"""Data type of stored probabilities; uint8 stores round(255 p)."""


def read(path: Path) -> Pixels:
    """Read an image: (C, *S) as stored, palettes converted to their colors.

    A folder that is not a Zarr image is read as a series of DICOM slices.

    Raises:
        DataError: if the format is unknown or the file is damaged.
    """
    pixels = _read(path)
    if pixels.palette is None:
        array = pixels.array
        # The two values of 1 bit are black and white.
        return replace(pixels, array=array * np.uint8(255) if array.dtype == bool else array)
    return replace(pixels, array=apply_palette(pixels.array, pixels.palette), palette=None)


def read_page(path: Path, number: int) -> Pixels:
    """Read a volume along the fourth axis of a NIfTI file, (1, *S), or a section of one volume.

    The file is unpacked once for all of its pages, also if several threads read them.

    Args:
        number: Number of the volume or section, from 0.

    Shapes:
        returns: (1, z, y, x) of a file with a fourth axis, otherwise (C, y, x).

    Raises:
        DataError: if the file cannot be read, or has no such page.
    """
    pages = _read_pages(path)
    if number >= len(pages.array):
        raise DataError(
            f"{path}: page {number + 1} was requested, but the file has only {len(pages.array)}.",
            code="mask_page_missing",
            hint="Restore the file to its state when the data were listed.",
        )
    pages.left.discard(number)
    if not pages.left:
        _read_pages.forget(path)  # The memory is needed for the next file.
    return replace(pages.place, array=pages.array[number].copy())


@dataclass(frozen=True)
class _Pages:
    array: np.ndarray
    """(pages, C, *S)."""

    place: Pixels
    """The page without its pixels."""

    left: set[int]
    """Numbers of the pages that were not returned yet."""


@keep_latest(files=4)  # An image and its mask, and those that other threads begin to read.
def _read_pages(path: Path) -> _Pages:
    """Read all pages of a file, since one of them cannot be unpacked by itself."""
    pixels = _read(path)
    array, spacing = pixels.array, pixels.spacing_mm
    is_time = has_time_points(path)
    if not is_time and array.ndim == 4:
        pixels = replace(pixels, spacing_mm=spacing[1:] if spacing else None, grid=None)
    array = array[:, None] if is_time else array.swapaxes(0, 1) if array.ndim == 4 else array[None]
    return _Pages(array, replace(pixels, array=array[:0]), set(range(len(array))))


def read_mask(path: Path, page: int | None = None) -> MaskPixels:
    """Read a mask: one integer code per pixel, and how the file encodes it.

    If masks cannot be written in the file's format, the encoding names one that is writable: .png,
    .tif for volumes and for values beyond 16 bits, .nii.gz for DICOM volumes.

    Args:
        page: Number of the volume along the fourth axis of a NIfTI file, or of the section of a
            volume, from 0; None for the whole file.

    Raises:
        DataError: if the format is unknown, the file is damaged, values are not whole numbers, or
            there is no such page.
    """
    pixels = _read(path) if page is None else read_page(path, page)
    return replace(decode_pixels(path, pixels), grid=pixels.grid)


def decode_pixels(path: Path, pixels: Pixels) -> MaskPixels:
    """Return the codes of a mask, or of a part of it, that was read from a file.

    Raises:
        DataError: if `decode_mask` raises it.
    """
    suffix = _writable_suffix(suffix_of(path), pixels.array)
    return decode_mask(path, pixels, suffix, holds_colors=FORMATS[suffix].holds_colors)


def write_mask(
    path: Path,
    codes: np.ndarray,
    encoding: MaskEncoding,
    like: Path | Pixels | Grid | None = None,
) -> None:
    """Write codes (*S) in the encoding of the user's masks, atomically.

    Args:
        path: Output file; its suffix selects the format, any for which `is_writable` is true.
        codes: (*S), integer.
        encoding: How codes are represented in the file.
        like: Image that the mask belongs to, or its grid. Masks in NIfTI, NRRD and MetaImage get
            its spacing, origin and direction, and its axes of length 1; masks in TIFF get the
            place on the earth of a GeoTIFF, and the axes and spacing of a file of ImageJ.

    Raises:
        DataError: if mask and image differ in shape, or the format cannot be written.
    """
    suffix = suffix_of(path).removeprefix(".ome")
    if not is_writable(suffix):
        raise unwritable(path, suffix)
    target, array = FORMATS[suffix], encode_mask(codes, encoding)
    if target.write_on_grid is not None:
        grid = read_grid(like) if isinstance(like, Path) else like
        grid = grid.grid if isinstance(grid, Pixels) else grid
        array = array * np.uint8(1) if array.dtype == bool else array
        with replacing(path) as file:
            target.write_on_grid(path, file, array, grid)
    if target.write is not None:
        of_tiff = like.tiff if isinstance(like, Pixels) else None
        with replacing(path) as file:
            target.write(file, array, replace(encoding, suffix=suffix), of_tiff)


def unwritable(path: Path, suffix: str, *others: str) -> DataError:
    """Return the error for a file whose format masks cannot be written in.

    Args:
        others: Suffixes of other possible formats.
    """
    writable = [one for one in FORMATS if is_writable(one) and not one.startswith(".ome")]
    return DataError(
        f"{path}: masks cannot be written as {suffix or 'a file without suffix'}.",
        code="unwritable_format",
        hint=f"Supported formats: {', '.join([*writable, *others])}.",
    )


def read_size(path: Path) -> tuple[int, ...] | None:
    """Return S of an image from its header, without unpacking pixels.

    Returns:
        None for DICOM and Zarr.

    Raises:
        DataError: if the format is unknown or the header is damaged.
    """
    read_header = format_of(path).read_size
    return read_header(path) if read_header is not None else None


def read_orientation(path: Path) -> int:
    """Return the EXIF orientation of an image from its header: 1 to 8; 1 if it has none.

    Raises:
        DataError: if the format is unknown or the header is damaged.
    """
    read_header = format_of(path).read_orientation
    return read_header(path) if read_header is not None else 1


def read_grid(path: Path) -> Grid | None:
    """Return an image's position in the patient from its header; None if its format has none.

    Raises:
        DataError: if the file is damaged.
    """
    named = named_format(path)
    return named.read_grid(path) if named is not None and named.read_grid is not None else None


def has_time_points(path: Path) -> bool:
    """Whether a file is NIfTI with a fourth axis, which may be time.

    Raises:
        DataError: if its header is damaged.
    """
    named = FORMATS.get(suffix_of(path))
    count = named.count_time_points if named is not None else None
    return count is not None and count(path) > 1


def write_rgb(path: Path, picture: np.ndarray) -> None:
    """Write (y, x, 3) or gray (y, x) uint8 as PNG, atomically."""
    with replacing(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def write_probabilities(
    path: Path,
    probabilities: np.ndarray,
    names: Sequence[str],
    dtype: ProbabilityType = "float32",
) -> None:
    """Write (K, *S) and the class names as .npz, atomically."""
    with replacing(path) as file:
        stored = as_stored_probabilities(probabilities, dtype)
        np.savez_compressed(file, probabilities=stored, names=np.asarray(names))


def as_stored_probabilities(probabilities: np.ndarray, dtype: ProbabilityType) -> np.ndarray:
    """Convert probabilities to the type they are stored in: round(255 p), or the nearest float."""
    if dtype == "uint8":
        return np.rint(probabilities * np.float32(255)).astype(np.uint8)
    return probabilities.astype(dtype, copy=False)


def is_image(path: Path) -> bool:
    """Whether a path has a suffix that can be read, or is DICOM without suffix, and is not hidden.

    A .zarr folder is an image, a folder of DICOM slices is not.
    """
    is_readable = suffix_of(path) in FORMATS or is_dicom_file(path)
    return is_readable and not path.name.startswith(".")


def is_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder that is read as a series of slices."""
    return is_dicom_file(path) or (suffix_of(path) not in FORMATS and path.is_dir())


def is_dicom_file(path: Path) -> bool:
    """Whether a path is a .dcm file, or a file without a suffix that has the mark of DICOM."""
    suffix = suffix_of(path)
    return suffix == ".dcm" or (
        suffix == "" and path.name != "DICOMDIR" and path.is_file() and dicom.is_marked(path)
    )


def is_read_in_bands(path: Path) -> bool:
    """Whether parts of a file can be read without the rest: TIFF, slide, NumPy, Zarr, .nii."""
    named = FORMATS.get(suffix_of(path))
    return named is not None and named.open_rows is not None


def is_writable(suffix: str) -> bool:
    """Whether masks can be written in this format."""
    named = FORMATS.get(suffix)
    return named is not None and (named.write or named.write_on_grid) is not None


def keeps_position(suffix: str) -> bool:
    """Whether masks in this format are written with their position in the patient."""
    named = FORMATS.get(suffix)
    return named is not None and named.write_on_grid is not None


def suffix_of(path: Path) -> str:
    """Return the full suffix in lower case with its dot: `.nii.gz` and `.ome.tif` are one.

    Digits are not a suffix: DICOM files are often named by numbers such as 1.2.840.
    """
    name = path.name.lower()
    if name.endswith(DOUBLE_SUFFIXES):
        return next(suffix for suffix in DOUBLE_SUFFIXES if name.endswith(suffix))
    at = name.rfind(".")
    single = name[at:] if 0 < at < len(name) - 1 else ""
    return "" if single[1:].isdigit() else single


def stem_of(path: Path) -> str:
    """Return the file name without its full suffix: `a.1` for `a.1.nii.gz`, `x` for `x.png`."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def check_pixels(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Check what every reader returns: (C, *S) of numbers with at most 64 bits.

    Raises:
        DataError: if the shape or the type is not supported.
    """
    if len(shape) not in (3, 4) or 0 in shape or dtype.kind not in "buif":
        raise damaged(path, f"the file contains {dtype} of shape {shape}")
    if dtype.itemsize > 8:
        raise DataError(
            f"{path}: the values are of type {dtype}.",
            code="unsupported_values",
            hint="Save values of at most 64 bits.",
        )


def plausible_spacing(spacing: tuple[float, ...] | None, dims: int) -> tuple[float, ...] | None:
    """Return the spacing if it has one positive, finite number per axis of S, else None."""
    has_all = spacing is not None and len(spacing) == dims
    return spacing if has_all and all(0 < step < math.inf for step in spacing or ()) else None


def apply_palette(indices: np.ndarray, palette: Palette) -> np.ndarray:
    """Return the colors (3, *S) of palette indices (1, *S)."""
    colors = np.asarray(palette, dtype=np.uint8)
    known = indices[0].astype(np.intp).clip(0, len(colors) - 1)
    return np.ascontiguousarray(np.moveaxis(colors[known], -1, 0))


def _read(path: Path) -> Pixels:
    """Read a file with the reader of its format, and check the result."""
    pixels = format_of(path).read(path)
    array = pixels.array
    check_pixels(path, array.shape, array.dtype)
    array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    spacing = plausible_spacing(pixels.spacing_mm, array.ndim - 1)
    return replace(pixels, array=array, spacing_mm=spacing)


def named_format(path: Path) -> Format | None:
    """Return the format that the name of a file or folder indicates, or the mark of DICOM."""
    if (named := FORMATS.get(suffix_of(path))) is not None:
        return named
    if path.is_dir():
        return DICOM_SERIES
    return DICOM if is_dicom_file(path) else None


def format_of(path: Path) -> Format:
    """Return the format of a file or folder, which is that of its content if its name is wrong.

    Raises:
        DataError: if the format is unknown, or there is no such file, or it is empty.
    """
    suffix, named = suffix_of(path), named_format(path)
    if named is None:
        raise DataError(
            f"{path}: {suffix or 'a file without suffix'} is not a supported image format.",
            code="unknown_format",
            hint=f"Supported formats: {', '.join(FORMATS)}.",
        )
    if not path.exists():
        raise DataError(
            f"{path}: the file does not exist.",
            code="file_not_found",
            hint="Check the spelling of the path.",
        )
    if not (path.is_file() or path.is_dir()):
        raise DataError(
            f"{path}: this is a device or pipe, not a file.",
            code="not_a_file",
            hint="Copy the content into a file.",
        )
    if path.is_file() and path.stat().st_size == 0:
        raise damaged(path, "the file is empty (0 bytes)")
    return FORMATS.get(content_suffix(path), named)


def content_suffix(path: Path) -> str:
    """Return the suffix of the format that the first bytes of a file show.

    Returns:
        The suffix of the name, unless the content belongs to another reader.
    """
    suffix = suffix_of(path)
    named = FORMATS.get(suffix)
    if not path.is_file() or named is None or named.is_known_by_suffix:
        return suffix
    facts = path.stat()
    found = suffix_of_start(_start_of(path, (facts.st_ino, facts.st_size, facts.st_mtime_ns)))
    return suffix if found is None or FORMATS[found].read is named.read else found


def suffix_of_start(start: bytes) -> str | None:
    """Return the suffix of the format that the first bytes show; None if they show none."""
    for suffix, one in FORMATS.items():
        if one.signature is not None and re.match(one.signature, start, re.DOTALL):
            return suffix
    return None


@lru_cache(maxsize=2**14)
def _start_of(path: Path, version: tuple[int, int, int]) -> bytes:
    """Return the first bytes of a file, which is opened once for them.

    Args:
        version: Inode, size and time of the last change, by which a changed file is recognized.
    """
    with path.open("rb") as file:
        return file.read(16)


def check_packages(paths: Iterable[Path]) -> None:
    """Check, before any image is read, that the packages that files of these kinds need are there.

    Raises:
        MissingPackageError: if one of them is not installed.
    """
    for path in paths:
        named = named_format(path)
        if named is not None and named.check_packages is not None:
            named.check_packages(path)


def _writable_suffix(suffix: str, array: np.ndarray) -> str:
    """Return the suffix for writing masks like those (C, *S) read from a file of a given suffix."""
    named = FORMATS.get(suffix, DICOM)
    plain = named.mask_suffix or suffix.removeprefix(".ome")
    if is_writable(plain):
        return plain
    if array.ndim == 4:
        return ".nii.gz" if named.read_grid is not None else ".tif"
    return ".png" if array.dtype in (np.uint8, np.uint16, bool) else ".tif"
