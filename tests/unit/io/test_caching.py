import os

import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.io.caching import keep_latest


@pytest.fixture
def reader():
    """Cached reader of texts, and the files that it has read."""
    reads = []

    @keep_latest(files=1)
    def read(path):
        reads.append(path.name)
        return path.read_text()

    return read, reads


def test_keep_latest_reads_a_file_again_only_if_it_was_modified(reader, tmp_path):
    read, reads = reader
    path = tmp_path / "a.json"
    path.write_text("1")
    assert [read(path), read(path)] == ["1", "1"]
    path.write_text("2")
    os.utime(path, ns=(0, 0))
    assert read(path) == "2"
    assert reads == ["a.json", "a.json"]


def test_keep_latest_names_a_missing_file(reader, tmp_path):
    with raises_code(DataError, "file_not_found"):
        reader[0](tmp_path / "a.json")


def test_keep_latest_forgets_the_file_that_was_used_least_recently(tmp_path):
    reads = []

    @keep_latest(files=2)
    def read(path):
        reads.append(path.name)
        return path.name

    for name in "abc":
        (tmp_path / name).touch()
    for name in "abacab":
        assert read(tmp_path / name) == name
    assert reads == ["a", "b", "c", "b"]
    read.forget(tmp_path / "b")
    assert [read(tmp_path / name) for name in "ab"] == ["a", "b"]
    assert reads[4:] == ["b"]
