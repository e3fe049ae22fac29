import csv
import io

import pytest

from ushape.formatting import group_label, natural_order, pluralize, reason, singular, to_csv


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
