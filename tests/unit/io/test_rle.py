import csv
import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from codes import raises_code
from submissions import decode_runs, read_submission
from ushape.errors import ConfigError, DataError, RunError
from ushape.io.rle import RowRuns, SubmissionWriter, encode_runs

MASK = np.array([[0, 1, 1], [1, 0, 1]])


def test_encode_runs_by_hand():
    assert encode_runs(MASK) == "2 3 6 1"  # 0 1 1 | 1 0 1
    assert encode_runs(MASK, "column") == "2 2 5 2"  # 0 1 | 1 0 | 1 1
    assert encode_runs(np.zeros((4, 5))) == ""
    assert encode_runs(np.full((4, 5), 255)) == "1 20"


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_encode_runs_can_be_decoded(mask):
    for order in ("row", "column"):
        assert (decode_runs(encode_runs(mask, order), mask.shape, order) == mask).all()


@given(
    arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    st.lists(st.integers(0, 9), max_size=3),
)
def test_row_runs_of_bands_equal_those_of_the_whole_mask(mask, cuts):
    runs = RowRuns()
    for band in np.split(mask, sorted(cuts)):
        runs.add(band)
    assert runs.text == encode_runs(mask)


@pytest.mark.parametrize("name", ["submit.csv", "submit.csv.gz"])
def test_submission_rows_are_read_back(tmp_path, name):
    path = tmp_path / name
    with SubmissionWriter(path) as writer:
        writer.write("a,b.jpg", MASK)
        writer.write("empty.jpg", 0 * MASK)
        assert not path.exists()
    assert list(read_submission(path)) == [("a,b.jpg", "2 3 6 1"), ("empty.jpg", "")]
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with raises_code(RunError, "output_exists"):
        SubmissionWriter(path)


def test_submission_writer_rewrites_an_incomplete_row(tmp_path):
    names = ["one.jpg", "two.jpg", "three.jpg"]
    whole = tmp_path / "whole.csv"
    with SubmissionWriter(whole) as writer:
        for name in names:
            writer.write(name, MASK)
    content = "".join(f"{name},{encode_runs(MASK)}\n" for name in names).encode()
    for length in range(len(content) + 1):
        path = tmp_path / f"{length}.csv"
        (tmp_path / f".{length}.csv.row.part").write_bytes(content[:length])
        with SubmissionWriter(path) as writer:
            assert len(writer.done) == content[:length].count(b"\n")
            for name in names:
                if name not in writer.done:
                    writer.write(name, MASK)
        assert path.read_bytes() == whole.read_bytes()


def test_submission_writer_that_was_killed_loses_no_finished_row(tmp_path):
    path = tmp_path / "submit.csv.gz"
    code = """
import os, pathlib, signal, sys
import numpy as np
from ushape.io.rle import SubmissionWriter
with SubmissionWriter(pathlib.Path(sys.argv[1])) as writer:
    for index in range(5):
        writer.write(f"{index}.jpg", np.eye(4))
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -9
    assert not path.exists()
    with SubmissionWriter(path) as writer:
        assert writer.done == {"0.jpg", "1.jpg", "2.jpg"}
        writer.write("3.jpg", np.eye(4))
    assert [name for name, _ in read_submission(path)] == [f"{index}.jpg" for index in range(4)]
    first = path.read_bytes()
    with SubmissionWriter(path, overwrite=True) as writer:
        for index in range(4):
            writer.write(f"{index}.jpg", np.eye(4))
    assert path.read_bytes() == first


def test_submission_writer_keeps_rows_after_an_error_and_refuses_the_other_order(tmp_path):
    path = tmp_path / "submit.csv"
    writer = SubmissionWriter(path)
    writer.write("a.jpg", MASK)
    writer.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert not path.exists()
    with raises_code(RunError, "rle_order_changed"):
        SubmissionWriter(path, "column")
    with SubmissionWriter(path) as writer:
        assert writer.done == {"a.jpg"}


def test_submission_writer_reads_rows_longer_than_the_csv_module_allows(tmp_path):
    path = tmp_path / "submit.csv.gz"
    mask = np.indices((300, 300)).sum(axis=0) % 2
    writer = SubmissionWriter(path)
    writer.write("checkered.png", mask)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with SubmissionWriter(path) as writer:
        assert writer.done == {"checkered.png"}
    [(_, runs)] = read_submission(path)
    assert len(runs) > csv.field_size_limit()
    assert (decode_runs(runs, mask.shape) == mask).all()


def test_submission_writer_leaves_no_incomplete_row_on_a_full_disk(tmp_path, monkeypatch):
    left, write = [5], os.write

    def write_until_full(file, content):
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        taken = write(file, content[: left[0]])
        left[0] -= taken
        return taken

    path = tmp_path / "submit.csv"
    with SubmissionWriter(path) as writer:
        writer.write("one.jpg", MASK)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_until_full)
            with pytest.raises(OSError, match="No space"):
                writer.write("two.jpg", MASK)
        assert writer.done == {"one.jpg"}
        writer.write("three.jpg", MASK)
    assert [name for name, _ in read_submission(path)] == ["one.jpg", "three.jpg"]


def test_submission_writer_ignores_zeros_left_by_a_power_failure(tmp_path):
    path = tmp_path / "submit.csv"
    (tmp_path / ".submit.csv.row.part").write_bytes(b"one.jpg,1 2\n" + bytes(12) + b"3\nb,1 2\n")
    with SubmissionWriter(path) as writer:
        assert writer.done == {"one.jpg"}
    assert list(read_submission(path)) == [("one.jpg", "1 2")]


def test_submission_writer_overwrites_only_when_complete(tmp_path):
    path = tmp_path / "submit.csv"
    with SubmissionWriter(path) as writer:
        writer.write("a.jpg", MASK)
    before = path.read_bytes()
    interrupted = SubmissionWriter(path, overwrite=True)
    interrupted.write("b.jpg", MASK)
    interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert path.read_bytes() == before
    with SubmissionWriter(path, overwrite=True) as writer:
        assert writer.done == set()
        writer.write("c.jpg", MASK)
    assert [name for name, _ in read_submission(path)] == ["c.jpg"]


@pytest.mark.parametrize("name", ["", "a\nb.jpg", "a\0.jpg", "\ud800.jpg"])
def test_submission_writer_refuses_invalid_names(tmp_path, name):
    with SubmissionWriter(tmp_path / "submit.csv") as writer:
        with raises_code(DataError, "submission_name"):
            writer.write(name, MASK)
        writer.write("a.jpg", MASK)
        with raises_code(DataError, "duplicate_name"):
            writer.write("a.jpg", MASK)


def test_submission_writer_keeps_the_bytes_of_names_that_are_not_utf_8(tmp_path):
    path = tmp_path / "submit.csv"
    writer = SubmissionWriter(path)
    writer.write("\udcff.jpg", MASK)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with SubmissionWriter(path) as writer:
        assert writer.done == {"\udcff.jpg"}
    assert path.read_bytes().splitlines()[1].startswith(b"\xff.jpg,")


def test_submission_writer_refuses_other_suffixes(tmp_path):
    with raises_code(ConfigError, "unwritable_suffix"):
        SubmissionWriter(tmp_path / "submit.txt")


def test_rows_of_parts_are_taken_over_in_the_order_of_the_names(tmp_path):
    path, names = tmp_path / "submit.csv", ["d", "a", "c", "b"]
    for part, own in (("1-of-2", "bc"), ("2-of-2", "ac")):
        with SubmissionWriter(path, part=part, names=names) as writer:
            for name in own:
                if name not in writer.done:
                    writer.write(name, MASK)
    assert not path.exists()
    with raises_code(RunError, "rle_order_changed"):
        SubmissionWriter(path, "column")
    with SubmissionWriter(path, names=names) as writer:
        assert writer.done == {"a", "b", "c"}
        writer.write("d", MASK)
    assert [name for name, _ in read_submission(path)] == names
    assert [file.name for file in tmp_path.iterdir()] == ["submit.csv"]


def test_row_of_an_earlier_writer_is_replaced(tmp_path):
    path = tmp_path / "submit.csv"
    for mask in (MASK, 0 * MASK):
        writer = SubmissionWriter(path)
        writer.write("a", mask)
        writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with SubmissionWriter(path):
        pass
    assert list(read_submission(path)) == [("a", "")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_not_taken_for_another_process(tmp_path, monkeypatch, code):
    def refuse(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with SubmissionWriter(tmp_path / "x.csv") as writer:
        writer.write("a.png", MASK)
    assert read_submission(tmp_path / "x.csv") == [("a.png", "2 3 6 1")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EACCES])
def test_locked_submission_is_refused(tmp_path, monkeypatch, code):
    def refuse(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with raises_code(RunError, "output_locked"):
        SubmissionWriter(tmp_path / "x.csv")
