"""Write object outlines for other programs: GeoJSON for QuPath, regions of interest for ImageJ."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from ushape.errors import require_package
from ushape.instances.contours import Outline, Polygon
from ushape.instances.properties import Cell, ObjectTable
from ushape.types import MaskEncoding

Color = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

DISTINCT: tuple[Color, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
"""Colors that can be distinguished with every kind of color vision (Okabe and Ito 2008, without
black)."""


@dataclass(frozen=True)
class ClassStyle:
    """Name and color of a class."""

    name: str
    color: Color


def class_styles(
    names: Sequence[str], values: Sequence[int], encoding: MaskEncoding
) -> tuple[ClassStyle, ...]:
    """Return name and color of each class, in the colors of the user's masks if they have any.

    Args:
        names: Name of each class, background first.
        values: Mask value, palette index or color code of each class.
        encoding: Encoding of the masks.
    """
    return tuple(
        ClassStyle(name, _color_of(index, value, encoding))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
    )


def _color_of(index: int, value: int, encoding: MaskEncoding) -> Color:
    if encoding.kind == "colors":
        return (value >> 16 & 255, value >> 8 & 255, value & 255)
    if encoding.kind == "palette" and encoding.palette and 0 <= value < len(encoding.palette):
        return encoding.palette[value]
    return DISTINCT[(index - 1) % len(DISTINCT)]


ObjectType = Literal["annotation", "detection"]
"""Object types of QuPath: annotations can be edited; detections are only shown and counted."""


def write_geojson(
    file: BinaryIO,
    outlines: Iterable[Outline],
    styles: Sequence[ClassStyle],
    *,
    table: ObjectTable | None = None,
    object_type: ObjectType = "annotation",
) -> None:
    """Write a FeatureCollection with one feature, on a line of its own, for each outline.

    Points are (x, y) in pixels from the image's top left corner. The name of a feature is the
    number of the object; its classification is name and color of the class; its measurements are
    the numbers of the table. Sections of a volume state their plane.

    Args:
        file: File that is open for writing; features are written one by one.
        outlines: Outlines in the order in which they are written.
        styles: Styles by class index.
        table: Measurements of the same objects; None: no measurements.

    Source:
        RFC 7946; QuPath 0.4 and later, qupath.lib.io.
    """
    measured = [{}] if table is None else [{}, *(_measurements(row) for row in table.rows())]
    file.write(b'{"type":"FeatureCollection","features":[')
    separator = b"\n"
    for outline in outlines:
        properties = {
            "objectType": object_type,
            "name": str(outline.object_id),
            "classification": _classification(styles[outline.class_index]),
        }
        if table is not None:
            properties["measurements"] = measured[outline.object_id]
        feature = {"type": "Feature", "geometry": _geometry(outline), "properties": properties}
        file.write(separator + json.dumps(feature, separators=(",", ":"), allow_nan=False).encode())
        separator = b",\n"
    file.write(b"\n]}\n")


def _classification(style: ClassStyle) -> dict[str, Any]:
    return {"name": style.name, "color": list(style.color)}


def _measurements(row: Mapping[str, Cell]) -> dict[str, float]:
    """Return the known numbers of a row; measurements in QuPath are always numbers."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and name != "id"
    }


def _geometry(outline: Outline) -> dict[str, Any]:
    parts = [_coordinates(polygon) for polygon in outline.polygons]
    geometry: dict[str, Any] = (
        {"type": "Polygon", "coordinates": parts[0]}
        if len(parts) == 1
        else {"type": "MultiPolygon", "coordinates": parts}
    )
    if outline.plane is not None:
        geometry["plane"] = {"c": -1, "z": outline.plane, "t": 0}
    return geometry


def _coordinates(polygon: Polygon) -> list[list[list[int]]]:
    """Return closed rings of (x, y), the shell first."""
    return [_closed(ring) for ring in (polygon.shell, *polygon.holes)]


def _closed(ring: np.ndarray) -> list[list[int]]:
    points: list[list[int]] = ring[:, ::-1].tolist()
    return [*points, points[0]]


MAX_INTEGER_COORDINATE = 60_535
"""Largest coordinate that ImageJ stores in 16 bits, which begin at -5000."""

ENTRY_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of each entry, constant so that equal objects give equal files."""

MOVE, LINE, CLOSE = 0.0, 1.0, 4.0
"""Segment types of a path, as in java.awt.geom.PathIterator."""


def write_rois(file: BinaryIO, outlines: Iterable[Outline], styles: Sequence[ClassStyle]) -> None:
    """Write a zip with one region for each outline: 00001-tumor.roi, 00001-z0003-tumor.roi.

    An outline in one piece and without holes is a traced region, any other a composite one.
    Coordinates are corners of pixels, so that the area in ImageJ is the number of pixels. Sections
    of a volume state their slice, counted from 1, also in the name.

    Args:
        file: Seekable file that is open for writing.
        styles: Styles by class index.

    Raises:
        MissingPackageError: if roifile is not installed.
    """
    roifile = require_package("roifile", "imagej", "Writing regions for ImageJ")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for outline in outlines:
            style = styles[outline.class_index]
            name = _name_of(outline, style)
            region = _region(roifile, outline)
            region.name = name
            region.position = 0 if outline.plane is None else outline.plane + 1
            region.stroke_color = bytes((255, *style.color))
            entry = zipfile.ZipInfo(f"{name}.roi", ENTRY_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, region.tobytes())


def _region(roifile: Any, outline: Outline) -> Any:
    rings = [ring for one in outline.polygons for ring in (one.shell, *one.holes)]
    top, left = np.min([ring.min(axis=0) for ring in rings], axis=0).tolist()
    bottom, right = np.max([ring.max(axis=0) for ring in rings], axis=0).tolist()
    region = roifile.ImagejRoi(top=top, left=left, bottom=bottom, right=right)
    if len(rings) == 1 and max(bottom, right) <= MAX_INTEGER_COORDINATE:
        region.roitype = roifile.ROI_TYPE.TRACED
        region.integer_coordinates = rings[0][:, ::-1] - (left, top)
        region.n_coordinates = len(rings[0])
    else:
        region.roitype = roifile.ROI_TYPE.RECT  # Required by ImageJ for composites.
        region.multi_coordinates = np.concatenate([_path(ring) for ring in rings])
        region.shape_roi_size = len(region.multi_coordinates)
    return region


def _path(ring: np.ndarray) -> np.ndarray:
    """Convert corners (P, 2) to segments of a closed path; float32 is exact up to 2^24 pixels."""
    steps = np.empty((len(ring), 3), dtype=np.float32)
    steps[:, 0], steps[:, 1:] = LINE, ring[:, ::-1]
    steps[0, 0] = MOVE
    return np.append(steps.ravel(), np.float32(CLOSE))


def _name_of(outline: Outline, style: ClassStyle) -> str:
    """Return a unique name that sorts in order and is valid as a file name."""
    plane = "" if outline.plane is None else f"-z{outline.plane + 1:04d}"
    legal = re.sub(r"[^\w .()+-]", "_", style.name).strip()
    return f"{outline.object_id:05d}{plane}-{legal}"
