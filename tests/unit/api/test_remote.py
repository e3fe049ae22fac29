"""The temporary folder of a prediction at URLs; `tests/stories/test_remote.py` predicts."""

import tempfile

import pytest

from codes import raises_code
from ushape.api._remote import RemoteFiles
from ushape.console import Console
from ushape.errors import ConfigError
from ushape.io.files import temporary_name


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_refused_output_leaves_no_temporary_folder(place):
    with raises_code(ConfigError, "remote_unsupported"):
        RemoteFiles("memory://bucket/x", "http://host/masks", Console(quiet=True))
    assert list(place.iterdir()) == []


def test_folder_of_a_killed_process_with_the_same_number_is_replaced(place):
    left = temporary_name(place / "ushape-remote")
    left.mkdir()
    (left / "file").touch()
    with RemoteFiles("memory://bucket/x", None, Console(quiet=True)):
        assert not (left / "file").exists()
    assert list(place.iterdir()) == []
