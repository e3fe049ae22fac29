"""GeoJSON files of QuPath."""

import json
import math

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.instances.contours import ClassStyle, trace_outlines, write_geojson
from ushape.instances.label import Objects
from ushape.io.annotations.geojson import is_geojson, read_geojson
from ushape.io.annotations.shape_files import codes_of_labels
from ushape.io.annotations.shapes import IGNORE_LABEL, draw_shapes

SIZE = (20, 30)


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(coordinates, kind="Polygon", name="cell", **properties):
    if name:
        properties["classification"] = {"name": name}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def save(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def draw(path, classes=("cell",)):
    return draw_shapes(read_geojson(path).shapes, SIZE, codes_of_labels(classes))


def test_polygons_with_holes_and_of_several_parts_are_one_object(tmp_path):
    ring = feature([box(1, 1, 9, 9), box(3, 3, 6, 6)])
    parts = feature([[box(12, 1, 15, 4)], [box(20, 1, 22, 3)]], "MultiPolygon")
    drawn = draw(save(tmp_path / "a.geojson", ring, parts))
    assert np.bincount(drawn.instances.numbers.ravel())[1:].tolist() == [64 - 9, 9 + 4]
    assert drawn.instances.stated == 2


def test_touching_polygons_stay_apart_and_overlaps_are_counted(tmp_path):
    path = save(
        tmp_path / "a.geojson",
        feature([box(0, 0, 3, 3)]),
        feature([box(3, 0, 6, 4)]),
        feature([box(5, 0, 9, 5)]),
    )
    drawn = draw(path)
    assert drawn.instances.stated == 3
    # The largest one is drawn first, so one column of it is covered.
    assert drawn.instances.overlap_px == 4
    assert sorted(np.bincount(drawn.instances.numbers.ravel())[1:].tolist()) == [9, 12, 16]


def test_small_areas_within_large_ones_are_drawn_last(tmp_path):
    small, large = feature([box(4, 4, 6, 6)], name="b"), feature([box(0, 0, 10, 10)], name="a")
    drawn = draw(save(tmp_path / "a.geojson", small, large), ("a", "b"))
    assert np.bincount(drawn.codes.ravel()).tolist() == [500, 96, 4]


def test_labels_are_classifications(tmp_path):
    outline = [box(0, 0, 3, 3)]
    unnamed = feature(outline, name=None, objectType="detection")
    parts = feature(outline, name=None)
    parts["properties"] = {"classification": {"names": ["Tumor", "Positive"]}}
    bare = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": outline}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([feature(outline, name="Ignore*"), unnamed, parts, bare]))
    labels = [shape.label for shape in read_geojson(path).shapes]
    assert labels == [IGNORE_LABEL, "detection", "Tumor: Positive", "object"]
    assert is_geojson(path)


@pytest.mark.parametrize("kind", ["Point", "LineString", "MultiPoint"])
def test_points_and_lines_have_no_area(kind, tmp_path):
    path = save(tmp_path / "a.geojson", feature([1, 1], kind))
    assert read_geojson(path).shapes[0].area is None


def test_geojson_of_ushape_is_read_as_it_was_written(tmp_path):
    labels = np.zeros(SIZE, np.int32)
    labels[2:9, 2:9] = 1
    labels[4:6, 4:6] = 0
    labels[2:9, 9:12] = 2
    labels[9:12, 12:15] = 2
    objects = Objects(labels=labels, classes=np.array([2, 1], np.uint8))
    styles = [ClassStyle(name, (1, 2, 3)) for name in ("background", "cell", "tumor")]
    with (tmp_path / "a.geojson").open("wb") as file:
        write_geojson(file, trace_outlines(objects), styles)
    drawn = draw(tmp_path / "a.geojson", ("cell", "tumor"))
    np.testing.assert_array_equal(drawn.instances.numbers, labels)
    np.testing.assert_array_equal(drawn.codes, np.choose(labels, [0, 2, 1]))


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"geometry": None},
        feature([]),
        feature([], "MultiPolygon"),
        feature([[["a", 1], [2, 3]]]),
        feature([[1, 2, 3]]),
        feature([box(0, 0, 3, 3)]) | {"properties": {"classification": 3}},
        feature([[[1], [2], [3], [4], [5], [6]]]),
        feature([[[1, 2], [3, 10**400], [5, 6]]]),
        {"geometry": {"type": "Polygon", "coordinates": [box(0, 0, 3, 3)], "plane": {"z": 2}}},
        {"geometry": {"type": "Polygon", "coordinates": [], "plane": {"z": math.inf}}},
    ],
)
def test_invalid_features_are_refused(entry, tmp_path):
    with raises_code(DataError, "shapes_invalid"):
        read_geojson(save(tmp_path / "a.geojson", entry))


@pytest.mark.parametrize("content", ["3", "{}", '{"type": "FeatureCollection"}'])
def test_other_json_is_refused(content, tmp_path):
    (tmp_path / "a.geojson").write_text(content)
    with raises_code(DataError, "shapes_invalid"):
        read_geojson(tmp_path / "a.geojson")
