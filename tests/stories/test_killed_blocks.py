"""A prediction in blocks that is killed at random moments ends with the same files."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from commands import command_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills processes"),
]

KILLS = 5


def count_marks(output):
    return sum(1 for path in output.with_name("mask.zarr.blocks").glob("done/**/*"))


def files_of(folder):
    """Content of all files but those of the description, which has a random name of the task."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".blocks" not in path.relative_to(folder).parts[0]
    }


def test_repeated_kills_do_not_change_the_output(trained, ushape, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (230, 250), dtype=np.uint8)
    array = zarr.create_array(str(tmp_path / "image.zarr"), shape=values.shape, dtype="uint8")
    array[...] = values
    words = ["predict-zarr", trained, tmp_path / "image.zarr", "--probabilities", "--objects"]
    words += ["--chunk=16", "--shard=32", "--memory-gb=0.000001", "--device=cpu"]
    ended = ushape(*words, "-o", tmp_path / "straight" / "mask.zarr")
    assert ended.code == 0, ended.error

    output = tmp_path / "killed" / "mask.zarr"
    command = [sys.executable, "-m", "ushape", *map(str, words), "-o", str(output)]
    killed = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=command_environment(),
        )
        known, more = count_marks(output), random.randint(1, 30)
        while process.poll() is None and abs(count_marks(output) - known) < more:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2
    ended = ushape(*words, "-o", output)
    assert ended.code == 0, ended.error
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "straight")
