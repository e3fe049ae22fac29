"""TIFF files, through tifffile: tiled, several pages, 1 to 64 bits, BigTIFF, OME, ImageJ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO, Literal
from xml.etree import ElementTree

import numpy as np
import tifffile

from ushape.errors import DataError, MissingPackageError
from ushape.io import files, raster
from ushape.io.orientation import as_displayed
from ushape.types import MaskEncoding, Palette, Pixels, TiffMetadata

HAS_CODECS = tifffile.tifffile.imagecodecs.__name__ == "imagecodecs"
"""Whether tifffile can unpack LZW, JPEG, Zstandard and other compressions."""

IMAGEJ_TYPES = ("uint8", "uint16", "float32")
"""Types of values that ImageJ reads."""

TIFF_UNIT_MM = {
    "Å": 1e-7, "nm": 1e-6, "nanometer": 1e-6, "µm": 1e-3, "μm": 1e-3, "um": 1e-3, "micron": 1e-3,
    "microns": 1e-3, "micrometer": 1e-3, "\\u00B5m": 1e-3, "mm": 1.0, "millimeter": 1.0, "cm": 10.0,
    "m": 1e3, "inch": 25.4, "in": 25.4,
}  # fmt: skip
"""Length in millimeters of the units that OME-TIFF and ImageJ write."""

ALPHA = (1, 2)
"""Values of TIFF's tag ExtraSamples that mean transparency; 0 is a channel like the others."""

DESCRIPTION = 270
"""Number of TIFF's tag ImageDescription."""

GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
"""Tags of GeoTIFF with the position of the pixels on the earth: ModelPixelScale, ModelTiepoint,
ModelTransformation, the three tags of GeoKeys, and GDAL's rational polynomial coefficients. The
value for missing pixels (GDAL_NODATA) is that of the image and has no meaning in a mask."""

IMAGEJ_KEYS = ("unit", "spacing", "finterval", "fps")
"""Entries of ImageJ's description that are repeated in predictions."""


def read(path: Path) -> Pixels:
    """Read the pixels as stored: (C, y, x), or (C, z, y, x) if the file has several planes.

    The first image series is read, at its full resolution. The spacing is known for OME-TIFF and
    ImageJ files that specify a unit; a resolution for printing is ignored. Values of an image that
    stores white as 0 are inverted, so that they are those that are shown.

    Raises:
        DataError: if the file is not a TIFF, is truncated, or has an unsupported structure.
        MissingPackageError: if its compression needs imagecodecs, which is not installed.
    """
    with files.reading(path):
        try:
            # An OME-TIFF could name any other file as the place of its planes.
            with tifffile.TiffFile(path, _multifile=False) as file:
                return _read_open(path, file)
        except (ValueError, ImportError) as error:
            if not lacks_codec(error):
                raise
        raise missing_codec(path)


def _read_open(path: Path, file: tifffile.TiffFile) -> Pixels:
    series = first_series(path, file)
    value_bytes, present = series.dtype.itemsize, path.stat().st_size
    page = series.keyframe
    files.check_claim(path, series.shape, value_bytes, present)
    files.check_claim(path, page.chunks, value_bytes, present)
    check_segment_count(path, page)
    array, names, alpha = arrange_series(path, series)
    orientation = orientation_of(page)
    if orientation != 1:
        array = as_displayed(array, orientation)
        alpha = as_displayed(alpha, orientation) if alpha is not None else None
        names = names[:-2] + "XY" if orientation in raster.SWAPPING else names
    steps = steps_mm(file)
    known = all(name in steps for name in names)
    return Pixels(
        array=array,
        palette=palette_of(file),
        spacing_mm=tuple(steps[name] for name in names) if known else None,
        alpha=alpha,
        white_is_zero=stores_white_as_zero(page),
        # The place on the earth is that of the stored pixels.
        tiff=metadata_of(file, series.axes) if orientation == 1 else None,
        orientation=orientation,
    )


def read_size(path: Path) -> tuple[int, ...]:
    """Return S according to the header.

    Raises:
        DataError: as for `read`, except for the size.
    """
    with files.reading(path), tifffile.TiffFile(path, _multifile=False) as file:
        series = first_series(path, file)
        sizes = zip(series.axes, series.shape, strict=True)
        size = tuple(n for name, n in sizes if name in "YX" or (n > 1 and name not in "SC"))
        is_swapped = orientation_of(series.keyframe) in raster.SWAPPING
        return (*size[:-2], size[-1], size[-2]) if is_swapped else size


def read_orientation(path: Path) -> int:
    """Return the orientation in the tag, 1 to 8.

    Raises:
        DataError: if the file is not a TIFF.
    """
    with files.reading(path), tifffile.TiffFile(path, _multifile=False) as file:
        return orientation_of(file.pages.first)


def orientation_of(page: Any) -> int:
    """Return the orientation of a page, 1 to 8."""
    tag = page.tags.get(raster.ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(2, 9) else 1


def write(
    file: BinaryIO, array: np.ndarray, encoding: MaskEncoding, like: TiffMetadata | None
) -> None:
    """Write (*S) gray values or palette indices, or (y, x, C) colors, compressed with zlib.

    Args:
        like: Metadata of the image, which are repeated.
    """
    like = like or TiffMetadata()
    options: dict[str, Any] = {"extratags": like.geo_tags}
    is_flat = encoding.kind in ("values", "one_hot") and not encoding.white_is_zero
    # ImageJ defines no other types, and no palettes in addition to its axes.
    if is_flat and len(like.imagej_axes) == array.ndim and str(array.dtype) in IMAGEJ_TYPES:
        options["imagej"] = True
        options["metadata"] = {"axes": like.imagej_axes, **like.imagej}
        options["resolution"] = like.resolution
    options |= photometric_of(encoding)
    shown = invert(array) if encoding.white_is_zero else array
    tifffile.imwrite(file, shown, compression="zlib", **options)


def photometric_of(encoding: MaskEncoding) -> dict[str, Any]:
    """Return the arguments of tifffile that define the meaning of the values."""
    if encoding.kind == "palette" and encoding.palette:
        table = np.zeros((3, 256), dtype=np.uint16)
        table[:, : len(encoding.palette)] = 257 * np.asarray(encoding.palette, dtype=np.uint16).T
        return {"photometric": "palette", "colormap": table}
    if encoding.kind == "alpha":
        return {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    if encoding.kind == "colors":
        return {"photometric": "rgb"}
    return {"photometric": "miniswhite" if encoding.white_is_zero else "minisblack"}


def stores_white_as_zero(page: Any) -> bool:
    """Whether the unsigned values of a page are shown inverted."""
    white = getattr(page, "photometric", None) == tifffile.PHOTOMETRIC.MINISWHITE
    return white and page.dtype is not None and page.dtype.kind in "bu"


def invert(values: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Exchange black and white in unsigned values.

    Args:
        bits: Bits of a stored value; None: those of the type.
    """
    if values.dtype == bool:
        return ~values
    highest = np.iinfo(values.dtype).max if bits is None else (1 << bits) - 1
    return values.dtype.type(highest) - values


def metadata_of(file: tifffile.TiffFile, axes: str) -> TiffMetadata:
    """Return the metadata of the first page about the position of the pixels.

    Args:
        axes: Names of the axes of the series.
    """
    tags = file.pages.first.tags
    found = [tags[code] for code in GEO_TAGS if code in tags]
    geo = tuple((tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in found)
    own = file.imagej_metadata if file.is_imagej else None
    if not own:
        return TiffMetadata(geo_tags=geo)
    resolution = None
    if "XResolution" in tags and "YResolution" in tags:
        (x, x_units), (y, y_units) = (tags[f"{name}Resolution"].value for name in "XY")
        resolution = (x / x_units, y / y_units) if x_units and y_units else None
    return TiffMetadata(
        geo_tags=geo,
        imagej_axes="".join(name for name in axes if name not in "CS"),
        imagej={key: own[key] for key in IMAGEJ_KEYS if key in own},
        resolution=resolution,
    )


def first_series(path: Path, file: tifffile.TiffFile) -> Any:
    """Return tifffile's first image series, after checking that no page or tag of it is missing.

    Raises:
        DataError: if the file is cut off, has no images, or refers to other files.
    """
    _check_chain(path, file)
    _check_description(path, file)
    if not file.series:
        raise files.damaged(path, "the TIFF contains no images")
    series = file.series[0]
    is_part = file.is_ome and series.kind != "ome"
    if is_part or any(page is None for page in series.pages):
        raise DataError(
            f"{path}: some planes are stored in other files, or the OME-XML is damaged.",
            code="pixels_in_other_file",
            hint="Save the image as a single OME-TIFF file.",
        )
    return series


def check_segment_count(path: Path, page: Any) -> None:
    """Raise DataError if strips or tiles of a page are missing: tifffile would return zeros."""
    wanted = math.prod(page.chunked)
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found < wanted:
        raise files.damaged(path, f"only {found} of {wanted} strips or tiles are present")


def _check_chain(path: Path, file: tifffile.TiffFile) -> None:
    """Raise DataError if the chain of pages does not end with the offset 0.

    tifffile stops at an impossible offset, so a truncated volume would be read with fewer planes.
    """
    count = len(file.pages)  # Follows the chain.
    place = file.pages.next_page_offset
    if place is not None and count:
        file.filehandle.seek(place)
        if file.filehandle.read(file.tiff.offsetsize) != bytes(file.tiff.offsetsize):
            raise files.damaged(path, f"the file is cut off or damaged after {count} pages")


def _check_description(path: Path, file: tifffile.TiffFile) -> None:
    """Raise DataError if the tag in which OME and ImageJ describe the axes is unreadable.

    It often stands at the end of the file; without it the axes would be guessed.
    """
    form, page = file.tiff, file.pages.first
    order: Literal["little", "big"] = "little" if file.byteorder == "<" else "big"
    file.filehandle.seek(page.offset)
    count = int.from_bytes(file.filehandle.read(form.tagnosize), order)
    table = file.filehandle.read(count * form.tagsize)
    starts = range(0, len(table), form.tagsize)
    codes = {int.from_bytes(table[start : start + 2], order) for start in starts}
    if DESCRIPTION in codes and DESCRIPTION not in page.tags:
        raise files.damaged(path, "the description of the image is cut off")


def arrange_series(path: Path, series: Any) -> tuple[np.ndarray, str, np.ndarray | None]:
    """Return a tifffile series as (C, *S), the names of S (YX or ZYX), and its opacity (*S).

    Channels are the axis C (separate planes) or S (samples of a pixel); one further axis, whatever
    its name, is z.

    Raises:
        DataError: if the series has more axes.
    """
    array, names = series.asarray(), list(series.axes)
    page = series.keyframe
    alpha, hidden = None, sum(kind in ALPHA for kind in page.extrasamples)
    if "S" in names and 0 < hidden < array.shape[names.index("S")]:
        seen = array.shape[names.index("S")] - hidden  # Transparency comes last.
        alpha = array.take(seen, axis=names.index("S"))
        array = array.take(range(seen), axis=names.index("S"))
    if stores_white_as_zero(page):
        bits = page.bitspersample
        array = invert(array, bits if isinstance(bits, int) else None)
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
            f"{path}: the axes {series.axes} of shape {series.shape} are neither (y, x) nor "
            "(z, y, x).",
            code="unsupported_axes",
            hint="Save each time point or position as a separate file.",
        )
    alpha = alpha.reshape(array.shape[1:]) if alpha is not None else None
    return array, "".join("Z" * (len(names) - 2)) + "YX", alpha


def steps_mm(file: tifffile.TiffFile) -> dict[str, float]:
    """Return the distance between pixels in millimeters along Z, Y and X, where it is specified."""
    steps: dict[str, float] = {}
    if file.is_ome and file.ome_metadata:
        root = ElementTree.fromstring(file.ome_metadata)
        found = (e.attrib for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels")
        attributes = next(found, {})
        for name in "ZYX":
            unit = TIFF_UNIT_MM.get(attributes.get(f"PhysicalSize{name}Unit", "µm"))
            if f"PhysicalSize{name}" in attributes and unit is not None:
                steps[name] = float(attributes[f"PhysicalSize{name}"]) * unit
    elif file.is_imagej and file.imagej_metadata:
        unit = TIFF_UNIT_MM.get(str(file.imagej_metadata.get("unit", "")))
        tags = file.pages[0].tags  # type: ignore[union-attr]
        for name, tag in (("Y", "YResolution"), ("X", "XResolution")):
            if unit is not None and tag in tags:
                pixels, units = tags[tag].value
                steps[name] = units / pixels * unit if pixels else 0.0
        if unit is not None and "spacing" in file.imagej_metadata:
            steps["Z"] = float(file.imagej_metadata["spacing"]) * unit
    return {name: step for name, step in steps.items() if math.isfinite(step) and step > 0}


def lacks_codec(error: Exception) -> bool:
    """Whether tifffile raised an exception because imagecodecs is not installed."""
    # Without imagecodecs, tifffile imports the module for Zstandard of Python 3.14.
    return "imagecodecs" in str(error) or (
        isinstance(error, ImportError) and "compression" in str(error)
    )


def missing_codec(path: Path) -> MissingPackageError:
    """Return the error for a compression that needs imagecodecs."""
    return MissingPackageError(
        f"{path}: the compression of this TIFF needs the package imagecodecs, which is not "
        "installed.",
        hint="Install it with: pip install imagecodecs",
    )


def check_codecs(path: Path) -> None:
    """Check, without reading pixels, that the compression of a TIFF can be unpacked.

    Raises:
        MissingPackageError: if it needs imagecodecs, which is not installed.
    """
    if HAS_CODECS:
        return
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            page = file.pages.first
            page.decode(b"", 0)
    except (ValueError, ImportError, NotImplementedError) as error:
        if lacks_codec(error):
            raise missing_codec(path) from None
    except Exception:
        return  # The reader reports what is wrong with the file.


def palette_of(file: tifffile.TiffFile) -> Palette | None:
    """Return the palette of a palette image."""
    page = file.pages[0]
    table = getattr(page, "colormap", None)
    if table is None or getattr(page, "photometric", None) != tifffile.PHOTOMETRIC.PALETTE:
        return None
    levels = (np.asarray(table) // 257).T
    return tuple((int(r), int(g), int(b)) for r, g, b in levels)
