"""Train and predict on a bucket of a local S3 server that restarts, and with processes that die.

    python benchmarks/scale/s3.py --images 400 --kills 5

The server is moto, in this process. The following is shown:

- A training on data of the bucket goes on after the server was stopped and started again. Its
  copy of the data equals the data.
- A prediction from the bucket into the bucket goes on after such a restart.
- The same prediction, killed at random and repeated, ends with the same masks.

Each time, the masks in the bucket are compared with those of a prediction of local files.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
from moto.server import ThreadedMotoServer

from ushape.datasets.synthetic import SyntheticConfig, write_data_set

SMALL = (
    "--device=cpu",
    "--set=network.widths=[4,8,8]",
    "--set=sampling.patch_shape=[32,32]",
    "--set=train.batch_size=2",
    "--set=train.steps_per_epoch=6",
    "--set=predict.tune=false",
)
"""Options of a network that trains in seconds."""

BUCKET = "s3://bucket"

COMMAND = """
import ushape.data.remote_images as images
import ushape.inference.output.uploads as uploads
from ushape.cli import main
images.WHOLE_BYTES, uploads.BATCH_IMAGES = 0, 8
main()
"""
"""The command line, with the behavior of many images on few: copies ahead, small batches."""


class Server:
    """S3 server that keeps its objects when it is stopped."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        os.environ.update(
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_DEFAULT_REGION="us-east-1",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{self.port}",
        )

    def restart(self, pause_s: float) -> None:
        self._server.stop()
        time.sleep(pause_s)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=400, help="Number of images of 64 pixels.")
    parser.add_argument("--kills", type=int, default=5, help="Number of kills of the prediction.")
    parser.add_argument("--pause", type=float, default=8.0, help="Seconds without a server.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, server = Path(name), Server()
        os.environ["USHAPE_REMOTE_FOLDER"] = str(folder / "copies")
        try:
            _show(folder, server, options)
        finally:
            server.stop()


def _show(folder: Path, server: Server, options: argparse.Namespace) -> None:
    data, run, random_numbers = folder / "data", folder / "run", random.Random(options.seed)
    write_data_set(data, options.images, SyntheticConfig(size=64), seed=options.seed)
    bucket = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    bucket.mkdir(BUCKET)
    bucket.put(f"{data}/", f"{BUCKET}/data", recursive=True)

    def copied() -> int:
        return sum(1 for _ in (folder / "copies").rglob("*.png"))

    started = time.monotonic()
    train = _start(["train", f"{BUCKET}/data", "-o", run, "--epochs=1", *SMALL])
    at = _restart_when(server, copied, options.images / 4, train, options.pause)
    _require(train.wait() == 0, "the training ended")
    copy = next((folder / "copies").glob("*/data"))
    _require(_contents(copy) == _contents(data), "the copy equals the data")
    print(f"train: server restarted after {at} files; {time.monotonic() - started:.0f} s")

    _require(_start(["predict", run, data / "images", "-o", folder / "masks"]).wait() == 0, "local")
    expected = _contents(folder / "masks")

    def masks(name: str) -> dict[str, bytes]:
        found = bucket.find(f"{BUCKET}/{name}")
        return {path.partition(f"/{name}/")[2]: bucket.cat_file(path) for path in found}

    def seen(name: str) -> Callable[[], int]:
        return lambda: len(bucket.find(f"{BUCKET}/{name}", detail=False))

    started = time.monotonic()
    predict = ["predict", run, f"{BUCKET}/data/images", "-o"]
    process = _start([*predict, f"{BUCKET}/restarted"])
    count = seen("restarted")
    at = _restart_when(server, count, options.images / 4, process, options.pause)
    _require(process.wait() == 0, "the prediction ended")
    _require(_images(masks("restarted")) == _images(expected), "all masks are equal")
    print(f"predict: server restarted after {at} objects; {time.monotonic() - started:.0f} s")

    started, count, kills = time.monotonic(), seen("killed"), []
    for kill in range(options.kills):
        process, least = _start([*predict, f"{BUCKET}/killed"]), count()
        goal = options.images * (kill + random_numbers.random()) / (options.kills + 1)
        while process.poll() is None and count() <= max(least, goal):
            time.sleep(0.05)
        process.kill()
        process.wait()
        kills.append(count())
    _require(_start([*predict, f"{BUCKET}/killed"]).wait() == 0, "the last call ended")
    _require(_images(masks("killed")) == _images(expected), "all masks are equal")
    print(f"predict: killed with {kills} objects; {time.monotonic() - started:.0f} s")
    print(f"{len(_images(expected))} masks are equal to those of local files, byte by byte.")


def _start(arguments: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", COMMAND, *map(str, arguments), "--quiet"]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _restart_when(
    server: Server,
    count: Callable[[], int],
    goal: float,
    process: subprocess.Popen[bytes],
    pause_s: float,
) -> int:
    """Restart the server once there are more than `goal` files, and return their number."""
    while (found := count()) <= goal:
        if process.poll() is not None:
            raise SystemExit("The process ended before the server was restarted.")
        time.sleep(0.02)
    server.restart(pause_s)
    return found


def _contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _images(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".png")}


def _require(is_true: bool, what: str) -> None:
    if not is_true:
        raise SystemExit(f"Failed: {what}.")


if __name__ == "__main__":
    main()
