"""The temporary folder of a prediction at URLs; `tests/stories/test_remote.py` predicts."""

import shutil
import tempfile
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import fsspec
import pytest

from codes import raises_code
from ushape.api._remote import RemoteFiles, copies_restored, local_copies, note_urls
from ushape.console import Console
from ushape.errors import ConfigError, DataError, RunError
from ushape.interrupts import Terminated
from ushape.io.files import temporary_name
from ushape.io.lock import locked


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, "finish"),
        (DataError("an image"), "finish"),
        (RunError("the server"), "stop"),
        (KeyboardInterrupt(), "stop"),
        (Terminated(15), "stop"),
        (MemoryError(), "stop"),
    ],
)
def test_outputs_are_uploaded_also_if_the_call_ends_early(place, error, expected):
    done = []
    files = RemoteFiles("memory://bucket/x", "memory://bucket/masks", Console(quiet=True))
    files._uploads = SimpleNamespace(
        **{name: partial(done.append, name) for name in ("finish", "stop", "close")}
    )
    with suppress(BaseException), files:
        if error is not None:
            raise error
    assert done == [expected, "close"]
    assert list(place.iterdir()) == []


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder of two files in memory."""
    monkeypatch.setenv("USHAPE_REMOTE_FOLDER", str(tmp_path / "copies"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pipe({"/bucket/data/images/a.png": b"image", "/bucket/data/masks/a.png": b"mask"})
    yield files
    files.store.clear()


def assert_kept(folder):
    with raises_code(RunError, "folder_in_use"), locked(folder.parent):
        pass


@pytest.mark.parametrize("masks", [None, "memory://bucket/data", "memory://bucket/data/masks"])
def test_copies_do_not_change_while_they_are_used(bucket, masks):
    with local_copies("memory://bucket/data", masks, print) as copies:
        for folder in filter(None, copies):
            assert_kept(folder)
    for folder in filter(None, copies):
        with locked(folder.parent):
            pass


def test_local_folders_are_no_copies(tmp_path):
    with local_copies(tmp_path, "masks/*.png", print) as copies:
        assert copies == (tmp_path, "masks/*.png")
        with locked(tmp_path):
            pass


@pytest.mark.parametrize("is_removed", [False, True])
def test_copies_of_a_run_do_not_change_while_they_are_used(bucket, tmp_path, is_removed):
    with local_copies("memory://bucket/data", None, print) as (data, _):
        pass
    run = SimpleNamespace(folder=tmp_path, data_and_masks=lambda: (data, None), cases_path="")
    note_urls(run, data, None)
    if is_removed:
        shutil.rmtree(data)
    with copies_restored(run, print):
        assert (data / "images" / "a.png").read_bytes() == b"image"
        assert_kept(data)
    with locked(data.parent):
        pass


@pytest.mark.parametrize("error", [None, DataError("an image")])
@pytest.mark.parametrize("problem", [KeyboardInterrupt(), Terminated(15), RunError("the server")])
def test_interrupted_last_upload_is_stopped(place, error, problem):
    done = []

    def finish():
        raise problem

    files = RemoteFiles("memory://bucket/x", "memory://bucket/masks", Console(quiet=True))
    files._uploads = SimpleNamespace(
        finish=finish, **{name: partial(done.append, name) for name in ("stop", "close")}
    )
    with pytest.raises(type(problem)):
        files.__exit__(type(error), error, None)
    assert done == ["stop", "close"]
