import gzip
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ushape.errors import ConfigError, DataError, RunError
from ushape.io.rle import SubmissionWriter, decode_runs, encode_runs, read_submission

MASK = np.array([[0, 1, 1], [1, 0, 1]])


def test_runs_by_hand():
    assert encode_runs(MASK) == "2 3 6 1"  # 0 1 1 | 1 0 1
    assert encode_runs(MASK, "column") == "2 2 5 2"  # 0 1 | 1 0 | 1 1
    assert encode_runs(np.zeros((4, 5))) == ""
    assert encode_runs(np.full((4, 5), 255)) == "1 20"


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_decoding_gives_the_mask_back(mask):
    for order in ("row", "column"):
        assert (decode_runs(encode_runs(mask, order), mask.shape, order) == mask).all()


@given(st.text(alphabet="0123 -x", max_size=12))
def test_any_text_decodes_or_is_refused(text):
    try:
        mask = decode_runs(text, (3, 4))
    except DataError:
        return
    assert mask.shape == (3, 4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 2 3", "3 numbers are no pairs"),
        ("1 two", "no number"),
        ("5 2 4 1", "overlap"),
        ("1 3 3 2", "overlap"),
        ("0 2", "overlap"),
        ("3 0", "empty"),
        ("5 3", "reach pixel 7"),
    ],
)
def test_bad_runs_are_named(text, complaint):
    with pytest.raises(DataError, match=complaint):
        decode_runs(text, (2, 3))


@pytest.mark.parametrize("name", ["submit.csv", "submit.csv.gz"])
def test_rows_are_read_back(tmp_path, name):
    path = tmp_path / name
    with SubmissionWriter(path) as writer:
        writer.write("a,b.jpg", MASK)
        writer.write("empty.jpg", 0 * MASK)
        assert not path.exists()
    assert list(read_submission(path)) == [("a,b.jpg", "2 3 6 1"), ("empty.jpg", "")]
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with pytest.raises(RunError, match="exists"):
        SubmissionWriter(path)


def test_a_torn_row_is_written_again_wherever_it_was_torn(tmp_path):
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


def test_a_killed_writer_loses_no_finished_row(tmp_path):
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


def test_an_error_keeps_the_rows_and_the_other_order_is_refused(tmp_path):
    path = tmp_path / "submit.csv"
    writer = SubmissionWriter(path)
    writer.write("a.jpg", MASK)
    writer.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert not path.exists()
    with pytest.raises(RunError, match="begun with pixels counted by row"):
        SubmissionWriter(path, "column")
    with SubmissionWriter(path) as writer:
        assert writer.done == {"a.jpg"}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no \.csv"):
        SubmissionWriter(tmp_path / "submit.txt")
    other = tmp_path / "other.csv.gz"
    with gzip.open(other, "wt") as file:
        file.write("id,mask\n")
    with pytest.raises(DataError, match="columns id, mask"):
        list(read_submission(other))
