"""Formats that are recognized but not supported."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from ushape.data.discovery import discover
from ushape.data.layouts.foreign import FOREIGN
from ushape.errors import DataError

FILES = {
    "Cellpose with Python objects": ("a_seg.npy", {"masks": [1]}),
    "ImageJ with regions of interest": ("b.roi", "Iout"),
    "QuPath (GeoJSON)": ("b.geojson", '{"type": "FeatureCollection", "features": []}'),
    "Label Studio": ("a.json", '[{"annotations": [{"result": []}], "data": {}}]'),
    "Supervisely": ("a.json", '{"objects": [{"classTitle": "cell"}]}'),
    "VGG Image Annotator": ("a.json", '{"a": {"regions": [{"shape_attributes": {}}]}}'),
    "Aperio ImageScope": ("a.xml", "<Annotations><Annotation><Vertex/></Annotation></Annotations>"),
    "CVAT or Pascal VOC with bounding boxes": (
        "a.xml",
        "<annotation><bndbox></bndbox></annotation>",
    ),
    "MATLAB": ("a.mat", "MATLAB 5.0"),
}


@pytest.mark.parametrize("one", FOREIGN, ids=lambda one: one.name)
def test_refusal_names_the_format_and_how_to_convert_it(tmp_path, one):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    name, content = FILES[one.name]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        np.save(tmp_path / name, content, allow_pickle=True)
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert caught.value.code == "no_pairs"
    assert one.name in caught.value.hint
    assert one.conversion in caught.value.hint


def test_set_of_regions_in_a_zip_is_recognized(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("0001.roi", b"Iout")
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert "ImageJ" in caught.value.hint


def test_other_data_without_pairs_keep_the_usual_hint(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert "images/" in caught.value.hint
