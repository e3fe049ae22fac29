"""Files of regions and of GeoJSON, by the names of their images."""

import io
import json
import zipfile

import numpy as np
import pytest
import roifile
from PIL import Image

from codes import raises_code
from ushape.data.discovery import discover, find_masks
from ushape.errors import DataError
from ushape.io.annotations import read_annotation

SQUARE = [[2, 2], [6, 2], [6, 5], [2, 5], [2, 2]]


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


def regions(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    roi = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.RECT, top=2, left=2, bottom=5, right=6
    ).tobytes()
    if path.suffix == ".roi":
        path.write_bytes(roi)
        return
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("0003-0004.roi", roi)
    path.write_bytes(content.getvalue())


def geojson(path, kind="Polygon"):
    path.parent.mkdir(parents=True, exist_ok=True)
    geometry = {"type": kind, "coordinates": [SQUARE]}
    properties = {"classification": {"name": "Tumor"}}
    features = [{"type": "Feature", "geometry": geometry, "properties": properties}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.mark.parametrize("name", ["a.zip", "a_rois.zip", "RoiSet_a.zip", "a-RoiSet.zip", "a.roi"])
def test_regions_belong_to_the_image_of_their_name(name, tmp_path):
    image(tmp_path / "images" / "a.png")
    image(tmp_path / "images" / "b.png")
    regions(tmp_path / "rois" / name)
    found = discover(tmp_path)
    assert [case.id for case in found.cases] == ["a"]
    assert found.classes.names == ("background", "region")
    mask = read_annotation(found.cases[0].mask)
    assert mask.codes.sum() == 12
    assert mask.instances.stated == 1


def test_regions_without_a_name_belong_to_the_only_image_beside_them(tmp_path):
    for place in ("p1", "p2"):
        image(tmp_path / place / "image.png")
        regions(tmp_path / place / "RoiSet.zip")
    assert len(discover(tmp_path).cases) == 2


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.png.geojson"])
def test_geojson_belongs_to_the_image_of_its_name(name, tmp_path):
    image(tmp_path / "a.png")
    geojson(tmp_path / name)
    found = discover(tmp_path)
    assert found.classes.names == ("background", "Tumor")
    assert read_annotation(found.cases[0].mask).codes.sum() == 12


def test_images_with_lines_in_geojson_are_left_out(tmp_path):
    for name, kind in (("a", "Polygon"), ("b", "LineString")):
        image(tmp_path / f"{name}.png")
        geojson(tmp_path / f"{name}.geojson", kind)
    found = discover(tmp_path)
    assert [case.id for case in found.cases] == ["a"]
    assert "b.geojson" in found.notes[0]


def test_two_files_for_one_image_are_refused(tmp_path):
    image(tmp_path / "a.png")
    regions(tmp_path / "a.zip")
    regions(tmp_path / "a_rois.zip")
    with raises_code(DataError, "ambiguous_mask"):
        discover(tmp_path)


def mask(path, shift=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8), np.uint8)
    pixels[shift : shift + 3, 2:6] = 255
    Image.fromarray(pixels).save(path)


def labelme(path):
    shape = {"label": "cell", "shape_type": "polygon", "points": SQUARE}
    path.write_text(json.dumps({"shapes": [shape], "imagePath": f"{path.stem}.png"}))


STRAY = {"a0.geojson": geojson, "a0.roi": regions, "a0_rois.zip": regions, "a0.json": labelme}


@pytest.mark.parametrize("name", STRAY)
@pytest.mark.parametrize("place", ["a{}_mask.png", "masks/a{}.png"])
def test_one_file_of_shapes_among_masks_is_not_used(place, name, tmp_path):
    for number in range(6):
        image(tmp_path / f"a{number}.png")
        mask(tmp_path / place.format(number), number % 3)
    expected = discover(tmp_path)
    STRAY[name](tmp_path / name)
    found = discover(tmp_path)
    assert [case.mask for case in found.cases] == [case.mask for case in expected.cases]
    assert len(found.cases) == 6
    assert name in found.notes[0]


def test_one_damaged_or_empty_file_of_shapes_among_masks_is_not_used(tmp_path):
    for number in range(6):
        image(tmp_path / f"a{number}.png")
        mask(tmp_path / f"a{number}_mask.png", number % 3)
    (tmp_path / "a1.roi").write_bytes(b"")
    geojson(tmp_path / "a0.geojson", "Point")
    assert len(discover(tmp_path).cases) == 6


def test_one_mask_among_files_of_shapes_is_not_used_and_no_image(tmp_path):
    for number in range(6):
        image(tmp_path / f"a{number}.png")
        geojson(tmp_path / f"a{number}.geojson")
    mask(tmp_path / "a0_mask.png")
    found = discover(tmp_path)
    assert [case.mask.path.suffix for case in found.cases] == 6 * [".geojson"]
    assert "a0_mask.png" in found.notes[0]
    assert find_masks(tmp_path)[0] == {tmp_path / "a0_mask.png"}


@pytest.mark.parametrize("name", ["a{}.geojson", "a{}_rois.zip", "a{}.json"])
def test_masks_and_shapes_of_equally_many_images_are_refused(name, tmp_path):
    """The results of ushape predict, for example, with --contours geojson."""
    for number in range(4):
        image(tmp_path / f"a{number}.png")
        mask(tmp_path / "out" / f"a{number}.png", number)
        path = tmp_path / "out" / name.format(number)
        STRAY[name.format(0)](path)
    with raises_code(DataError, "ambiguous_mask"):
        discover(tmp_path)
    assert find_masks(tmp_path)[0] == {tmp_path / "out" / f"a{number}.png" for number in range(4)}
    for number in range(4):
        (tmp_path / "out" / f"a{number}.png").unlink()
    assert len(discover(tmp_path).cases) == 4
