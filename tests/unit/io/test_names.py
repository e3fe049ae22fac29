"""Names that some file systems take for the same."""

import unicodedata
from pathlib import Path

import pytest

from ushape.io.names import comparable, tells_names_apart


def test_names_are_compared_without_case_and_in_one_composition():
    assert comparable("A/b.TIF") == "a/b.tif"
    assert comparable("\u00c9") == comparable("e\u0301") == "\u00e9"
    assert comparable("a") != comparable("b")


@pytest.mark.parametrize(
    ("ignores", "expected"),
    [
        (lambda name: name, True),
        (lambda name: unicodedata.normalize("NFC", name).lower(), False),  # APFS
        (lambda name: unicodedata.normalize("NFC", name), False),  # APFS that distinguishes case
        (str.lower, False),  # NTFS
    ],
)
def test_file_system_is_examined_by_a_file(tmp_path, monkeypatch, ignores, expected):
    def exists(path):
        return ignores(path.name) in {ignores(one.name) for one in path.parent.iterdir()}

    monkeypatch.setattr(Path, "exists", exists)
    assert tells_names_apart(tmp_path / "new" / "folder") is expected
    assert list(tmp_path.iterdir()) == []
