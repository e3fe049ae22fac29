"""TIFF through tifffile, in its forms: tiled, several pages, 1 to 64 bits, BigTIFF, OME, ImageJ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO, Literal
from xml.etree import ElementTree

import numpy as np
import tifffile

from ushape.errors import DataError
from ushape.io import raster, safety
from ushape.types import Palette, Pixels

MM = {
    "Å": 1e-7, "nm": 1e-6, "nanometer": 1e-6, "µm": 1e-3, "μm": 1e-3, "um": 1e-3, "micron": 1e-3,
    "microns": 1e-3, "micrometer": 1e-3, "\\u00B5m": 1e-3, "mm": 1.0, "millimeter": 1.0, "cm": 10.0,
    "m": 1e3, "inch": 25.4, "in": 25.4,
}  # fmt: skip
"""Millimeters of the units of length that OME and ImageJ write."""

ALPHA = (1, 2)
"""TIFF's ExtraSamples that are transparency; 0 is a channel like the others."""

DESCRIPTION = 270
"""TIFF's tag ImageDescription."""


def read(path: Path) -> Pixels:
    """The pixels as stored: (C, y, x), or (C, z, y, x) where the file has several planes.

    The first image series is read, at its full size. Spacing is known for OME-TIFF and ImageJ
    files that name a unit; resolution for printing is none. Transparency is left out.

    Raises:
        DataError: not a TIFF, truncated, or of a form that is not supported.
    """
    with safety.reading(path):
        try:
            # An OME-TIFF could name any other file as the place of its planes.
            with tifffile.TiffFile(path, _multifile=False) as file:
                return _read_open(path, file)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
        return _read_compressed(path)


def _read_open(path: Path, file: tifffile.TiffFile) -> Pixels:
    check_chain(path, file)
    check_description(path, file)
    if not file.series:
        raise safety.damaged(path, "a TIFF without images")
    series = file.series[0]
    is_part = file.is_ome and series.kind != "ome"
    if is_part or any(page is None for page in series.pages):
        raise DataError(
            f"{path}: some of its planes lie in other files, or its OME-XML is damaged.",
            hint="Save it as one OME-TIFF file.",
        )
    value_bytes, present = series.dtype.itemsize, path.stat().st_size
    safety.check_claim(path, series.shape, value_bytes, present)
    page = series.keyframe
    safety.check_claim(path, page.chunks, value_bytes, present)
    if len(page.dataoffsets) < math.prod(page.chunked):  # tifffile would fill up with zeros.
        raise safety.damaged(
            path, f"{len(page.dataoffsets)} of {math.prod(page.chunked)} strips or tiles"
        )
    array, names = order_axes(path, series)
    steps = steps_mm(file)
    known = all(name in steps for name in names)
    return Pixels(
        array=array,
        palette=palette_of(file),
        spacing_mm=tuple(steps[name] for name in names) if known else None,
    )


def write(file: BinaryIO, array: np.ndarray, palette: Palette | None, suffix: str) -> None:
    """Writes (*S) gray values or palette indices, or (H, W, 3) colors; zlib-compressed."""
    if palette is not None:
        table = np.zeros((3, 256), dtype=np.uint16)
        table[:, : len(palette)] = 257 * np.asarray(palette, dtype=np.uint16).T
        indices = array.astype(np.uint8)
        tifffile.imwrite(file, indices, photometric="palette", colormap=table, compression="zlib")
        return
    is_color = array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8
    photometric = "rgb" if is_color else "minisblack"
    tifffile.imwrite(file, array, photometric=photometric, compression="zlib")


def check_chain(path: Path, file: tifffile.TiffFile) -> None:
    """Each page says where the next one is, the last one 0: tifffile stops where that is nonsense.

    A volume that was cut off would come out with fewer planes.
    """
    count = len(file.pages)  # Walks along the chain.
    place = file.pages.next_page_offset
    if place is not None and count:
        file.filehandle.seek(place)
        if file.filehandle.read(file.tiff.offsetsize) != bytes(file.tiff.offsetsize):
            raise safety.damaged(path, f"cut off or damaged after {count} pages")


def check_description(path: Path, file: tifffile.TiffFile) -> None:
    """OME and ImageJ describe axes in a tag, often at the end; without it they would be guessed."""
    form, page = file.tiff, file.pages.first
    order: Literal["little", "big"] = "little" if file.byteorder == "<" else "big"
    file.filehandle.seek(page.offset)
    count = int.from_bytes(file.filehandle.read(form.tagnosize), order)
    table = file.filehandle.read(count * form.tagsize)
    starts = range(0, len(table), form.tagsize)
    codes = {int.from_bytes(table[start : start + 2], order) for start in starts}
    if DESCRIPTION in codes and DESCRIPTION not in page.tags:
        raise safety.damaged(path, "its description is cut off")


def order_axes(path: Path, series: Any) -> tuple[np.ndarray, str]:
    """(C, *S) from tifffile's axes, and the names of S.

    Channels are C (planes of color) or S (samples); one more axis of any name is z.
    """
    array, names = series.asarray(), list(series.axes)
    page = series.keyframe
    hidden = sum(kind in ALPHA for kind in page.extrasamples)
    if "S" in names and 0 < hidden < array.shape[names.index("S")]:
        seen = array.shape[names.index("S")] - hidden  # Transparency comes last, and is none.
        array = array.take(range(seen), axis=names.index("S"))
    channel = next((name for name in ("S", "C") if name in names), None)
    if channel is None:
        array = array[None]
    else:
        array = np.moveaxis(array, names.index(channel), 0)
        names.remove(channel)
    for place in reversed(range(len(names))):
        if names[place] not in "YX" and array.shape[place + 1] == 1:
            array = array.squeeze(place + 1)
            names.pop(place)
    if len(names) not in (2, 3) or names[-2:] != ["Y", "X"]:
        raise DataError(
            f"{path}: axes {series.axes} of shape {series.shape}; images have y and x, "
            "volumes z before.",
            hint="Save each time point or position as a file of its own.",
        )
    return array, "".join("Z" * (len(names) - 2)) + "YX"


def steps_mm(file: tifffile.TiffFile) -> dict[str, float]:
    """Millimeters between pixels along Z, Y and X, as far as OME or ImageJ say them."""
    steps: dict[str, float] = {}
    if file.is_ome and file.ome_metadata:
        root = ElementTree.fromstring(file.ome_metadata)
        told = next((e.attrib for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), {})
        for name in "ZYX":
            unit = MM.get(told.get(f"PhysicalSize{name}Unit", "µm"))
            if f"PhysicalSize{name}" in told and unit is not None:
                steps[name] = float(told[f"PhysicalSize{name}"]) * unit
    elif file.is_imagej and file.imagej_metadata:
        unit = MM.get(str(file.imagej_metadata.get("unit", "")))
        tags = file.pages[0].tags  # type: ignore[union-attr]
        for name, tag in (("Y", "YResolution"), ("X", "XResolution")):
            if unit is not None and tag in tags:
                pixels, units = tags[tag].value
                steps[name] = units / pixels * unit if pixels else 0.0
        if unit is not None and "spacing" in file.imagej_metadata:
            steps["Z"] = float(file.imagej_metadata["spacing"]) * unit
    return {name: step for name, step in steps.items() if math.isfinite(step) and step > 0}


def _read_compressed(path: Path) -> Pixels:
    """tifffile needs imagecodecs for some compressions that Pillow reads by itself (LZW)."""
    try:
        return raster.read(path)
    except DataError:
        raise DataError(
            f"{path}: its compression needs another package.",
            hint='pip install "ushape[tiff]" installs it.',
        ) from None


def palette_of(file: tifffile.TiffFile) -> Palette | None:
    page = file.pages[0]
    table = getattr(page, "colormap", None)
    if table is None or getattr(page, "photometric", None) != tifffile.PHOTOMETRIC.PALETTE:
        return None
    levels = (np.asarray(table) // 257).T
    return tuple((int(r), int(g), int(b)) for r, g, b in levels)
