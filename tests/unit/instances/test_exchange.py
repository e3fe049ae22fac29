"""Outlines as other programs read them."""

import io
import json
import sys
import zipfile

import numpy as np
import pytest
import roifile
import shapely

from codes import raises_code
from ushape.errors import DataError
from ushape.instances.contours import Outline, Polygon, trace_outlines
from ushape.instances.exchange import DISTINCT, ClassStyle, class_styles, write_geojson, write_rois
from ushape.instances.label import label_objects
from ushape.instances.properties import measure_table
from ushape.types import MaskEncoding

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


def test_class_styles_keep_the_colors_of_the_masks():
    names = ("background", "road", "tree")
    by_color = class_styles(names, (0, 0x80FF01, 3), MaskEncoding(kind="colors"))
    assert by_color[1] == ClassStyle("road", (128, 255, 1))
    palette = ((0, 0, 0), (9, 9, 9), (7, 8, 9))
    by_palette = class_styles(names, (0, 2, 1), MaskEncoding(kind="palette", palette=palette))
    assert [style.color for style in by_palette] == [(0, 0, 0), (7, 8, 9), (9, 9, 9)]
    gray = class_styles(names, (0, 128, 255), MaskEncoding())
    assert [style.color for style in gray[1:]] == list(DISTINCT[:2])
