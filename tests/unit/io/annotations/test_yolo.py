"""Text files of YOLO."""

import pytest

from ushape.errors import DataError
from ushape.io.annotations.yolo import is_yolo, read_yolo


def read(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    return read_yolo(path).shapes


def test_yolo_polygon_is_in_fractions(tmp_path):
    (one,) = read(tmp_path, "3 0.1 0.2 0.5 0.2 0.5 0.9\n\n")
    assert one.label == "3"
    assert one.area.unit == "fraction"
    assert one.area.points.tolist() == [[0.1, 0.2], [0.5, 0.2], [0.5, 0.9]]


def test_yolo_line_of_five_numbers_is_a_box_unless_others_are_polygons(tmp_path):
    assert read(tmp_path, "0 0.5 0.5 0.1 0.1")[0].area is None
    polygon = "0 0.1 0.2 0.5 0.2 0.5 0.9"
    assert len(read(tmp_path, f"0 0.5 0.5 0.1 0.1\n{polygon}")[0].area.points) == 2


@pytest.mark.parametrize("line", ["0", "a 1 2 3 4 5 6", "0 1 2 3 4 5 6 7", "0 0.1 x 1 1 1 1"])
def test_yolo_line_that_cannot_be_read_is_named(tmp_path, line):
    with pytest.raises(DataError, match="line 2") as caught:
        read(tmp_path, "0 0.1 0.2 0.5 0.2 0.5 0.9\n" + line)
    assert caught.value.code == "shapes_invalid"


@pytest.mark.parametrize("text", ["Read me first", "1 2", "a 0.1 0.2 0.5 0.2"])
def test_yolo_is_not_any_text(text):
    assert not is_yolo(text)
