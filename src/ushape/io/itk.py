"""NIfTI, NRRD and MetaImage through SimpleITK: pixels, spacing, and where they lie in space."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ushape.errors import DataError
from ushape.io import itk_headers, safety
from ushape.types import Pixels

ITK_READERS = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
"""Named, so that ITK does not try its readers for dozens of other formats on a damaged file."""

WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of a file lie in the patient, as ITK says it: to write a mask there."""

    shape: tuple[int, ...]
    """Of the file, (y, x) or (z, y, x); axes of length 1 are there too."""

    spacing_mm: tuple[float, ...]
    """Along each axis of `shape`, in its order."""

    origin_mm: tuple[float, ...]
    """Of the first pixel, (x, y) or (x, y, z), towards left, posterior, superior."""

    direction: tuple[float, ...]
    """Cosines: a matrix row by row, a column for each axis of the file, x first."""


def read(path: Path) -> Pixels:
    """A volume: (C, z, y, x); one of a single slice, or a flat image: (C, y, x).

    Several values per voxel are channels; of four axes the last (time, or the sequences of one
    examination) are the channels. Spacing, origin and direction are kept.

    Raises:
        DataError: damaged or hostile; SimpleITK is missing; more axes than a volume has.
    """
    with safety.reading(path):
        image = _reader_of(path).Execute()
        array = _itk(path).GetArrayFromImage(image)
        channels = image.GetNumberOfComponentsPerPixel()
        grid = _grid_of(path, image)
        if image.GetDimension() == 4 and channels > 1:
            raise DataError(
                f"{path}: {channels} values per voxel and a fourth axis.",
                hint="Save each time point as a file of its own.",
            )
        if channels > 1:
            array = np.moveaxis(array, -1, 0)
        elif image.GetDimension() < 4:
            array = array[None]
        return on_grid(array, grid)


def read_grid(path: Path) -> Grid:
    """Where a volume lies, from its header.

    Raises:
        DataError: as `read`.
    """
    with safety.reading(path):
        reader = _reader_of(path)
        reader.ReadImageInformation()
        return _grid_of(path, reader)


def on_grid(array: np.ndarray, grid: Grid) -> Pixels:
    """Pixels (C, *S) of an array (C, *grid.shape): without the axes of one slice."""
    kept = [axis for axis, length in enumerate(grid.shape) if length > 1]
    # A line of pixels stays an image: two axes at least, the last ones.
    kept = kept if len(kept) >= 2 else list(range(len(grid.shape)))[-2:]
    spacing = tuple(grid.spacing_mm[axis] for axis in kept)
    return Pixels(
        array=array.reshape(len(array), *(grid.shape[axis] for axis in kept)),
        spacing_mm=spacing,
        origin_mm=grid.origin_mm,
        direction=grid.direction,
    )


def write(path: Path, file: BinaryIO, codes: np.ndarray, grid: Grid | None) -> None:
    """Writes a mask (*S), compressed where the format has it, on a grid.

    Args:
        path: The name it will have; its suffix is one of WRITABLE.
        grid: Of the image; without one, pixels are 1 mm apart.

    Raises:
        DataError: the mask has not the shape of the grid; the format cannot hold its direction;
            SimpleITK is missing.
    """
    itk = _itk(path)
    if grid is not None:
        if [n for n in codes.shape if n > 1] != [n for n in grid.shape if n > 1]:
            raise DataError(
                f"{path}: a mask of shape {codes.shape} for an image of {grid.shape}.",
                hint="Masks lie on the image grid.",
            )
        codes = codes.reshape(grid.shape)
    image = itk.GetImageFromArray(codes)
    if grid is not None:
        image.SetSpacing(grid.spacing_mm[::-1])
        image.SetOrigin(grid.origin_mm)
        image.SetDirection(grid.direction)
    suffix = next(suffix for suffix in WRITABLE if path.name.lower().endswith(suffix))
    with tempfile.TemporaryDirectory() as folder:  # ITK writes by name only.
        written = Path(folder, f"mask{suffix}")
        try:
            itk.WriteImage(image, str(written), suffix != ".nii")
        except RuntimeError as error:
            said = safety.last_line(error)
            raise DataError(f"{path}: cannot be written: {said}.", hint="Write .mha.") from None
        file.write(written.read_bytes())


def _reader_of(path: Path) -> Any:
    """ITK's reader for a file whose header holds what it claims."""
    suffix = next(suffix for suffix in ITK_READERS if path.name.lower().endswith(suffix))
    itk = _itk(path)
    itk_headers.CHECKS[suffix](path)
    reader = itk.ImageFileReader()
    reader.SetImageIO(ITK_READERS[suffix])
    reader.SetFileName(str(path))
    return reader


def _itk(path: Path) -> Any:
    itk = safety.need("SimpleITK", "medical", path)
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    return itk


def _grid_of(path: Path, image: Any) -> Grid:
    """The grid of an ITK image, or of a reader that has read its header."""
    axes = image.GetDimension()
    if axes not in (2, 3, 4):
        raise DataError(f"{path}: {axes} axes.", hint="Images have two axes, volumes three.")
    used = min(axes, 3)
    spacing, origin = image.GetSpacing()[:used], image.GetOrigin()[:used]
    direction = np.reshape(image.GetDirection(), (axes, axes))[:used, :used].ravel()
    if not all(map(math.isfinite, (*spacing, *origin, *direction))) or min(spacing) <= 0:
        raise safety.damaged(path, f"a spacing of {spacing} mm from {origin}")
    return Grid(
        shape=tuple(image.GetSize()[:used][::-1]),
        spacing_mm=tuple(spacing[::-1]),
        origin_mm=tuple(origin),
        direction=tuple(float(cosine) for cosine in direction),
    )
