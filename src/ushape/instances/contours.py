"""Trace the outlines of objects and write them as GeoJSON for QuPath or as regions for ImageJ.

Outlines are polygons with holes along the edges of pixels. A point (y, x) is a corner of pixels:
(0, 0) is the top left corner of the image, (1, 1) the lower right corner of the first pixel. QuPath
and ImageJ use the same convention. Filling a polygon gives exactly the pixels of the object, and
its area is their number, because pixel centers are at half-integer coordinates. Smoothed outlines
would be shorter but have neither property.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from ushape.errors import require_package
from ushape.instances.label import Objects
from ushape.instances.properties import Cell, ObjectTable
from ushape.instances.tracing import Polygon, trace_mask, trace_plane
from ushape.transforms.morphology import RowMask
from ushape.transforms.overlay import DISTINCT, Color
from ushape.types import MaskEncoding


@dataclass(frozen=True, eq=False)
class Outline:
    """One object, or its section in one plane of a volume."""

    object_id: int
    class_index: int
    plane: int | None
    """Plane z of a volume, from 0; None for a 2D image."""

    polygons: tuple[Polygon, ...]
    """Polygons; several if components of an object touch only at corners, or meet in another
    plane."""


def trace_outlines(objects: Objects) -> Iterator[Outline]:
    """Yield the outlines of all objects, by plane and number.

    Shapes:
        objects.labels: (y, x), or (z, y, x) plane by plane.
    """
    is_flat = objects.labels.ndim == 2
    planes = objects.labels[None] if is_flat else objects.labels
    for z, plane in enumerate(planes):
        for object_id, polygons in sorted(trace_plane(plane).items()):
            class_index = int(objects.classes[object_id - 1])
            yield Outline(object_id, class_index, None if is_flat else z, tuple(polygons))


def outline_of_box(
    read: RowMask,
    shape: tuple[int, int],
    object_id: int,
    class_index: int,
    corner: Sequence[int],
    scale: Sequence[float],
) -> Outline:
    """Return the outline of an object from the region of an image that contains it.

    Args:
        read: Function that returns rows of the pixels of the object, (n, x) bool.
        shape: (y, x) of the region.
        corner: First row and first column of the part.
        scale: Length of a pixel along y and x in the coordinates of the outline.
    """

    def place(ring: np.ndarray) -> np.ndarray:
        placed = ring + np.asarray(corner)
        return placed if tuple(scale) == (1.0, 1.0) else (placed * np.asarray(scale)).round(2)

    found = trace_mask(read, shape)
    polygons = tuple(Polygon(place(one.shell), tuple(map(place, one.holes))) for one in found)
    return Outline(object_id, class_index, None, polygons)


MIN_BRIGHTNESS = 64
"""Smallest maximum of red, green and blue that is visible on dark images."""


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


def drawing_colors(styles: Sequence[ClassStyle]) -> tuple[Color, ...]:
    """Return colors of classes for pictures: those of the masks, if all are bright and distinct.

    Otherwise all classes have colors of `DISTINCT`. The background, the first class, is not drawn.
    """
    own = tuple(style.color for style in styles)
    is_visible = len(set(own)) == len(own) and all(
        max(color) >= MIN_BRIGHTNESS for color in own[1:]
    )
    if is_visible:
        return own
    return own[:1] + tuple(DISTINCT[index % len(DISTINCT)] for index in range(len(own) - 1))


def _color_of(index: int, value: int, encoding: MaskEncoding) -> Color:
    if encoding.kind == "colors":
        return (value >> 16 & 255, value >> 8 & 255, value & 255)
    if encoding.kind == "palette" and encoding.palette and 0 <= value < len(encoding.palette):
        return encoding.palette[value]
    return DISTINCT[(index - 1) % len(DISTINCT)]


ObjectType = Literal["annotation", "detection"]
"""Object types of QuPath: annotations can be edited; detections are only shown and counted."""


BLOCK_CORNERS = 1 << 14
"""Number of corners that are converted to text at a time."""


def write_geojson(
    file: BinaryIO,
    outlines: Iterable[Outline],
    styles: Sequence[ClassStyle],
    *,
    table: ObjectTable | None = None,
    object_type: ObjectType = "annotation",
) -> None:
    """Write a FeatureCollection with one feature, on a separate line, for each outline.

    Points are (x, y) in pixels from the image's top left corner. The name of a feature is the
    number of the object; its classification is name and color of the class; its measurements are
    the numbers of the table. Sections of a volume contain their plane.

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
        style = styles[outline.class_index]
        properties = {
            "objectType": object_type,
            "name": str(outline.object_id),
            "classification": {"name": style.name, "color": list(style.color)},
        }
        if table is not None:
            properties["measurements"] = measured[outline.object_id]
        file.write(separator + b'{"type":"Feature","geometry":')
        for text in _geometry(outline):
            file.write(text.encode())
        file.write(f',"properties":{_as_json(properties)}}}'.encode())
        separator = b",\n"
    file.write(b"\n]}\n")


def _measurements(row: Mapping[str, Cell]) -> dict[str, float]:
    """Return the known numbers of a row; measurements in QuPath are always numbers."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and name != "id"
    }


def _geometry(outline: Outline) -> Iterator[str]:
    """Yield a geometry as JSON, piece by piece, since an outline may have millions of corners."""
    is_one = len(outline.polygons) == 1
    yield f'{{"type":"{"Polygon" if is_one else "MultiPolygon"}","coordinates":'
    parts = (_bracketed(map(_closed, (one.shell, *one.holes))) for one in outline.polygons)
    yield from next(parts) if is_one else _bracketed(parts)
    if outline.plane is not None:
        yield f',"plane":{_as_json({"c": -1, "z": outline.plane, "t": 0})}'
    yield "}"


def _closed(ring: np.ndarray) -> Iterator[str]:
    """Yield a ring of (x, y), which ends with its first corner."""
    corners = np.concatenate([ring, ring[:1]])[:, ::-1]
    blocks = (corners[at : at + BLOCK_CORNERS] for at in range(0, len(corners), BLOCK_CORNERS))
    yield from _bracketed([_as_json(block.tolist())[1:-1]] for block in blocks)


def _bracketed(items: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield a JSON list, from the pieces of its items."""
    yield "["
    for number, item in enumerate(items):
        if number:
            yield ","
        yield from item
    yield "]"


def _as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


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
    of a volume contain their slice, counted from 1, also in the name.

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
