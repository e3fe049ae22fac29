import os
import subprocess
import sys

import pytest

from ushape.io.files import (
    append_line,
    complete_lines,
    remove_leftovers,
    replacing,
    write_bytes,
)


def test_replacing_writes_whole_or_not_at_all(tmp_path):
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


def test_complete_lines_leave_out_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "log"
    assert list(complete_lines(path)) == []
    for line in (b"one\n", b"two\n", b"thr"):
        with path.open("ab") as file:
            append_line(file.fileno(), line)
    assert list(complete_lines(path)) == [b"one\n", b"two\n"]
