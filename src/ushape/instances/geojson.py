"""Outlines as GeoJSON, as QuPath imports it (File > Import objects from file)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Literal

import numpy as np

from ushape.instances.colors import Style
from ushape.instances.contours import Outline, Polygon
from ushape.instances.properties import Cell, ObjectTable

ObjectType = Literal["annotation", "detection"]
"""QuPath's kinds: to be corrected by hand; or many, and only shown and counted."""


def write_geojson(
    file: BinaryIO,
    outlines: Iterable[Outline],
    styles: Sequence[Style],
    *,
    table: ObjectTable | None = None,
    object_type: ObjectType = "annotation",
) -> None:
    """Writes a FeatureCollection: one feature for each outline, a line of the file each.

    Points are (x, y) in pixels from the image's top left corner. A feature's name is the object's
    number, its classification name and color of the class, its measurements the numbers of the
    table. Sections of a volume carry their plane.

    Args:
        file: Open for writing; nothing is kept in memory.
        outlines: In the order in which they are written.
        styles: By class index.
        table: Of the same objects; None: no measurements.

    Source:
        RFC 7946; QuPath 0.4 and later, qupath.lib.io.
    """
    measured = [{}] if table is None else [{}, *(_numbers(row) for row in table.rows())]
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


def _classification(style: Style) -> dict[str, Any]:
    return {"name": style.name, "color": list(style.color)}


def _numbers(row: Mapping[str, Cell]) -> dict[str, float]:
    """What is known and a number; QuPath's measurements are nothing else."""
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
    """Closed rings of (x, y), the shell first."""
    return [_closed(ring) for ring in (polygon.shell, *polygon.holes)]


def _closed(ring: np.ndarray) -> list[list[int]]:
    points: list[list[int]] = ring[:, ::-1].tolist()
    return [*points, points[0]]
