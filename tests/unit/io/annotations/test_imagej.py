"""Regions of interest of ImageJ."""

import zipfile

import numpy as np
import pytest
import roifile

from codes import raises_code
from ushape.errors import DataError
from ushape.instances.contours import ClassStyle, trace_outlines, write_rois
from ushape.instances.label import Objects
from ushape.io.annotations.imagej import is_roi_file, read_rois
from ushape.io.annotations.shape_files import codes_of_labels
from ushape.io.annotations.shapes import draw_shapes

SIZE = (20, 30)


def region(kind, box, **more):
    """A region with the box (top, left, bottom, right)."""
    sides = dict(zip(("top", "left", "bottom", "right"), box, strict=True))
    return roifile.ImagejRoi(roitype=roifile.ROI_TYPE[kind], **sides, **more)


def polygon(*points, **more):
    found = roifile.ImagejRoi.frompoints(np.array(points, np.float32), **more)
    found.roitype = roifile.ROI_TYPE.POLYGON
    return found


def save(path, *regions, names=()):
    with zipfile.ZipFile(path, "w") as file:
        for number, one in enumerate(regions):
            name = names[number] if names else f"{number:04d}-0001"
            file.writestr(f"{name}.roi", one.tobytes())
    return path


def draw(path, classes):
    return draw_shapes(read_rois(path).shapes, SIZE, codes_of_labels(classes))


def test_regions_by_hand(tmp_path):
    triangle = polygon((10, 0), (14, 0), (10, 4))  # Centers below the diagonal: 3 + 2 + 1.
    path = save(
        tmp_path / "a.zip", region("RECT", (2, 3, 5, 7)), region("OVAL", (10, 10, 20, 20)), triangle
    )
    drawn = draw(path, ("region",))
    # A circle of diameter 10 has rows of 4, 8, 8, 10 and 10 pixel centers, twice.
    assert np.bincount(drawn.instances.numbers.ravel())[1:].tolist()[:2] == [12, 80]
    assert drawn.instances.stated == 3
    assert 6 <= (drawn.instances.numbers == 3).sum() <= 10
    assert set(np.unique(drawn.codes)) == {0, 1}


def test_regions_of_subpixels_and_of_one_file(tmp_path):
    found = polygon((2.4, 2.4), (6.4, 2.4), (6.4, 5.4), (2.4, 5.4))
    (tmp_path / "a.roi").write_bytes(found.tobytes())
    assert draw(tmp_path / "a.roi", ("region",)).codes.sum() == 12


def test_regions_of_ushape_are_read_as_they_were_written(tmp_path):
    labels = np.zeros(SIZE, np.int32)
    labels[2:9, 2:9] = 1
    labels[4:6, 4:6] = 0  # A hole.
    labels[2:9, 9:12] = 2  # Touches the first one.
    labels[9:12, 12:15] = 2  # Connected by a corner only.
    objects = Objects(labels=labels, classes=np.array([2, 1], np.uint8))
    styles = [ClassStyle(name, (1, 2, 3)) for name in ("background", "cell", "big tumor")]
    with (tmp_path / "a.zip").open("w+b") as file:
        write_rois(file, trace_outlines(objects), styles)
    drawn = draw(tmp_path / "a.zip", ("cell", "big tumor"))
    np.testing.assert_array_equal(drawn.instances.numbers, labels)
    np.testing.assert_array_equal(drawn.codes, np.choose(labels, [0, 2, 1]))


def test_labels_are_groups_or_in_names(tmp_path):
    box = region("RECT", (2, 3, 5, 7))
    grouped = region("RECT", (2, 3, 5, 7))
    grouped.group = 3
    names = ("0001-0002", "00001-tumor", "00002-z0003-a-b", "cell", "1-2")
    path = save(tmp_path / "a.zip", *[box] * 4, grouped, names=names)
    labels = [shape.label for shape in read_rois(path).shapes]
    assert labels == ["region", "tumor", "a-b", "region", "group 3"]


@pytest.mark.parametrize("kind", ["LINE", "POINT", "POLYLINE"])
def test_lines_and_points_have_no_area(kind, tmp_path):
    found = polygon((1, 1), (5, 5), (7, 2))
    found.roitype = roifile.ROI_TYPE[kind]
    assert read_rois(save(tmp_path / "a.zip", found)).shapes[0].area is None


@pytest.mark.parametrize(
    ("kind", "part"), [("RECT", "TEXT"), ("RECT", "IMAGE"), ("LINE", "ARROW"), ("OVAL", "TEXT")]
)
def test_overlays_have_no_area(kind, part, tmp_path):
    found = region(kind, (2, 3, 5, 7), subtype=roifile.ROI_SUBTYPE[part], version=217)
    (shape,) = read_rois(save(tmp_path / "a.zip", found)).shapes
    assert shape.area is None
    assert shape.kind not in ("rect", "oval", "line")


def test_files_that_macos_adds_are_no_regions(tmp_path):
    path = save(tmp_path / "a.zip", region("RECT", (2, 3, 5, 7)), names=["set/0001"])
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("__MACOSX/set/._0001.roi", b"Mac OS X")
        file.writestr("set/._0002.roi", b"Mac OS X")
    assert draw(path, ("region",)).codes.sum() == 12
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("__MACOSX/._0001.roi", b"Mac OS X")
    assert is_roi_file(path)
    assert not is_roi_file(tmp_path / "b.zip")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_bytes_are_refused_or_read(method, tmp_path):
    content = polygon(*np.random.default_rng(0).uniform(0, 20, (30, 2))).tobytes()
    with zipfile.ZipFile(tmp_path / "good.zip", "w", method) as file:
        file.writestr("0001.roi", content)
        file.writestr("zoë.roi", content)
    good = (tmp_path / "good.zip").read_bytes()
    rng, codes = np.random.default_rng(1), set()
    for number in range(200):
        changed = bytearray(good[: rng.integers(1, len(good))] if number % 4 == 0 else good)
        for place in rng.integers(0, len(changed), 3):
            changed[place] = rng.integers(0, 256)
        path = tmp_path / f"{number}.zip"
        path.write_bytes(changed)
        is_roi_file(path)
        try:
            read_rois(path)
        except DataError as error:
            codes.add(error.code)
    assert codes == {"shapes_invalid"}


@pytest.mark.parametrize("error", [NotImplementedError, UnicodeDecodeError, EOFError])
def test_zip_that_cannot_be_opened_is_no_file_of_regions(error, tmp_path, monkeypatch):
    def fail(*_):
        raise error(*(("utf-8", b"", 0, 1, "") if error is UnicodeDecodeError else ()))

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    (tmp_path / "a.zip").write_bytes(b"")
    assert not is_roi_file(tmp_path / "a.zip")


def damaged(path, kind):
    box = region("RECT", (2, 3, 5, 7))
    if kind == "slice":
        box.position = 4
        return save(path, box)
    if kind == "round":
        box.rounded_rect_arc_size = 3
        return save(path, box)
    if kind == "curve":
        box.multi_coordinates = np.array([0, 1, 1, 3, 1, 1, 2, 2, 3, 3, 4], np.float32)
        box.shape_roi_size = len(box.multi_coordinates)
        return save(path, box)
    if kind == "entry":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.roi", b"Iout")
    else:
        path.write_bytes(b"PK\3\4" + bytes(40) if kind == "zip" else b"")
    return path


@pytest.mark.parametrize("kind", ["slice", "round", "curve", "entry", "zip", "empty"])
def test_regions_that_cannot_be_drawn_are_refused(kind, tmp_path):
    with raises_code(DataError, "shapes_invalid"):
        read_rois(damaged(tmp_path / "a.zip", kind))
