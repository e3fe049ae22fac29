"""Whole-slide images: their resolution levels, through tiffslide or OpenSlide."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ushape.errors import DataError, MissingPackageError, require_package
from ushape.formatting import size_text
from ushape.io import files, tiff
from ushape.types import Box, Pixels, RowReader

SLIDES = (".svs", ".svslide", ".ndpi", ".scn", ".bif", ".mrxs", ".vms", ".vmu")
"""Suffixes of whole-slide images. TIFF files with several levels are slides as well."""

ONLY_OPENSLIDE = (".mrxs", ".vms", ".vmu")
"""Suffixes of slides that consist of several files, which tiffslide does not read."""

TIFF = (".tif", ".tiff", ".ome.tif", ".ome.tiff")

SAME = 1.05
"""Ratio of two resolutions up to which they count as equal."""

PRINTED_MM = 0.1
"""Length of a pixel from which a given resolution is one for printing."""

OPENSLIDE_ROWS = 256
"""Number of rows that OpenSlide reads together."""


@dataclass(frozen=True, kw_only=True)
class Slide:
    """An open whole-slide image. Labels and overviews that scanners add are not part of it."""

    path: Path
    levels: tuple[RowReader, ...]
    """The image at decreasing resolution, the finest level first."""

    def level_at(self, mpp: float) -> int:
        """Return the number of the level that is read for a resolution.

        It is a level of this resolution (within 5%), or else the nearest finer one.

        Args:
            mpp: Micrometers per pixel.

        Raises:
            DataError: if the slide does not specify its resolution, or is coarser.
        """
        stated = [level.spacing_mm for level in self.levels]
        if stated[0] is None:
            raise DataError(
                f"{self.path}: the slide does not specify its resolution, but slides are read at "
                f"{mpp:g} µm per pixel.",
                code="missing_spacing",
                hint="Save the slide with its resolution, or read all slides at their finest "
                "level with slide_mpp=null.",
            )
        factors = [mpp / (1e3 * math.sqrt(math.prod(own))) for own in stated if own]
        equal = [n for n, factor in enumerate(factors) if 1 / SAME <= factor <= SAME]
        if equal:
            return min(equal, key=lambda n: abs(math.log(factors[n])))
        finer = [n for n, factor in enumerate(factors) if factor > 1]
        if not finer:
            raise DataError(
                f"{self.path}: the slide has {resolution_text(stated[0])}, which is coarser than "
                f"the {mpp:g} µm per pixel at which slides are read.",
                code="slide_too_coarse",
                hint="Exclude the slide, or choose a coarser resolution with slide_mpp.",
            )
        return finer[-1]

    def shape_at(self, mpp: float) -> tuple[int, ...]:
        """Return (C, y, x) at a resolution.

        Raises:
            DataError: if `level_at` raises it.
        """
        level = self.levels[self.level_at(mpp)]
        assert level.spacing_mm is not None, "checked by level_at"
        factors = [mpp / (1e3 * step) for step in level.spacing_mm]
        if all(1 / SAME <= factor <= SAME for factor in factors):
            return level.shape
        space = zip(level.shape[1:], factors, strict=True)
        return (level.shape[0], *(max(1, min(size, round(size / own))) for size, own in space))

    def describe(self, mpp: float | None) -> str:
        """Return at which resolution the slide is read, and from which level, in words.

        Raises:
            DataError: if `level_at` raises it.
        """
        number = 0 if mpp is None else self.level_at(mpp)
        level = self.levels[number]
        shape = level.shape if mpp is None else self.shape_at(mpp)
        own = resolution_text(level.spacing_mm) if level.spacing_mm else "an unknown resolution"
        text = f"level {number} of {len(self.levels)} ({size_text(level.shape[1:])} pixels, {own})"
        if shape == level.shape:
            return f"{text} is read as it is"
        return f"{text} is reduced to {size_text(shape[1:])} pixels of {mpp:g} µm"


def resolution_text(spacing_mm: Sequence[float]) -> str:
    """Return the resolution of a level in words."""
    lengths = dict.fromkeys(f"{1e3 * step:.4g}" for step in spacing_mm)
    return f"{' × '.join(lengths)} µm per pixel"


def is_slide(path: Path) -> bool:
    """Return whether a file is a whole-slide image, or a TIFF with several resolution levels."""
    name = path.name.lower()
    if name.endswith(SLIDES):
        return True
    return name.endswith(TIFF) and path.is_file() and _has_levels(path)


def _has_levels(path: Path) -> bool:
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            return len(file.series[0].levels) > 1
    except Exception:
        return False  # The reader of the file reports what is wrong with it.


def open_slide(path: Path, closing: ExitStack) -> Slide:
    """Open all levels of a slide.

    Args:
        closing: Closes the file.

    Raises:
        DataError: if the file is not a slide, is cut off, or has an unsupported structure.
        MissingPackageError: if the package that reads it is not installed.
    """
    check_packages(path)
    if path.suffix.lower() in ONLY_OPENSLIDE:
        return _open_with_openslide(path, closing)
    with files.reading(path):
        return _open_with_tiffslide(path, closing)


def check_packages(path: Path) -> None:
    """Check that the package that reads a slide is installed.

    Raises:
        MissingPackageError: if it is not.
    """
    if path.suffix.lower() in ONLY_OPENSLIDE:
        _load_openslide(path)
    else:
        require_package("tiffslide", "slides", str(path))


def _load_openslide(path: Path) -> Any:
    try:
        return importlib.import_module("openslide")
    except (ImportError, OSError):
        raise MissingPackageError(
            f"{path} needs the package openslide-python, which is not installed.",
            hint="Install it with: pip install openslide-python openslide-bin",
        ) from None


def open_rows(path: Path, closing: ExitStack) -> RowReader:
    """Open the finest level of a slide.

    Raises:
        DataError: if `open_slide` raises it.
    """
    return open_slide(path, closing).levels[0]


def read(path: Path) -> Pixels:
    """Read the finest level of a slide as a whole, (C, y, x).

    Raises:
        DataError: if `open_slide` raises it, or it is too large.
    """
    with ExitStack() as closing:
        level = open_rows(path, closing)
        files.check_claim(path, level.shape, level.dtype.itemsize, path.stat().st_size)
        return Pixels(
            array=level.read_rows(0, level.shape[1]),
            spacing_mm=level.spacing_mm,
        )


def read_size(path: Path) -> tuple[int, ...]:
    """Return S of the finest level.

    Raises:
        DataError: if `open_slide` raises it.
    """
    with ExitStack() as closing:
        return open_rows(path, closing).shape[1:]


def _open_with_tiffslide(path: Path, closing: ExitStack) -> Slide:
    library = require_package("tiffslide", "slides", str(path))
    slide = closing.enter_context(library.TiffSlide(path))
    facts = slide.properties
    series = slide.ts_tifffile.series[facts["tiffslide.series-index"]]
    _check_pages(path, series)
    axes = facts["tiffslide.series-axes"]
    arrays = slide.zarr_group
    mpp = tuple(facts.get(f"tiffslide.mpp-{name}") for name in "yx")
    levels: list[RowReader] = []
    for number in range(slide.level_count):
        name = str(number)
        array = arrays[name] if hasattr(arrays, "keys") and name in arrays else arrays
        levels.append(_tiff_level(path, array, axes, _spacing(mpp)))
    return _with_spacings(path, levels)


def _check_pages(path: Path, series: Any) -> None:
    """Raise DataError if tiles of a level are missing: tifffile would return zeros."""
    present = path.stat().st_size
    for level in series.levels:
        page = level.keyframe
        if str(page.photometric.name) == "SEPARATED":
            raise DataError(
                f"{path}: the slide has the colors used in printing (CMYK).",
                code="unsupported_colors",
                hint="Convert it to RGB, for example with vips icc_transform or QuPath.",
            )
        for own in level.pages:
            tiff.check_segment_count(path, own)
            places = zip(own.dataoffsets, own.databytecounts, strict=False)
            end = max((start + size for start, size in places), default=0)
            if end > present:
                raise files.damaged(path, f"the file is cut off after {present} of {end} bytes")


def _tiff_level(
    path: Path, array: Any, axes: str, spacing_mm: tuple[float, ...] | None
) -> RowReader:
    """Return a reader of a level that is stored as an array (y, x), (y, x, C) or (C, y, x)."""
    if axes not in ("YX", "YXS", "CYX", "SYX"):
        raise DataError(
            f"{path}: the levels have the axes {axes}.",
            code="unsupported_axes",
            hint="Save each plane or time point as a separate slide.",
        )
    y = axes.index("Y")
    sizes = dict(zip(axes, array.shape, strict=True))
    channels = next((size for name, size in sizes.items() if name not in "YX"), 1)
    tile = array.chunks

    def read_box(box: Box) -> np.ndarray:
        rows, columns = (slice(*edge) for edge in box)
        part = np.asarray(array[(*[slice(None)] * y, rows, columns)])
        if axes == "YXS":
            return np.ascontiguousarray(np.moveaxis(part, -1, 0)[:3])
        return part.reshape(channels, *part.shape[-2:])

    return RowReader(
        shape=(min(channels, 3) if axes == "YXS" else channels, sizes["Y"], sizes["X"]),
        dtype=np.dtype(array.dtype).newbyteorder("="),
        read_rows=lambda first, last: read_box(((first, last), (0, sizes["X"]))),
        block_rows=int(tile[y]),
        read_box=read_box,
        unit_px=math.prod(tile),
        spacing_mm=spacing_mm,
        present_bytes=path.stat().st_size,
    )


def _open_with_openslide(path: Path, closing: ExitStack) -> Slide:
    library = _load_openslide(path)
    try:
        slide = closing.enter_context(library.OpenSlide(path))
    except library.OpenSlideError as error:
        raise files.damaged(path, str(error)) from None
    mpp = tuple(slide.properties.get(f"openslide.mpp-{name}") for name in "yx")
    levels = [
        _openslide_level(path, slide, number, _spacing(mpp), library)
        for number in range(slide.level_count)
    ]
    return _with_spacings(path, levels)


def _openslide_level(
    path: Path, slide: Any, number: int, spacing_mm: tuple[float, ...] | None, library: Any
) -> RowReader:
    width, height = slide.level_dimensions[number]
    scale = slide.level_downsamples[number]

    def read_box(box: Box) -> np.ndarray:
        (top, bottom), (left, right) = box
        place = round(left * scale), round(top * scale)
        try:
            part = np.asarray(slide.read_region(place, number, (right - left, bottom - top)))
        except library.OpenSlideError as error:
            raise files.damaged(path, str(error)) from None
        # Places that were not scanned are transparent; viewers show them as white.
        opacity = part[..., 3:].astype(np.uint16)
        colors = (part[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255
        return np.ascontiguousarray(np.moveaxis(colors.astype(np.uint8), -1, 0))

    return RowReader(
        shape=(3, height, width),
        dtype=np.dtype(np.uint8),
        read_rows=lambda first, last: read_box(((first, last), (0, width))),
        block_rows=OPENSLIDE_ROWS,
        read_box=read_box,
        unit_px=3 * OPENSLIDE_ROWS**2,
        spacing_mm=spacing_mm,
    )


def _spacing(mpp: Sequence[Any]) -> tuple[float, ...] | None:
    """Return the spacing (y, x) in mm of the given micrometers per pixel."""
    try:
        steps = tuple(float(length) / 1e3 for length in mpp)
    except (TypeError, ValueError):
        return None
    return steps if all(0 < step < PRINTED_MM for step in steps) else None


def _with_spacings(path: Path, levels: Sequence[RowReader]) -> Slide:
    """Return the slide of some levels, the first of which has the spacing in the file.

    Raises:
        DataError: if a level is empty or larger than the one before.
    """
    first, found = levels[0], list[RowReader]()
    for level in levels:
        if min(level.shape) < 1:
            raise files.damaged(path, f"according to the header, the shape is {level.shape}")
        if found and any(
            size > above for size, above in zip(level.shape[1:], found[-1].shape[1:], strict=True)
        ):
            raise files.damaged(path, f"a level of {level.shape} follows {found[-1].shape}")
        steps = first.spacing_mm and tuple(
            step * whole / size
            for step, whole, size in zip(
                first.spacing_mm, first.shape[1:], level.shape[1:], strict=True
            )
        )
        found.append(replace(level, spacing_mm=steps))
    return Slide(path=path, levels=tuple(found))
