"""A split that the user defines in a file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ushape.data.split_file import load_given_splits
from ushape.data.splits import Splits
from ushape.errors import DataError, RunError
from ushape.types import Case


def make_cases(sizes):
    return [
        Case(id=f"g{group:03d}/{index}", image=Path("x"), group=f"g{group:03d}")
        for group, size in enumerate(sizes)
        for index in range(size)
    ]


def stated(**parts):
    """Two cases of each named group, with the part that it is in."""
    return [
        Case(id=f"{group}/{index}", image=Path("x"), group=group, split=part)
        for part, names in parts.items()
        for group in names.split()
        for index in range(2)
    ]


def write_split(path, **changes):
    parts = {"train": ["a/0", "a/1"], "validation": ["b/0", "b/1"], "test": ["c/0", "c/1"]}
    path.write_text(json.dumps(parts | changes))
    return path


def test_split_file_is_used(tmp_path):
    cases = [replace(case, split="") for case in stated(train="a b c")]
    found = load_given_splits(write_split(tmp_path / "mine.json"), cases)
    assert (found.train, found.test) == (("a/0", "a/1"), ("c/0", "c/1"))
    assert found.text.endswith("This split is defined in mine.json.")
    again = tmp_path / "again.json"
    found.save(again)
    assert load_given_splits(again, cases).train == found.train


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"train": ["a/0", "a/1", "a/2"]}, "split_cases_mismatch"),
        ({"train": ["a/0", "a/11"]}, "split_cases_mismatch"),
        ({"train": ["a/0", "a/1", "b/1"]}, "split_cases_mismatch"),
        ({"train": ["a/0", "a/1", "a/1"]}, "split_cases_mismatch"),
        ({"train": ["a/0"]}, "split_cases_mismatch"),
        (
            {"train": ["a/0", "b/0"], "test": ["c/0", "c/1", "a/1"], "validation": ["b/1"]},
            "split_separates_group",
        ),
        ({"validation": [], "train": ["a/0", "a/1", "b/0", "b/1"]}, "empty_part"),
        ({"test": "c/0"}, "invalid_split_file"),
        ({"test": None}, "invalid_split_file"),
    ],
)
def test_split_file_with_mistakes_is_refused(tmp_path, changes, code):
    cases = [replace(case, split="") for case in stated(train="a b c")]
    with pytest.raises((DataError, RunError)) as error:
        load_given_splits(write_split(tmp_path / "mine.json", **changes), cases)
    assert error.value.code == code
    assert "mine.json" in error.value.message
    assert error.value.hint


def test_split_file_without_lists_is_refused(tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(RunError) as error:
            load_given_splits(tmp_path / "s.json", [])
        assert error.value.code == "invalid_split_file"
    with pytest.raises(RunError) as error:
        load_given_splits(tmp_path / "nothing.json", [])
    assert error.value.code == "invalid_split_file"


def test_split_file_may_leave_cases_unused(tmp_path):
    cases = make_cases([2, 2, 2, 2])
    path = tmp_path / "mine.json"
    laid_down = {
        "train": ["g000/0", "g000/1"],
        "validation": ["g001/0", "g001/1"],
        "test": ["g002/0"],
        "unused": ["g003/0", "g003/1", "g002/1"],
    }
    path.write_text(json.dumps(laid_down))
    found = load_given_splits(path, cases)
    assert found.unused == ("g002/1", "g003/0", "g003/1")
    assert found.test == ("g002/0",)
    assert "Not used: 3 cases" in found.text
    found.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == found

    for wrong in (
        ["g003/0", "g003/1"],
        ["g003/0", "g003/1", "g002/1", "g009/1"],
        ["g003/0", "g003/1", "g002/1", "g000/1"],
    ):
        path.write_text(json.dumps({**laid_down, "unused": wrong}))
        with pytest.raises(DataError) as error:
            load_given_splits(path, cases)
        assert error.value.code == "split_cases_mismatch"


def test_split_file_may_lack_parts_that_are_not_needed(tmp_path):
    cases = [replace(case, split="") for case in stated(train="a b c")]
    path = write_split(
        tmp_path / "mine.json", train=[one.id for one in cases], validation=[], test=[]
    )
    found = load_given_splits(path, cases, needed=("train",))
    assert (len(found.train), found.validation, found.test) == (6, (), ())
    assert "No images are held out for testing" in found.text
    with pytest.raises(DataError) as error:
        load_given_splits(path, cases, needed=("train", "test"))
    assert error.value.code == "empty_part"
