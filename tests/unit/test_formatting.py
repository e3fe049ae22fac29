import csv
import io

import pytest

from ushape.formatting import (
    display_name,
    escape_cell,
    file_name,
    group_label,
    natural_order,
    one_line,
    pluralize,
    printable,
    read_csv,
    reason,
    singular,
    to_csv,
    unescape_cell,
)


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "mask", "1 mask"),
        (0, "mask", "0 masks"),
        (2, "process", "2 processes"),
        (3, "patch", "3 patches"),
        (20, "epoch", "20 epochs"),
    ],
)
def test_pluralize(number, noun, text):
    assert pluralize(number, noun) == text


def test_group_label_takes_plural_nouns():
    assert singular("blocks of sections") == "block of sections"
    assert group_label(1, "patients") == "1 patient"
    assert group_label(2, "blocks of sections") == "2 blocks of sections"


def test_natural_order_sorts_numbers_by_value():
    names = ["a_10", "a_2", "b_1", "a"]
    assert sorted(names, key=natural_order) == ["a", "a_2", "a_10", "b_1"]


def test_reason_is_the_first_line_without_a_path():
    assert reason(FileNotFoundError(2, "No such file", "x.png")) == "No such file"
    assert reason(ValueError("first.\nsecond")) == "first"
    assert reason(ValueError()) == "ValueError"


def test_to_csv_is_read_back_by_the_csv_module():
    rows = [{"a": 'x,"y"', "b": 1.5}, {"b": None}]
    text = to_csv(("a", "b"), rows).decode()
    assert "\r" not in text
    assert list(csv.reader(io.StringIO(text))) == [["a", "b"], ['x,"y"', "1.5"], ["", ""]]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1+1", "'+1+1"),
        ("-x", "'-x"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("'=1", "''=1"),
        ("-5", "-5"),
        ("-0.25", "-0.25"),
        ("+1e-05", "+1e-05"),
        ("'quoted'", "'quoted'"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_escape_cell_changes_formulas_only_and_is_undone(text, cell):
    assert escape_cell(text) == cell
    assert unescape_cell(cell) == text


def test_to_csv_escapes_headers_and_texts_and_read_csv_restores_them():
    rows = [{"=name": "-x,y", "n": -1.5}, {"=name": "line\nbreak", "n": None}]
    written = to_csv(["=name", "n"], rows)
    assert written.splitlines()[:2] == [b"'=name,n", b'"\'-x,y",-1.5']
    assert read_csv(written) == [
        {"=name": "-x,y", "n": "-1.5"},
        {"=name": "line\nbreak", "n": ""},
    ]
    with pytest.raises(ValueError, match="zip"):
        read_csv(b"a,b\n1\n")


def test_printable_shows_control_characters_as_escapes():
    assert printable("a\x1b[31m\nb\x07\u202ec\x85\udcfc") == (
        "a\\x1b[31m\nb\\x07\\u202ec\\x85\\udcfc"
    )
    assert one_line("a\nb") == "a\\nb"
    assert printable("Größe 256 × 300, 細胞") == "Größe 256 × 300, 細胞"


def test_display_name_of_bytes_that_are_not_utf8():
    name = b"M\xfcller \xc3\xa9 \\1.png".decode(errors="surrogateescape")
    assert display_name(name) == "M\\udcfcller é \\1.png"
    assert file_name(display_name(name)) == name
    assert display_name("Müller") == file_name("Müller") == "Müller"
