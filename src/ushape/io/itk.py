"""NIfTI, NRRD and MetaImage files, through SimpleITK: pixels, spacing and position in space."""

from __future__ import annotations

import gzip
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ushape.errors import DataError, require_package
from ushape.io import files, itk_headers, nifti, nifti_header
from ushape.types import UNIT_MM, Box, Grid, GridRemark, LengthUnit, Pixels, RowReader

ITK_READERS = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
"""Reader to use by suffix, so that ITK does not try dozens of other formats on a damaged file."""

WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Suffixes that masks can be written with."""


def read(path: Path) -> Pixels:
    """Read a volume: (C, z, y, x); an image or a volume of a single slice: (C, y, x).

    Several values per voxel become channels; of four axes, the last one (time, or the sequences of
    one examination) becomes the channels, and of five axes the last one if the fourth has length 1,
    as NIfTI stores several values per voxel. Spacing, origin and direction are kept.

    Raises:
        DataError: if the file is damaged or hostile, or has more axes.
        MissingPackageError: if SimpleITK is not installed.
    """
    with files.reading(path), _opened(path) as (reader, remarks, unit):
        image = reader.Execute()
        array = load_itk(path).GetArrayFromImage(image)
        channels = image.GetNumberOfComponentsPerPixel()
        grid = _grid_of(path, image, remarks, unit)
        if image.GetDimension() >= 4 and channels > 1:
            raise _several_times(path, f"{channels} values per voxel and a fourth axis")
        if channels > 1:
            array = np.moveaxis(array, -1, 0)
        elif image.GetDimension() < 4:
            array = array[None]
        return on_grid(array, grid)


def read_grid(path: Path) -> Grid:
    """Return the position of a volume from its header.

    Raises:
        DataError: as for `read`.
    """
    with files.reading(path), _opened(path, is_header_only=True) as (reader, remarks, unit):
        reader.ReadImageInformation()
        return _grid_of(path, reader, remarks, unit)


def read_spacing(path: Path) -> tuple[float, ...] | None:
    """Return the spacing in mm along each axis of S, if the header contains it.

    Raises:
        DataError: as for `read`.
    """
    return spacing_on(read_grid(path))


def open_rows(path: Path) -> RowReader | None:
    """Open a volume of an uncompressed NIfTI file to read parts of it.

    The file is mapped into memory for each read only.

    Returns:
        None if ITK must read the whole file: it is compressed, its values are scaled, it has other
        than three axes, or it is NIfTI 2.

    Raises:
        DataError: as for `read`, except for the size of the whole volume.
    """
    if not path.name.lower().endswith(".nii"):
        return None
    header = nifti_header.read_header(path)
    dtype = nifti_header.plain_dtype(header)
    if dtype is None or header.version != 1:
        return None
    shape, grid = header.lengths[2::-1], read_grid(path)

    def read_box(box: Box) -> np.ndarray:
        stored = np.memmap(path, dtype, "r", header.start, shape)
        part = stored[tuple(slice(*edge) for edge in box)]
        return np.array(part[None], dtype.newbyteorder("="))

    return RowReader(
        shape=(1, *shape),
        dtype=dtype.newbyteorder("="),
        read_rows=lambda first, last: read_box(((first, last), *((0, n) for n in shape[1:]))),
        read_box=read_box,
        spacing_mm=spacing_on(grid),
        present_bytes=path.stat().st_size,
    )


def read_size(path: Path) -> tuple[int, ...]:
    """Return S, without axes of length 1, from the header.

    Raises:
        DataError: as for `read`.
    """
    grid = read_grid(path)
    return tuple(grid.shape[axis] for axis in axes_kept(grid))


def count_time_points(path: Path) -> int:
    """Return the length of the fourth axis of a NIfTI file with four axes from its header, else 1.

    Raises:
        DataError: as for `read`.
    """
    with files.reading(path):
        header = nifti_header.read_header(path)
        return header.lengths[3] if header.axes == 4 else 1


def on_grid(array: np.ndarray, grid: Grid) -> Pixels:
    """Return the pixels (C, *S) of an array (C, *grid.shape), without axes of length 1."""
    shape = (grid.shape[axis] for axis in axes_kept(grid))
    return Pixels(array=array.reshape(len(array), *shape), spacing_mm=spacing_on(grid), grid=grid)


def spacing_on(grid: Grid) -> tuple[float, ...] | None:
    """Return the spacing in mm along each axis of S; None if the header does not contain it."""
    kept = axes_kept(grid)
    axes = len(grid.shape)  # A file lists its axes in the reverse order: x first.
    missing = [nifti.MISSING[axes - 1 - axis] for axis in kept if axes <= 3]
    if "no_spacing" in grid.remarks or any(remark in grid.remarks for remark in missing):
        return None
    return tuple(grid.spacing_mm[axis] for axis in kept)


def axes_kept(grid: Grid) -> list[int]:
    """Return the axes of a file that are axes of S: those longer than 1, but at least two."""
    kept = [axis for axis, length in enumerate(grid.shape) if length > 1]
    # At least the last two axes are kept, so that a line of pixels is still an image.
    return kept if len(kept) >= 2 else list(range(len(grid.shape)))[-2:]


def write(path: Path, file: BinaryIO, codes: np.ndarray, grid: Grid | None) -> None:
    """Write a mask (*S), compressed if the format supports it.

    Args:
        path: Final name of the file; its suffix is one of WRITABLE.
        grid: Position of the image; without it, pixels are 1 mm apart.

    Raises:
        DataError: if mask and grid differ in shape, or the format cannot store the direction.
        MissingPackageError: if SimpleITK is not installed.
    """
    itk = load_itk(path)
    if grid is not None:
        if [n for n in codes.shape if n > 1] != [n for n in grid.shape if n > 1]:
            raise DataError(
                f"{path}: the mask has shape {codes.shape}, but its image has shape {grid.shape}.",
                code="mask_size_mismatch",
                hint="A mask must have the size of its image.",
            )
        codes = codes.reshape(grid.shape)
    suffix = next(suffix for suffix in WRITABLE if path.name.lower().endswith(suffix))
    image = itk.GetImageFromArray(codes)
    unit: LengthUnit = "mm"
    if grid is not None:
        # ITK writes mm only, so that a header in another unit is corrected afterwards.
        unit = grid.unit if suffix.startswith(".nii") and grid.unit else "mm"
        image.SetSpacing([length / UNIT_MM[unit] for length in grid.spacing_mm[::-1]])
        image.SetOrigin([length / UNIT_MM[unit] for length in grid.origin_mm])
        image.SetDirection(grid.direction)
    file.write(_packed(path, image, suffix, unit))


def _packed(path: Path, image: Any, suffix: str, unit: LengthUnit) -> bytes:
    """Return the file of an ITK image whose lengths have a unit."""
    itk = load_itk(path)
    is_corrected = unit != "mm"
    with tempfile.TemporaryDirectory() as folder:  # ITK can only write to a path.
        written = Path(folder, "mask.nii" if is_corrected else f"mask{suffix}")
        try:
            itk.WriteImage(image, str(written), written.suffix != ".nii")
        except RuntimeError as error:
            raise DataError(
                f"{path}: the mask cannot be written ({files.last_line(error)}).",
                code="write_failed",
                hint="Choose the format .mha.",
            ) from None
        content = written.read_bytes()
    if not is_corrected:
        return content
    content = nifti.with_unit(content, unit)
    return gzip.compress(content, mtime=0) if suffix == ".nii.gz" else content


@contextmanager
def _opened(
    path: Path, *, is_header_only: bool = False
) -> Iterator[tuple[Any, tuple[GridRemark, ...], LengthUnit]]:
    """Yield ITK's reader for a file whose header was checked, its corrections, and its unit.

    Args:
        is_header_only: Whether the pixels will not be read.
    """
    suffix = next(suffix for suffix in ITK_READERS if path.name.lower().endswith(suffix))
    itk = load_itk(path)
    header: nifti_header.NiftiHeader | None
    if is_header_only and suffix == ".nii":
        header = itk_headers.check_nifti(path, is_header_only=True)
    else:
        header = itk_headers.HEADER_CHECKS[suffix](path)
    reader = itk.ImageFileReader()
    reader.SetImageIO(ITK_READERS[suffix])
    if header is None:
        reader.SetFileName(str(path))
        try:
            yield reader, () if itk_headers.states_spacing(path) else ("no_spacing",), "mm"
        except RuntimeError as error:
            if "spacing" not in str(error):
                raise
            raise DataError(
                f"{path}: the spacing in the header is not above 0.",
                code="invalid_spacing",
                hint="Correct it in the header (ElementSpacing of MetaImage, space directions of "
                "NRRD); if this field is missing, a spacing of 1 mm is assumed.",
            ) from None
        return
    read_as = nifti.readable_by_itk(path, header, is_header_only=is_header_only)
    with read_as as (readable, remarks):
        reader.SetFileName(str(readable))
        yield reader, remarks, header.unit


def load_itk(path: Path) -> Any:
    """Import SimpleITK, with its warnings on the console switched off.

    Raises:
        MissingPackageError: if it is not installed.
    """
    itk = require_package("SimpleITK", "medical", str(path))
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    return itk


def _grid_of(path: Path, image: Any, remarks: tuple[GridRemark, ...], unit: LengthUnit) -> Grid:
    """Return the grid of an ITK image, or of a reader that has read its header."""
    axes = image.GetDimension()
    if axes == 5 and image.GetSize()[3] > 1:
        raise _several_times(path, f"{image.GetSize()[3]} time points and a fifth axis")
    if axes not in (2, 3, 4, 5):
        raise DataError(
            f"{path}: the image has {axes} axes.",
            code="unsupported_axes",
            hint="Images must have two axes, volumes three.",
        )
    used = min(axes, 3)
    spacing, origin = image.GetSpacing()[:used], image.GetOrigin()[:used]
    direction = np.reshape(image.GetDirection(), (axes, axes))[:used, :used].ravel()
    if not all(map(math.isfinite, (*spacing, *origin, *direction))) or min(spacing) <= 0:
        lengths, place = (", ".join(f"{n:.6g}" for n in own) for own in (spacing, origin))
        problem = f"the spacing ({lengths}) mm or the origin ({place}) mm is impossible"
        raise files.damaged(path, problem)
    return Grid(
        shape=tuple(image.GetSize()[:used][::-1]),
        spacing_mm=tuple(spacing[::-1]),
        origin_mm=tuple(origin),
        direction=tuple(float(cosine) for cosine in direction),
        is_positioned=any(origin) or not _is_plain(direction, used),
        remarks=remarks,
        unit=unit,
    )


def _several_times(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: the volume has {what}.",
        code="several_time_points",
        hint="Save each time point as a separate file.",
    )


def _is_plain(direction: np.ndarray, axes: int) -> bool:
    """Whether this is the identity of ITK or of NIfTI, in which x and y point the other way."""
    turned = np.diag([-1.0, -1.0, 1.0][:axes])
    return any(np.allclose(direction, plain.ravel()) for plain in (np.eye(axes), turned))
