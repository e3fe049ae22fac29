"""A Dask scheduler and a worker that were started as commands compute the blocks of an image."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest
import zarr

pytestmark = pytest.mark.slow


@pytest.fixture
def scheduler(tmp_path):
    """Address of a scheduler with one worker."""
    place = tmp_path / "scheduler.json"
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    known = [f"--scheduler-file={place}", *local]
    worker = ["--nthreads=1", f"--local-directory={tmp_path}"]
    with ExitStack() as stack:
        for name, options in (("scheduler", ["--port=0"]), ("worker", worker)):
            command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *known, *options]
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait, timeout=60)
            stack.callback(process.terminate)
            deadline = time.monotonic() + 120
            while not place.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield json.loads(place.read_text())["address"]


def test_cluster_of_commands_writes_what_one_process_writes(scheduler, trained, ushape, tmp_path):
    image = tmp_path / "image.zarr"
    values = np.random.default_rng(0).integers(0, 255, (96, 120), dtype=np.uint8)
    array = zarr.create_array(str(image), shape=values.shape, chunks=(48, 60), dtype="uint8")
    array[...] = values
    small = ("--chunk=32", "--shard=32", "--memory-gb=0.000001", "--device=cpu")
    masks = {}
    for name, where in (("serial", ()), ("cluster", ("--scheduler", scheduler))):
        output = tmp_path / name / "mask.zarr"
        ended = ushape("predict-zarr", trained, image, "-o", output, *small, *where)
        assert ended.code == 0, ended.error
        masks[name] = {
            path.relative_to(output): path.read_bytes()
            for path in output.rglob("*")
            if path.is_file()
        }
    assert masks["serial"] == masks["cluster"]
    assert f"Connected to {scheduler} " in ended.output
