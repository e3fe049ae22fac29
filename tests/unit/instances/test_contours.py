import io
import json
import sys
import zipfile

import numpy as np
import pytest
import roifile
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import draw

from codes import raises_code
from ushape.errors import DataError
from ushape.instances import contours
from ushape.instances.contours import (
    DISTINCT,
    ClassStyle,
    Outline,
    Polygon,
    class_styles,
    drawing_colors,
    trace_outlines,
    write_geojson,
    write_rois,
)
from ushape.instances.label import Objects, label_objects
from ushape.instances.properties import measure_table
from ushape.types import MaskEncoding

LABELS = arrays.arrays(np.int32, (7, 8), elements=st.sampled_from([0, 0, 1, 2]))


def as_objects(labels):
    labels = np.asarray(labels, dtype=np.int32)
    return Objects(labels=labels, classes=np.ones(labels.max(initial=0), dtype=np.uint8))


def as_shape(outline: Outline):
    return shapely.MultiPolygon(
        [(one.shell[:, ::-1], [hole[:, ::-1] for hole in one.holes]) for one in outline.polygons]
    )


def fill(outlines, shape):
    """By scikit-image, whose (0, 0) is the center of the first pixel."""
    labels = np.zeros(shape, dtype=np.int32)
    for outline in outlines:
        for one in outline.polygons:
            inside = draw.polygon2mask(shape, one.shell - 0.5)
            for hole in one.holes:
                inside &= ~draw.polygon2mask(shape, hole - 0.5)
            labels[inside] = outline.object_id
    return labels


def test_outlines_of_a_pixel_and_an_angle_by_hand():
    one, two = trace_outlines(as_objects([[1, 0, 0, 0], [0, 0, 2, 0], [0, 2, 2, 0]]))
    assert one.polygons[0].shell.tolist() == [[0, 0], [0, 1], [1, 1], [1, 0]]
    assert two.polygons[0].shell.tolist() == [[1, 2], [1, 3], [3, 3], [3, 1], [2, 1], [2, 2]]
    assert (one.object_id, two.object_id, one.plane) == (1, 2, None)


def test_outlines_of_a_hole_and_an_island_in_it():
    labels = np.ones((5, 5), dtype=np.int32)
    labels[1:4, 1:4] = 0
    labels[2, 2] = 2
    ring, island = trace_outlines(as_objects(labels))
    assert [hole.tolist() for hole in ring.polygons[0].holes] == [[[1, 1], [4, 1], [4, 4], [1, 4]]]
    assert island.polygons[0].holes == ()
    assert as_shape(ring).area == 16


def test_outlines_of_pixels_that_meet_at_a_corner_are_two_polygons():
    (both,) = trace_outlines(as_objects([[1, 0], [0, 1]]))
    assert len(both.polygons) == 2
    assert as_shape(both).is_valid


@pytest.mark.parametrize(
    "labels",
    [
        [[1, 1, 1], [1, 0, 1], [1, 1, 0]],  # A hole that meets the outside at a corner,
        [[1, 1, 1], [1, 0, 1], [0, 1, 1]],
        [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]],  # and two that meet.
        [[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]],
    ],
)
def test_outlines_that_meet_at_a_corner_stay_apart(labels):
    (outline,) = trace_outlines(as_objects(labels))
    (polygon,) = outline.polygons
    assert 1 <= len(polygon.holes) <= 2
    for ring in (polygon.shell, *polygon.holes):
        assert len({tuple(point) for point in ring.tolist()}) == len(ring)
    assert as_shape(outline).is_valid
    assert as_shape(outline).area == np.sum(labels)


@given(labels=LABELS)
def test_outlines_filled_are_the_labels(labels):
    outlines = list(trace_outlines(as_objects(labels)))
    assert (fill(outlines, labels.shape) == labels).all()
    assert [one.object_id for one in outlines] == [i for i in (1, 2) if (labels == i).any()]


@given(labels=LABELS)
def test_outlines_are_valid_and_as_large_as_the_objects(labels):
    for outline in trace_outlines(as_objects(labels)):
        shape = as_shape(outline)
        own = np.argwhere(labels == outline.object_id)
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area == len(own)
        (top, left), (bottom, right) = own.min(axis=0), own.max(axis=0) + 1
        assert shape.bounds == (left, top, right, bottom)


@given(labels=LABELS)
def test_outlines_have_only_corners_and_one_orientation(labels):
    for outline in trace_outlines(as_objects(labels)):
        for polygon in outline.polygons:
            assert shapely.LinearRing(polygon.shell[:, ::-1]).is_ccw
            assert not any(shapely.LinearRing(hole[:, ::-1]).is_ccw for hole in polygon.holes)
            for ring in (polygon.shell, *polygon.holes):
                steps = np.roll(ring, -1, axis=0) - ring
                assert ((steps == 0).sum(axis=1) == 1).all()
                assert ((steps[1:] == 0) != (steps[:-1] == 0)).all()


def test_outlines_of_a_volume_plane_by_plane():
    labels = np.zeros((3, 4, 4), dtype=np.int32)
    labels[0, :2, :2] = labels[2, 1:, 1:] = 1
    labels[2, 0, 0] = 2
    found = list(trace_outlines(as_objects(labels)))
    assert [(one.plane, one.object_id) for one in found] == [(0, 1), (2, 1), (2, 2)]
    for z in (0, 2):
        own = [one for one in found if one.plane == z]
        assert (fill(own, (4, 4)) == labels[z]).all()


def test_outlines_of_nothing():
    assert list(trace_outlines(as_objects(np.zeros((3, 3))))) == []


def test_outlines_of_a_large_ragged_object():
    labels = (np.random.default_rng(0).random((60, 70)) < 0.6).astype(np.int32)
    (outline,) = trace_outlines(as_objects(labels))
    assert as_shape(outline).is_valid
    assert (fill([outline], labels.shape) == labels).all()


def test_geojson_of_a_long_ring_is_whole(monkeypatch):
    monkeypatch.setattr(contours, "BLOCK_CORNERS", 5)
    labels = (np.random.default_rng(1).random((20, 30)) < 0.6).astype(np.int32)
    (outline,) = trace_outlines(as_objects(labels))
    (feature,) = as_geojson(as_objects(labels))["features"]
    found = feature["geometry"]["coordinates"]
    assert len(found) == len(outline.polygons) > 1
    for rings, polygon in zip(found, outline.polygons, strict=True):
        for ring, corners in zip(rings, (polygon.shell, *polygon.holes), strict=True):
            assert ring == [*corners[:, ::-1].tolist(), corners[0, ::-1].tolist()]


def test_geojson_of_an_object_without_pixels_is_valid():
    file = io.BytesIO()
    write_geojson(file, [Outline(1, 1, None, ())], STYLES)
    (feature,) = json.loads(file.getvalue())["features"]
    assert feature["geometry"] == {"type": "MultiPolygon", "coordinates": []}


STYLES = (
    ClassStyle("background", (0, 0, 0)),
    ClassStyle("cell", (1, 2, 3)),
    ClassStyle("in/out", (250, 0, 9)),
)
CLASSES = np.array(
    [
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 0, 2, 0],
        [1, 1, 1, 0, 2, 2],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)


def as_geojson(objects, **settings):
    file = io.BytesIO()
    write_geojson(file, trace_outlines(objects), STYLES, **settings)
    return json.loads(file.getvalue())


def as_rois(outlines, tmp_path):
    path = tmp_path / "rois.zip"
    with path.open("wb") as file:
        write_rois(file, outlines, STYLES)
    return roifile.roiread(path)


def test_geojson_has_the_form_of_qupath():
    objects = label_objects(CLASSES)
    table = measure_table(objects, [style.name for style in STYLES], spacing_mm=(0.5, 0.5))
    found = as_geojson(objects, table=table, object_type="detection")
    assert found["type"] == "FeatureCollection"
    ring, hook, bar = found["features"]
    assert {feature["type"] for feature in found["features"]} == {"Feature"}
    assert ring["geometry"] == {
        "type": "Polygon",
        "coordinates": [
            [[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]],
            [[1, 1], [1, 2], [2, 2], [2, 1], [1, 1]],
        ],
    }
    assert hook["properties"]["classification"] == {"name": "in/out", "color": [250, 0, 9]}
    assert hook["properties"]["name"] == "2"
    assert bar["properties"]["objectType"] == "detection"
    # The numbers of the table, without those that are unknown or no numbers.
    assert bar["properties"]["measurements"]["area_mm2"] == 0.5
    assert "mean_probability" not in bar["properties"]["measurements"]
    assert "class" not in bar["properties"]["measurements"]


def test_geojson_read_by_shapely_is_the_prediction():
    objects = label_objects(CLASSES)
    y, x = np.indices(CLASSES.shape) + 0.5
    again = np.zeros_like(objects.labels)
    for feature in as_geojson(objects)["features"]:
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid
        again[shapely.contains_xy(shape, x, y)] = int(feature["properties"]["name"])
    assert (again == objects.labels).all()


def test_geojson_of_a_volume_and_of_nothing():
    volume = np.zeros((3, 2, 2), dtype=np.uint8)
    assert as_geojson(label_objects(volume))["features"] == []
    volume[2] = [[1, 0], [0, 1]]
    volume[1] = 1
    middle, last = as_geojson(label_objects(volume))["features"]
    assert middle["geometry"]["plane"] == {"c": -1, "z": 1, "t": 0}
    assert last["geometry"]["plane"]["z"] == 2
    assert last["geometry"]["type"] == "MultiPolygon"
    assert last["properties"]["name"] == middle["properties"]["name"] == "1"
    assert "measurements" not in last["properties"]
    assert last["properties"]["objectType"] == "annotation"


def area_of(roi):
    """By the shoelace formula; holes run the other way round."""
    total = 0.0
    for ring in roi.coordinates(multi=True):
        x, y = ring.T.astype(float)
        total += (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    return total


def test_rois_have_area_and_place_of_the_objects(tmp_path):
    objects = label_objects(CLASSES)
    table = measure_table(objects, [style.name for style in STYLES])
    rois = as_rois(trace_outlines(objects), tmp_path)
    assert [roi.name for roi in rois] == ["00001-cell", "00002-in_out", "00003-cell"]
    for roi, size, box in zip(rois, table.size_px, table.box_px, strict=True):
        assert area_of(roi) == size
        assert [[roi.top, roi.bottom], [roi.left, roi.right]] == box.tolist()
        points = np.concatenate(roi.coordinates(multi=True))
        assert points.min(axis=0).tolist() == box[::-1, 0].tolist()
        assert points.max(axis=0).tolist() == box[::-1, 1].tolist()
    assert [roi.composite for roi in rois] == [True, False, False]
    assert rois[0].roitype == roifile.ROI_TYPE.RECT
    assert rois[1].roitype == roifile.ROI_TYPE.TRACED
    assert rois[1].hexcolor(rois[1].stroke_color) == "#fa0009"
    assert rois[1].position == 0


def test_rois_of_a_volume_state_their_slice(tmp_path):
    volume = np.zeros((3, 2, 2), dtype=np.uint8)
    volume[1:, 0] = 1
    rois = as_rois(trace_outlines(label_objects(volume)), tmp_path)
    assert [roi.position for roi in rois] == [2, 3]
    assert [roi.name for roi in rois] == ["00001-z0002-cell", "00001-z0003-cell"]


@pytest.mark.parametrize("edge", [40_000, 60_535, 60_536, 60_545, 100_000])
def test_rois_far_out_on_a_large_image(edge, tmp_path):
    shell = np.array([[3, edge - 5], [3, edge], [7, edge], [7, edge - 5]], dtype=np.int32)
    outline = Outline(1, 1, None, (Polygon(shell),))
    (roi,) = as_rois([outline], tmp_path)
    (ring,) = roi.coordinates(multi=True)
    assert ring[:4].tolist() == shell[:, ::-1].tolist()
    assert area_of(roi) == 20


def test_rois_of_equal_objects_are_equal_bytes():
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        write_rois(file, trace_outlines(label_objects(CLASSES)), STYLES)
    assert files[0].getvalue() == files[1].getvalue()
    with zipfile.ZipFile(files[0]) as archive:
        assert archive.namelist()[1] == "00002-in_out.roi"


def test_rois_without_roifile_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    with raises_code(DataError, "missing_package"):
        write_rois(io.BytesIO(), [], STYLES)


def test_drawing_colors_are_those_of_the_masks_if_they_are_visible():
    encoding, names = MaskEncoding(kind="colors"), ("back", "a", "b")
    bright = class_styles(names, (0, 0xFF0000, 0x00FF00), encoding)
    assert drawing_colors(bright) == ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    dark = class_styles(names, (0, 0xFF0000, 0x000020), encoding)
    assert drawing_colors(dark)[1:] == DISTINCT[:2]


def test_class_styles_keep_the_colors_of_the_masks():
    names = ("background", "road", "tree")
    by_color = class_styles(names, (0, 0x80FF01, 3), MaskEncoding(kind="colors"))
    assert by_color[1] == ClassStyle("road", (128, 255, 1))
    palette = ((0, 0, 0), (9, 9, 9), (7, 8, 9))
    by_palette = class_styles(names, (0, 2, 1), MaskEncoding(kind="palette", palette=palette))
    assert [style.color for style in by_palette] == [(0, 0, 0), (7, 8, 9), (9, 9, 9)]
    gray = class_styles(names, (0, 128, 255), MaskEncoding())
    assert [style.color for style in gray[1:]] == list(DISTINCT[:2])
