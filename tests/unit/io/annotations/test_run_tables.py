"""CSV tables of run lengths."""

import pytest

from ushape.errors import DataError
from ushape.io.annotations.run_tables import find_run_columns, read_run_table


def save(tmp_path, text):
    path = tmp_path / "train.csv"
    path.write_text(text)
    return path


def test_rows_of_one_name_are_objects_of_one_image(tmp_path):
    text = "ImageId,EncodedPixels\na.jpg,1 2\na.jpg,7 2\nb.jpg,\nc.jpg,-1\n"
    found = read_run_table(save(tmp_path, text))
    assert [len(one.shapes) for one in found.values()] == [2, 0, 0]
    assert {shape.label for shape in found["a.jpg"].shapes} == {"foreground"}


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("ImageId,ClassId,EncodedPixels", "a.jpg,3,1 2"),
        ("ImageId_ClassId,EncodedPixels", "a.jpg_3,1 2"),
        ("EncodedPixels;ClassId;ImageId", "1 2;3;a.jpg"),
    ],
)
def test_classes_of_run_lengths(tmp_path, header, row):
    (one,) = read_run_table(save(tmp_path, f"{header}\n{row}\n"))["a.jpg"].shapes
    assert one.label == "3"


def test_name_of_the_column_states_the_order(tmp_path):
    assert find_run_columns(save(tmp_path, "img,rle_mask\n")).order == "row"
    assert find_run_columns(save(tmp_path, "id,rle\n")).order == "column"


def test_run_lengths_may_be_longer_than_the_csv_module_accepts(tmp_path):
    runs = " ".join(f"{2 * n + 1} 1" for n in range(30_000))
    assert len(runs) > 131_072
    found = read_run_table(save(tmp_path, f"ImageId,EncodedPixels\na,{runs}\n"))
    assert found["a"].shapes[0].area.text == runs


@pytest.mark.parametrize("text", ["", "a,b\n", "image,mask\n"])
def test_other_tables_have_no_run_lengths(tmp_path, text):
    assert find_run_columns(save(tmp_path, text)) is None


def test_row_with_another_number_of_cells_is_named(tmp_path):
    with pytest.raises(DataError, match="row 3") as caught:
        read_run_table(save(tmp_path, "ImageId,EncodedPixels\na,1 2\nb\n"))
    assert caught.value.code == "shapes_invalid"


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_run_tables_of_windows_programs_are_read(encoding, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_bytes("sep=;\r\nImageId;EncodedPixels\r\nä.png;1 2\r\n".encode(encoding))
    assert list(read_run_table(path)) == ["ä.png"]
