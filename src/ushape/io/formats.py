"""The table of file formats. To add one, write a module that reads it and add it to FORMATS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ushape.errors import require_package
from ushape.io import dicom, itk, npy, ome_zarr, raster, sinks, slides, tiff, tiff_segments
from ushape.io.sinks import RowLayout, RowSink
from ushape.types import Grid, MaskEncoding, Pixels, RowReader, TiffMetadata


@dataclass(frozen=True, kw_only=True)
class Format:
    """What can be done with the files of one format; None stands for what cannot.

    On a damaged or hostile file, every function that reads raises DataError and nothing else.
    """

    read: Callable[[Path], Pixels]
    """Function that reads a whole file."""

    read_size: Callable[[Path], tuple[int, ...]] | None
    """Function that returns S from the header, without unpacking pixels. It has no default value:
    None means that the size of a file is not known before all of it is read."""

    read_orientation: Callable[[Path], int] | None = None
    """Function that returns the EXIF orientation, 1 to 8, from the header; None: it is 1."""

    read_grid: Callable[[Path], Grid | None] | None = None
    """Function that returns the position in the patient from the header."""

    read_spacing: Callable[[Path], tuple[float, ...] | None] | None = None
    """Function that returns the spacing in mm along each axis of S from the header; None: the
    pixels, or the rows that `open_rows` opens, contain it."""

    count_time_points: Callable[[Path], int] | None = None
    """Function that returns the length of the fourth axis, which may be time, from the header."""

    open_rows: Callable[[Path, ExitStack], RowReader | None] | None = None
    """Function that opens a file, which the stack closes, to read parts of it. It returns None for
    a file that can only be read as a whole."""

    write: Callable[[BinaryIO, np.ndarray, MaskEncoding, TiffMetadata | None], None] | None = None
    """Function that writes a mask, for lossless formats without a position in the patient."""

    write_on_grid: Callable[[Path, BinaryIO, np.ndarray, Grid | None], None] | None = None
    """Function that writes a mask at a position in the patient; the path is its final name."""

    holds_colors: bool = False
    """Whether masks can be written as colors; otherwise those in colors are written as PNG."""

    mask_suffix: str = ""
    """Suffix that masks are written with, if it is not the one that they were read with."""

    open_sink: Callable[[RowLayout], AbstractContextManager[RowSink]] | None = None
    """Function that opens a file to write it row by row."""

    signature: bytes | None = None
    """Regular expression for the first 16 bytes of a file, by which its format is recognized if its
    suffix is wrong."""

    is_known_by_suffix: bool = False
    """Whether the suffix is always right, because files begin like those of another format."""

    check_packages: Callable[[Path], object] | None = None
    """Function that raises MissingPackageError if a package that reads the file is missing."""


def _no_spacing(path: Path) -> None:
    """Return None: the format does not store the spacing."""


PICTURE = Format(
    read=raster.read,
    read_size=raster.read_size,
    read_orientation=raster.read_orientation,
    read_spacing=_no_spacing,
)

JPEG = replace(PICTURE, signature=rb"\xff\xd8\xff")

TIFF = Format(
    read=tiff.read,
    read_size=tiff.read_size,
    read_orientation=tiff.read_orientation,
    open_rows=tiff_segments.open_rows,
    write=tiff.write,
    holds_colors=True,
    open_sink=sinks.write_tiff,
    signature=rb"II[*+]\0|MM\0[*+]",
    check_packages=tiff.check_codecs,
)

VOLUME = Format(
    read=itk.read,
    read_size=itk.read_size,
    read_grid=itk.read_grid,
    read_spacing=itk.read_spacing,
    write_on_grid=itk.write,
    check_packages=itk.load_itk,
)

NIFTI = replace(VOLUME, count_time_points=itk.count_time_points, open_sink=sinks.write_nifti)

ZARR = Format(
    read=ome_zarr.read,
    read_size=None,
    open_rows=lambda path, closing: ome_zarr.open_rows(path),
    open_sink=sinks.write_zarr,
    check_packages=lambda path: require_package("zarr", "zarr", str(path)),
)

SLIDE = Format(
    read=slides.read,
    read_size=slides.read_size,
    open_rows=slides.open_rows,
    is_known_by_suffix=True,
    check_packages=slides.check_packages,
)

DICOM = Format(
    read=dicom.read,
    read_size=None,
    read_grid=dicom.read_grid,
    read_spacing=dicom.read_spacing,
    check_packages=lambda path: require_package("pydicom", "medical", str(path)),
)

DICOM_SERIES = replace(DICOM, read=dicom.read_series)
"""A folder of slices, which has no suffix."""

FORMATS: dict[str, Format] = {
    ".png": replace(
        PICTURE, write=raster.write, holds_colors=True, signature=rb"\x89PNG\r\n\x1a\n"
    ),
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".bmp": replace(PICTURE, write=raster.write, holds_colors=True, signature=rb"BM"),
    ".gif": replace(PICTURE, write=raster.write, signature=rb"GIF8"),
    ".webp": replace(PICTURE, signature=rb"RIFF.{4}WEBP"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), PICTURE),
    **dict.fromkeys((".tif", ".tiff", ".ome.tif", ".ome.tiff"), TIFF),
    ".nii": replace(NIFTI, open_rows=lambda path, closing: itk.open_rows(path)),
    ".nii.gz": NIFTI,
    ".nrrd": VOLUME,
    ".mha": VOLUME,
    ".mhd": replace(VOLUME, write_on_grid=None, mask_suffix=".mha"),
    ".dcm": DICOM,
    ".npy": Format(
        read=npy.read,
        read_size=npy.read_size,
        read_spacing=_no_spacing,
        open_rows=lambda path, closing: npy.open_rows(path),
        write=npy.write,
        holds_colors=True,
        open_sink=sinks.write_npy,
        signature=rb"\x93NUMPY",
    ),
    ".npz": Format(
        read=npy.read_npz,
        read_size=npy.read_npz_size,
        read_spacing=_no_spacing,
        mask_suffix=".npy",
    ),
    **dict.fromkeys((".zarr", ".ome.zarr"), ZARR),
    **dict.fromkeys(slides.SLIDES, SLIDE),
}
"""Format of the files with each suffix. OME files are written with the plain suffix's function."""
