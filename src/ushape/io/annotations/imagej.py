"""Regions of interest of ImageJ: a zip of .roi files, or a single .roi file."""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ushape.errors import DataError, require_package
from ushape.io.annotations.labelme import CIRCLE_POINTS
from ushape.io.annotations.shapes import ImageShapes, Outline, Rings, Shape, as_points
from ushape.io.caching import keep_latest
from ushape.io.files import last_line

REGION = "region"
"""Label of regions that have neither a group nor a label in their name."""

LABELED_NAME = re.compile(r"\d+(?:-z\d+)?-(?P<label>.*[^\W\d_].*)$")
"""Name of a region with a label, as ushape writes it: 00001-tumor."""

OVERLAYS = {"text": "text label", "arrow": "line with an arrow", "image": "picture overlay"}
"""Regions that are drawn on an image and mark no object: their subtype, and their name."""

MAX_BYTES = 2**29
"""Largest size of all regions of a file; a zip may claim any."""


@keep_latest(files=2)
def read_rois(path: Path) -> ImageShapes:
    """Read regions with an area: polygons, freehand and traced ones, rectangles, ovals, composites.

    Each region is an object. Its label is `group N` if it belongs to a group of ImageJ; otherwise
    the label in a name such as 00001-tumor; otherwise `region`. Lines, points, texts, arrows and
    pictures have no area.

    Raises:
        DataError: if the file cannot be read, or a region lies on another slice of a stack.
        MissingPackageError: if roifile is not installed.
    """
    roifile = require_package("roifile", "imagej", str(path))
    shapes = []
    try:
        for number, (name, content) in enumerate(_regions_in(path), start=1):
            place = f"region {number} ({name})"
            region = roifile.ImagejRoi.frombytes(content)
            slices = region.position, region.z_position, region.t_position
            if max(slices) > 1:
                raise ValueError(f"{place} lies on slice {max(slices)} of a stack")
            shapes.append(_shape_of(roifile, region, place, name))
    except Exception as error:  # On damaged files, the parsers raise nearly every kind.
        raise DataError(
            f"{path}: the regions cannot be read ({last_line(error)}).",
            code="shapes_invalid",
            hint="Save the regions of an image with a single plane in ImageJ's ROI Manager (More "
            "> Save), as x.zip for the image x.tif.",
        ) from None
    return ImageShapes(shapes=tuple(shapes))


def is_roi_file(path: Path) -> bool:
    """Return whether a file is a .roi file, or a zip that contains some."""
    if path.suffix.lower() == ".roi":
        return True
    if path.suffix.lower() != ".zip":
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return any(map(_is_region, file.namelist()))
    except Exception:  # It is another kind of file, or damaged.
        return False


def _is_region(entry: str) -> bool:
    """Return whether an entry of a zip is a region; macOS adds __MACOSX/._x.roi to x.roi."""
    path = PurePosixPath(entry)
    is_hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() == ".roi" and not is_hidden


def _regions_in(path: Path) -> list[tuple[str, bytes]]:
    """Return name and content of each region, in the order of the file."""
    if path.suffix.lower() == ".roi":
        return [(path.stem, path.read_bytes())]
    with zipfile.ZipFile(path) as archive:
        entries = [one for one in archive.infolist() if _is_region(one.filename)]
        if (claimed := sum(entry.file_size for entry in entries)) > MAX_BYTES:
            raise ValueError(f"their size is {claimed} bytes according to the file")
        return [(Path(one.filename).stem, archive.read(one)) for one in entries]


def _shape_of(roifile: Any, region: Any, place: str, name: str) -> Shape:
    kind, part = region.roitype.name.lower(), region.subtype.name.lower()
    named = LABELED_NAME.match(name)
    label = named["label"] if named else REGION
    label = f"group {region.group}" if region.group else label
    area: Outline | Rings | None = None
    if part in OVERLAYS:
        kind = OVERLAYS[part]
    elif region.shape_roi_size:
        rings = region.coordinates(multi=True)
        area = Rings(outlines=tuple(Outline(points=as_points(ring)) for ring in rings))
    elif kind in ("rect", "oval"):
        if region.rounded_rect_arc_size:
            raise ValueError(f"{place} is a rectangle with rounded corners")
        area = Outline(points=_within_box(region, kind))
    elif kind in ("polygon", "freehand", "traced"):
        points = as_points(region.coordinates())
        if not len(points):
            raise ValueError(f"{place} has no coordinates")
        area = Outline(points=points)
    return Shape(label=label, place=place, area=area, kind=kind)


def _within_box(region: Any, kind: str) -> np.ndarray:
    """Return the corners of a rectangle, or points of the ellipse in it, as (x, y)."""
    left, top = float(region.left), float(region.top)
    width, height = region.right - left, region.bottom - top
    if region.subpixelrect:
        left, top, width, height = region.xd, region.yd, region.widthd, region.heightd
    if kind == "rect":
        across, down = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    else:
        angles = np.linspace(0, 2 * math.pi, CIRCLE_POINTS, endpoint=False)
        across, down = (1 + np.cos(angles)) / 2, (1 + np.sin(angles)) / 2
    return np.stack([left + width * across, top + height * down], axis=1)
