"""Outlines of images larger than memory equal those of images in memory."""

import io as streams
import json
from types import SimpleNamespace

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.inference.output.streamed_objects import check_streamed_objects, collecting_outlines
from ushape.instances.contours import class_styles, trace_outlines, write_geojson
from ushape.instances.label import ObjectConfig, label_objects
from ushape.labels import LabelSpace
from ushape.transforms import morphology
from ushape.types import MaskEncoding

SPACE = LabelSpace(values=(0, 1, 2), names=("background", "gland", "stroma"))
CLASSES = (np.random.default_rng(0).random((40, 50)) > 0.6).astype(np.uint8)
CLASSES[20:] *= 2
CLASSES[5:15, 5:15], CLASSES[8:12, 8:12] = 1, 0


def predictor_of(**objects):
    plan = SimpleNamespace(
        preprocessing=SimpleNamespace(space=SPACE),
        recipe=SimpleNamespace(predict=SimpleNamespace(objects=ObjectConfig(**objects))),
        encoding=MaskEncoding(),
    )
    return SimpleNamespace(plan=plan, separates=False)


def write(path, finest=(40, 50)):
    source = SimpleNamespace(shape=(3, 40, 50), finest_shape=finest)
    with collecting_outlines(path, predictor_of(), source) as add:
        for first in range(0, 40, 7):
            add(CLASSES[first : first + 7], None)
    return json.loads(path.read_text())


def rings_of(feature):
    geometry = feature["geometry"]
    is_one = geometry["type"] == "Polygon"
    return [geometry["coordinates"]] if is_one else geometry["coordinates"]


@pytest.mark.parametrize("band_px", [50, 150, 1 << 22])
def test_streamed_outlines_equal_those_of_the_whole_image(tmp_path, monkeypatch, band_px):
    monkeypatch.setattr(morphology, "BAND_PX", band_px)
    file = streams.BytesIO()
    styles = class_styles(SPACE.names, SPACE.values, MaskEncoding())
    write_geojson(file, trace_outlines(label_objects(CLASSES)), styles)
    expected = json.loads(file.getvalue())["features"]
    found = write(tmp_path / "x.geojson")["features"]
    assert len(found) > 50
    assert found == expected


def test_outlines_of_slides_are_in_pixels_of_the_finest_level(tmp_path):
    plain = write(tmp_path / "x.geojson")["features"]
    scaled = write(tmp_path / "y.geojson", finest=(160, 201))["features"]
    for one, other in zip(plain, scaled, strict=True):
        for parts, enlarged in zip(rings_of(one), rings_of(other), strict=True):
            for ring, large in zip(parts, enlarged, strict=True):
                assert np.array(large) == pytest.approx(np.array(ring) * (4.02, 4))


def test_objects_that_are_split_by_the_whole_image_are_refused(tmp_path):
    check_streamed_objects(tmp_path / "x.tif", predictor_of(separation="none"))
    with raises_code(DataError, "image_too_large"):
        check_streamed_objects(tmp_path / "x.tif", predictor_of(max_hole_size_px=9))
