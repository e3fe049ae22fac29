"""Tables of classes as data sets and annotation tools hand them out."""

import json

import pytest

from ushape.data.classes.tables import parse_color, read_class_names

RED, BLUE = 0xFA3253, 0x33DDFF
NAMES = ("background", "cell", "debris")


def write(folder, name, content):
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.csv", "value,name\n0,background\n1,cell\n2,debris\n"),
        ("classes.csv", "name;value\nbackground;0\ncell;1\ndebris;2\n"),
        ("classes.csv", "0,background\n1,cell\n2,debris\n"),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, cell\n2, debris\n"),
        ("classes.json", {"0": "background", "1": "cell", "2": "debris"}),
        ("labels.json", {"labels": {"background": 0, "cell": 1, "debris": 2}}),
        ("classes.json", [{"id": i, "name": name} for i, name in enumerate(NAMES)]),
        ("labelmap.txt", "0: background\n1: cell\n2: debris\n"),
        ("classes.txt", "2 debris\n1 cell\n0 background\n"),
    ],
)
def test_tables_with_values_are_read(tmp_path, name, content):
    write(tmp_path, name, content)
    found = read_class_names(tmp_path)
    assert (found.names, found.values, found.colors) == (NAMES, (0, 1, 2), None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("class_dict.csv", "name,r,g,b\ncell,250,50,83\nbackground,0,0,0\ndebris,51,221,255\n"),
        ("classes.csv", "Label;Color\nbackground;#000000\ncell;#fa3253\ndebris;#33ddff\n"),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:250,50,83::\n"
            "debris:51,221,255::\n",
        ),
        ("label_colors.txt", "250 50 83\tcell\n51 221 255\tdebris\n0 0 0\tbackground\n"),
        ("label_colors.txt", "background 0 0 0\ncell 250 50 83\ndebris 51 221 255\n"),
        (
            "meta.json",
            {
                "classes": [
                    {"title": "background", "color": "#000000", "id": "a5"},
                    {"title": "cell", "color": "#FA3253", "id": "b7"},
                    {"title": "debris", "color": [51, 221, 255], "id": "c9"},
                ]
            },
        ),
        ("classes.json", {"background": "#000000", "cell": "#fa3253", "debris": [51, 221, 255]}),
    ],
)
def test_tables_with_colors_are_read(tmp_path, name, content):
    write(tmp_path, name, content)
    found = read_class_names(tmp_path)
    assert (found.names, found.values, found.colors) == (NAMES, None, (0, RED, BLUE))


@pytest.mark.parametrize("name", ["codes.txt", "class_names.txt", "obj.names", "Classes.TXT"])
def test_lists_of_names_are_read(tmp_path, name):
    write(tmp_path, name, "background\ncell\ndebris\n")
    found = read_class_names(tmp_path)
    assert (found.names, found.values, found.colors) == (NAMES, None, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_tables_in_any_usual_encoding_are_read(tmp_path, encoding):
    write(tmp_path, "classes.csv", "value;name\n0;Boden\n1;Körper\n".encode(encoding))
    assert read_class_names(tmp_path).names == ("Boden", "Körper")


def test_the_class_named_background_comes_first(tmp_path):
    write(tmp_path, "classes.csv", "value,name\n1,animal\n2,background\n3,border\n")
    found = read_class_names(tmp_path)
    assert (found.names, found.values) == (("background", "animal", "border"), (2, 1, 3))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "a\na\n"),
        ("classes.json", {"x": "cell", "0": "b"}),
        ("classes.json", "5"),
        ("classes.json", "{"),
        ("classes.csv", "value,name\n1,a\n1,b\n"),
        ("classes.csv", "filename,crack,rust\na.jpg,0,1\n"),
        ("classes.csv", "name,r,g,b\na,300,0,0\nb,0,0,0\n"),
        ("classes.csv", ""),
    ],
)
def test_a_table_that_is_not_understood_is_a_problem_not_an_error(tmp_path, name, content):
    path = write(tmp_path, name, content)
    found = read_class_names(tmp_path)
    assert (found.names, found.values, found.colors) == ((), None, None)
    assert str(path) in found.problem
    assert found.problem_fix


def test_the_first_table_that_is_understood_is_used(tmp_path):
    write(tmp_path, "classes.csv", "?")
    write(tmp_path, "classes.txt", "background\ncell\n")
    assert read_class_names(tmp_path).names == ("background", "cell")
    assert read_class_names(tmp_path / "missing", None) is None


@pytest.mark.parametrize("text", ["#FA3253", "fa3253", "250, 50, 83", "(250,50,83)", [250, 50, 83]])
def test_parse_color_reads_usual_forms(text):
    assert parse_color(text) == RED


@pytest.mark.parametrize("text", ["red", "#12345", "1,2", [1, 2, 300], None])
def test_parse_color_refuses_other_text(text):
    with pytest.raises(ValueError, match="is not a color"):
        parse_color(text)
