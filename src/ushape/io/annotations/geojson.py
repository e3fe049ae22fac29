"""GeoJSON of QuPath: the polygons of one image, with their classifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import DataError
from ushape.io.annotations.shapes import (
    IGNORE_LABEL,
    ImageShapes,
    Outline,
    Rings,
    Shape,
    as_points,
)
from ushape.io.caching import keep_latest
from ushape.io.files import JSON_HINT, last_line, read_head, read_json

IGNORED = "ignore*"
"""QuPath's class of areas that are not used, in lower case."""


@keep_latest(files=2)
def read_geojson(path: Path) -> ImageShapes:
    """Read the polygons of a FeatureCollection, of a list of features, or of a single feature.

    Each feature is an object, also if it is a MultiPolygon; its label is the name of its
    classification, or its object type if it has none. Larger features come first, so that smaller
    ones within them cover them. The class `Ignore*` of QuPath is excluded from loss and scores.
    Points and lines have no area.

    Raises:
        DataError: if the file cannot be read, an entry is invalid, or a feature lies on another
            plane of a stack.
    """
    values = read_json(path, DataError, code="json_invalid", hint=JSON_HINT)
    found: list[tuple[float, list[Shape]]] = []
    for number, feature in enumerate(_features_of(path, values), start=1):
        place = f"feature {number}"
        try:
            found.append(_shapes_of(feature, place, str(number)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError,
                OverflowError) as error:  # fmt: skip
            raise DataError(
                f"{path}: {place} cannot be read ({last_line(error)}).",
                code="shapes_invalid",
                hint="A feature has a geometry of type Polygon or MultiPolygon with coordinates "
                "[[[x, y], ...]] in pixels, on the only plane of its image.",
            ) from None
    found.sort(key=lambda one: -one[0])
    return ImageShapes(shapes=tuple(shape for _, own in found for shape in own))


def is_geojson(path: Path) -> bool:
    """Return whether a file is GeoJSON with features, by its first bytes."""
    if path.suffix.lower() not in (".json", ".geojson") or path.name.startswith("."):
        return False
    head = read_head(path)
    return b'"Feature' in head and b'"type"' in head


def _features_of(path: Path, values: Any) -> list[Any]:
    if isinstance(values, dict) and values.get("type") == "Feature":
        return [values]
    features = values.get("features") if isinstance(values, dict) else values
    if not isinstance(features, list):
        raise DataError(
            f"{path}: the file has no list of features.",
            code="shapes_invalid",
            hint="Export the objects from QuPath again (File > Export objects as GeoJSON).",
        )
    return features


def _shapes_of(feature: Any, place: str, group: str) -> tuple[float, list[Shape]]:
    """Return the area of a feature, and a shape for each of its polygons."""
    geometry, properties = feature["geometry"], feature.get("properties") or {}
    plane = geometry.get("plane") or {}
    if max(int(plane.get("z", 0)), int(plane.get("t", 0))) > 0:
        raise ValueError("it lies on a different plane than the first one")
    label, kind = _label_of(properties), str(geometry["type"])
    if kind not in ("Polygon", "MultiPolygon"):
        return 0.0, [Shape(label=label, place=place, area=None, kind=kind)]
    coordinates = geometry["coordinates"]
    polygons = [coordinates] if kind == "Polygon" else coordinates
    shapes, area = [], 0.0
    for rings in polygons:
        outlines = tuple(Outline(points=as_points([point[:2] for point in ring])) for ring in rings)
        area += _enclosed(outlines[0].points)
        shapes.append(
            Shape(label=label, place=place, area=Rings(outlines=outlines), kind=kind, group=group)
        )
    if not shapes:
        raise ValueError("it has no polygon")
    return area, shapes


def _label_of(properties: dict[str, Any]) -> str:
    classification = properties.get("classification") or {}
    stated = classification.get("name") or classification.get("names")
    name = ": ".join(map(str, stated)) if isinstance(stated, list) else stated
    label = str(name or properties.get("objectType") or properties.get("object_type") or "object")
    return IGNORE_LABEL if label.lower() == IGNORED else label


def _enclosed(points: np.ndarray) -> float:
    """Return the area of a polygon."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
