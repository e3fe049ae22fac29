import subprocess
import sys
from contextlib import contextmanager

import fsspec
import pytest

from codes import raises_code
from ushape.errors import ConfigError, DataError, RunError
from ushape.io import mirror as module
from ushape.io.lock import locked
from ushape.io.mirror import mirror, unchanged, url_of_copy


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """A folder of two files in memory; copies are in tmp_path/copies."""
    monkeypatch.setenv("USHAPE_REMOTE_FOLDER", str(tmp_path / "copies"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pipe({"/bucket/data/images/a.png": b"image", "/bucket/data/masks/a.png": b"mask"})
    yield files
    files.store.clear()


def copied(url, say):
    """Return the folder of a copy that is brought up to date."""
    with mirror(url, say) as folder:
        return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_copy_is_brought_up_to_date_and_only_changes_are_copied(memory):
    said = []
    folder = copied("memory://bucket/data", said.append)
    assert folder.name == "data"
    assert contents(folder) == {"images/a.png": b"image", "masks/a.png": b"mask"}
    assert url_of_copy(folder) == "memory://bucket/data"
    assert "Copying 2 files" in said[-1]
    unchanged = (folder / "images/a.png").stat().st_ino
    memory.rm("/bucket/data/masks/a.png")
    memory.pipe({"/bucket/data/masks/b.png": b"other"})
    assert copied("memory://bucket/data/", said.append) == folder
    assert contents(folder) == {"images/a.png": b"image", "masks/b.png": b"other"}
    assert "Copying 1 file " in said[-1]
    assert (folder / "images/a.png").stat().st_ino == unchanged


def test_edited_copy_is_copied_again(memory):
    folder = copied("memory://bucket/data", print)
    (folder / "images/a.png").write_bytes(b"IMAGE")
    copied("memory://bucket/data", print)
    assert (folder / "images/a.png").read_bytes() == b"image"


def test_second_process_waits_for_the_first(memory, monkeypatch):
    folder, said = copied("memory://bucket/data", print), []
    lock = locked(folder.parent)
    lock.__enter__()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: lock.__exit__(None, None, None))
    copied("memory://bucket/data", said.append)
    assert said[0].startswith("Waiting for other processes")


READER = """
import sys
from pathlib import Path
from ushape.io.mirror import unchanged
with unchanged(Path(sys.argv[1])):
    print("reads", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_reader(folder):
    """Another process that reads the copy until its input is closed."""
    command = [sys.executable, "-c", READER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "reads\n"
        yield process


def test_copy_that_another_process_reads_is_changed_only_when_it_has_ended(memory, monkeypatch):
    folder, said, seen = copied("memory://bucket/data", print), [], []
    memory.pipe({"/bucket/data/images/a.png": b"new image"})
    with other_reader(folder) as reader:

        def wait(seconds):
            seen.append(contents(folder))
            reader.communicate()

        monkeypatch.setattr(module.time, "sleep", wait)
        copied("memory://bucket/data", said.append)
    assert seen == [{"images/a.png": b"image", "masks/a.png": b"mask"}]
    assert said[0].startswith("Waiting for other processes")
    assert "USHAPE_REMOTE_FOLDER" in said[0]
    assert contents(folder)["images/a.png"] == b"new image"


def test_unchanged_copy_is_shared_with_other_processes_and_blocks(memory):
    folder, said = copied("memory://bucket/data", print), []
    with (
        other_reader(folder) as reader,
        mirror("memory://bucket/data", said.append) as first,
        mirror("memory://bucket/data", said.append) as second,
    ):
        assert first == second == folder
        assert reader.poll() is None
        reader.communicate()
    assert said == [f"{folder} is up to date with memory://bucket/data: 2 files."] * 2


def test_copy_cannot_be_changed_in_the_block(memory):
    with mirror("memory://bucket/data", print) as folder:
        with unchanged(folder):
            pass
        with raises_code(RunError, "folder_in_use"), locked(folder.parent):
            pass
    with locked(folder.parent):
        pass


def test_files_that_change_during_the_wait_are_listed_again(memory, monkeypatch):
    folder = copied("memory://bucket/data", print)
    memory.pipe({"/bucket/data/images/a.png": b"second image"})
    with other_reader(folder) as reader:

        def wait(seconds):
            memory.pipe({"/bucket/data/images/a.png": b"the third image"})
            reader.communicate()

        monkeypatch.setattr(module.time, "sleep", wait)
        copied("memory://bucket/data", print)
    assert contents(folder)["images/a.png"] == b"the third image"


@pytest.mark.parametrize(
    ("url", "code"),
    [("memory://bucket/none", "no_images"), ("memory://bucket/data/images/a.png", "not_a_folder")],
)
def test_url_that_is_no_folder_is_refused(memory, url, code):
    with pytest.raises(DataError) as error:
        copied(url, print)
    assert error.value.code == code


def test_other_folders_are_no_copies(memory, tmp_path):
    assert url_of_copy(tmp_path) is None


def test_user_without_a_home_folder_is_told_which_variable_states_one(monkeypatch, tmp_path):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    for name in (module.FOLDER_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.Path, "home", fail)
    with raises_code(ConfigError, "no_cache_folder"):
        module.copies_folder()
    assert url_of_copy(tmp_path) is None  # Local data need no cache.


def test_parent_folder_is_not_the_name_of_a_copy(memory, tmp_path):
    other = copied("memory://bucket/data", print)
    memory.store["/bucket/../x.png"] = memory.store["/bucket/data/images/a.png"]
    with pytest.raises(DataError) as error:
        copied("memory://bucket/..", print)
    assert error.value.code == "remote_failed"
    assert (other / "images/a.png").exists()


def test_links_in_a_copy_are_removed_and_what_they_lead_to_is_kept(memory, tmp_path):
    folder = copied("memory://bucket/data", print)
    other = tmp_path / "other"
    (folder / "images").rename(other)
    (folder / "images").symlink_to(other)
    (folder / "masks" / "nowhere.png").symlink_to(tmp_path / "none")
    (folder / "loop").symlink_to(folder)
    (folder / "masks" / "a.png").unlink()
    (folder / "masks" / "a.png").symlink_to(other / "a.png")
    memory.pipe({"/bucket/data/images/a.png": b"new image"})
    copied("memory://bucket/data", print)
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    assert contents(folder) == {"images/a.png": b"new image", "masks/a.png": b"mask"}
    assert contents(other) == {"a.png": b"image"}


def test_file_takes_the_place_of_a_folder_and_the_other_way_round(memory):
    folder = copied("memory://bucket/data", print)
    memory.rm("/bucket/data/images/a.png")
    memory.pipe({"/bucket/data/images/a.png/b": b"1"})
    copied("memory://bucket/data", print)
    assert contents(folder) == {"images/a.png/b": b"1", "masks/a.png": b"mask"}
    memory.store.clear()
    memory.pipe({"/bucket/data/images/a.png": b"2"})
    copied("memory://bucket/data", print)
    assert contents(folder) == {"images/a.png": b"2"}


def test_names_that_are_left_out_are_told(memory, monkeypatch):
    found = {"/bucket/data/a.png": {"size": 5}, "/bucket/data//b.png": {"size": 5}}
    monkeypatch.setattr(type(memory), "find", lambda self, path, detail: found)
    memory.pipe({"/bucket/data/a.png": b"image"})
    said = []
    copied("memory://bucket/data", said.append)
    assert any("memory://bucket/data//b.png" in line for line in said)


def test_second_of_two_names_that_the_disk_takes_for_the_same_is_left_out(memory, monkeypatch):
    memory.pipe({"/bucket/data/images/A.png": b"other"})
    said = []
    monkeypatch.setattr(module, "tells_names_apart", lambda folder: False)
    folder = copied("memory://bucket/data", said.append)
    assert contents(folder) == {"images/A.png": b"other", "masks/a.png": b"mask"}
    assert "images/a.png was left out" in said[-1]
    monkeypatch.setattr(module, "tells_names_apart", lambda folder: True)
    assert contents(copied("memory://bucket/data", print))["images/a.png"] == b"image"
