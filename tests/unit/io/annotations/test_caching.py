import os

import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.io.annotations.caching import keep_latest


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
