import os
import subprocess
import sys
import time

import pytest

from codes import raises_code
from ushape.errors import DataError, RunError
from ushape.io import files
from ushape.io.files import (
    append_line,
    check_claim,
    complete_lines,
    files_within,
    read_json,
    read_sealed_json,
    real_path,
    refuse_existing_output,
    remove_leftovers,
    replacing,
    write_bytes,
    write_json,
    write_sealed_json,
)


def test_replacing_writes_atomically(tmp_path):
    path = tmp_path / "below" / "x.txt"
    write_bytes(path, b"first")

    def fail_half_way():
        with replacing(path) as file:
            file.write(b"sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_bytes() == b"first"
    assert [one.name for one in path.parent.iterdir()] == ["x.txt"]


def test_remove_leftovers_removes_only_those_of_dead_processes(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leftover = tmp_path / "p1" / f".x.png.{dead.pid}-1.part"
    ours, other = tmp_path / f".x.png.{os.getpid()}-1.part", tmp_path / ".x.csv.row.part"
    leftover.parent.mkdir()
    for path in (leftover, ours, other):
        path.write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert not leftover.exists()
    assert ours.exists()
    assert other.exists()  # Rows of a submission, to be continued.
    remove_leftovers(tmp_path / "nothing there")


@pytest.mark.parametrize("wrong_s", [-30 * 3600.0, 30 * 3600.0])
def test_age_of_leftovers_does_not_depend_on_the_clock_of_this_machine(
    tmp_path, monkeypatch, wrong_s
):
    real = time.time
    new, old = (tmp_path / f".{name}.png.1-1-00000000.part" for name in "ab")
    for path, age_s in ((new, 23 * 3600.0), (old, 25 * 3600.0)):
        path.touch()
        os.utime(path, (real() - age_s,) * 2)
    monkeypatch.setattr(files.time, "time", lambda: real() + wrong_s)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_remove_leftovers_restores_a_folder_that_was_about_to_be_replaced(tmp_path):
    former, other = tmp_path / "p1" / ".x.zarr.999999999-1.old", tmp_path / ".y.999999999-1.old"
    for path in (former, other, tmp_path / "y"):
        path.mkdir(parents=True)
        (path / path.name[:5]).write_bytes(b"")
    remove_leftovers(tmp_path, ".*")  # Only in the folder itself.
    assert former.exists()
    assert not other.exists()
    assert (tmp_path / "y" / "y").exists()
    remove_leftovers(tmp_path)
    assert [one.name for one in (tmp_path / "p1").iterdir()] == ["x.zarr"]


def test_files_within_a_zarr_image_are_those_of_its_pixels(tmp_path):
    names = (".zattrs", ".zmetadata", "0/0/0", "labels/.zattrs", "labels/x/0/0", "0/labels/x/0")
    for image in ("a.zarr", "b.ome.ZARR", "c"):
        for name in names:
            path = tmp_path / image / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    for image in ("a.zarr", "b.ome.ZARR", "c"):
        found = [p.relative_to(tmp_path / image).as_posix() for p in files_within(tmp_path / image)]
        assert found == ([".zattrs", "0/0/0"] if image != "c" else sorted(names))
    # Masks of a training may be label images.
    assert len(files_within(tmp_path / "a.zarr" / "labels")) == 2


def test_complete_lines_leave_out_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "log"
    assert list(complete_lines(path)) == []
    for line in (b"one\n", b"two\n", b"thr"):
        with path.open("ab") as file:
            append_line(file.fileno(), line)
    assert list(complete_lines(path)) == [b"one\n", b"two\n"]


def test_read_json_restores_what_was_written(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, 2.5, None], "path": tmp_path})
    values = read_json(tmp_path / "x.json", DataError, code="x", hint="y")
    assert values == {"a": [1, 2.5, None], "path": str(tmp_path)}


@pytest.mark.parametrize("content", [None, b"{", b"\xff", b"[" * 100_000])
def test_read_json_raises_the_given_error(content, tmp_path):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with raises_code(RunError, "damaged_run") as error:
        read_json(tmp_path / "x.json", RunError, code="damaged_run", hint="Copy it again.")
    assert error.value.hint == "Copy it again."
    assert "x.json" in error.value.message


def test_refuse_existing_output_unless_it_may_be_replaced(tmp_path):
    refuse_existing_output(None, overwrite=False)
    refuse_existing_output(tmp_path / "new", overwrite=False)
    refuse_existing_output(tmp_path, overwrite=True)
    with raises_code(RunError, "output_exists"):
        refuse_existing_output(tmp_path, overwrite=False)


@pytest.mark.parametrize(
    ("shape", "present", "code"),
    [
        ((0, 3), 100, "damaged_file"),
        ((2**16, 2**16), 2**40, "image_too_large"),
        ((2**15, 2**15), 1000, "damaged_file"),
    ],
)
def test_check_claim_refuses_impossible_sizes(shape, present, code, tmp_path):
    with raises_code(DataError, code):
        check_claim(tmp_path, shape, 1, present)
    check_claim(tmp_path, (100, 100), 1, 10)


def test_read_sealed_json_refuses_what_was_changed(tmp_path):
    path = tmp_path / "a.json"
    write_sealed_json(path, {"value": 0.5, "place": "x"}, free=["place"])
    given = {"code": "changed", "hint": "Copy it."}
    assert read_sealed_json(path, RunError, **given, free=["place"]) == {"value": 0.5, "place": "x"}
    text = path.read_text()
    path.write_text(text.replace('"x"', '"y"'))
    assert read_sealed_json(path, RunError, **given, free=["place"])["place"] == "y"
    path.write_text(text.replace("0.5", "0.6"))
    with pytest.raises(RunError) as caught:
        read_sealed_json(path, RunError, **given, free=["place"])
    assert caught.value.code == "changed"
    path.write_text('{"value": 0.6}')  # Written by an earlier version.
    assert read_sealed_json(path, RunError, **given) == {"value": 0.6}


def test_write_bytes_accepts_the_longest_names(tmp_path):
    for name in ("a" * 255, "ü" * 127):
        write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
        (tmp_path / name).unlink()
    assert not list(tmp_path.iterdir())


def test_write_bytes_names_the_file_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_bytes(tmp_path / "taken", b"content")
    assert caught.value.filename == str(tmp_path / "taken")
    assert not list((tmp_path / "taken").iterdir())


def test_large_claims_are_compared_with_the_free_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_memory_bytes", lambda: 3_000_000_000)
    side = 20_000
    with raises_code(DataError, "image_too_large") as error:
        files.check_claim(tmp_path / "x.png", (side, side), 1, side * side)
    assert "6.4 GB" in error.value.message
    assert "3.0 GB" in error.value.message
    files.check_claim(tmp_path / "x.png", (side // 2, side // 2), 1, side * side)


def test_json_that_needs_more_memory_than_is_free_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_memory_bytes", lambda: 100_000_000)
    path = tmp_path / "large.json"
    path.write_text("[" + "1," * 9_000_000 + "1]")
    with raises_code(DataError, "image_too_large"):
        files.read_json(path, DataError, code="unreadable_text", hint="Write JSON.")
    path.write_text("[" * 100_000)
    with raises_code(DataError, "unreadable_text"):
        files.read_json(path, DataError, code="unreadable_text", hint="Write JSON.")


def test_read_head_returns_the_first_bytes_and_none_of_a_missing_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abcdef")
    assert files.read_head(tmp_path / "a", 3) == b"abc"
    assert files.read_head(tmp_path / "b") == b""


def test_real_path_of_a_link_loop_raises_nothing(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert real_path(loop).name == "loop"
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert real_path(tmp_path / "link") == real_path(tmp_path) / "folder"
