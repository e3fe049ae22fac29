"""Train and predict on a bucket of a local S3 server, which restarts in between."""

import logging
import shutil
import signal
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import ushape
from codes import raises_code
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError, DataError
from ushape.inference.output.writer import PredictionWriter
from ushape.interrupts import Terminated
from ushape.io.remote import RemoteFolder

pytest.importorskip("moto")
fsspec = pytest.importorskip("fsspec")

SETTINGS = (
    "network.widths=[4,8,8]",
    "sampling.patch_shape=[32,32]",
    "train.batch_size=2",
    "train.steps_per_epoch=2",
    "predict.tune=false",
)


@pytest.fixture
def server(monkeypatch, tmp_path):
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("USHAPE_REMOTE_FOLDER", str(tmp_path / "copies"))
    found = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*found.get_host_and_port()))
    yield found
    found.stop()


def restart_later(server):
    """Stop the server, and start it again in two seconds."""
    port = server.get_host_and_port()[1]
    server.stop()

    def start():
        time.sleep(2)
        server._port = port
        server.start()

    threading.Thread(target=start).start()


def contents(folder, pattern="*.png"):
    return {path.name: path.read_bytes() for path in folder.rglob(pattern)}


@pytest.mark.timeout(300)
def test_training_and_prediction_go_on_after_the_server_has_restarted(
    server, tmp_path, monkeypatch
):
    data, run = tmp_path / "data", tmp_path / "run"
    write_data_set(data, 8, SyntheticConfig(size=64, groups=4), seed=3)
    bucket = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    bucket.mkdir("s3://bucket")
    bucket.put(f"{data}/", "s3://bucket/data", recursive=True)

    restart_later(server)
    ushape.train(
        "s3://bucket/data", output=run, epochs=1, device="cpu", settings=SETTINGS, quiet=True
    )
    assert contents(next((tmp_path / "copies").glob("*/data/images"))) == contents(data / "images")
    stored = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert b"s3://bucket/data" in stored
    assert b"secret-of-the-test" not in stored

    restart_later(server)
    masks = ushape.predict(
        run, "s3://bucket/data/images", output="s3://bucket/masks", table=True, quiet=True
    )
    assert len(masks) == 8
    assert masks[0].startswith("s3://bucket/masks/")
    local = tmp_path / "masks"
    ushape.predict(run, data / "images", output=local, table=True, quiet=True)
    names = [path.name for path in local.iterdir() if not path.name.startswith(".")]
    found = {name: bucket.cat_file(f"bucket/masks/{name}") for name in names}
    assert found == {name: (local / name).read_bytes() for name in names}

    bucket.rm("bucket/masks/images.csv")
    bucket.rm(masks[0])
    again = ushape.predict(
        run, Path("s3://bucket/data/images"), output="s3://bucket/masks", table=True, quiet=True
    )
    assert sorted(again) == sorted(masks)
    assert bucket.cat_file("bucket/masks/images.csv") == (local / "images.csv").read_bytes()
    assert {name: bucket.cat_file(f"bucket/masks/{name}") for name in names} == found

    write, numbers = PredictionWriter.write, iter(range(8))

    def write_three(self, *arguments):
        if next(numbers) >= 3:
            raise Terminated(signal.SIGTERM)
        return write(self, *arguments)

    monkeypatch.setattr(PredictionWriter, "write", write_three)
    with pytest.raises(Terminated):
        ushape.predict(run, data / "images", output="s3://bucket/early", quiet=True)
    early = [path for path in bucket.find("bucket/early") if path.endswith(".png")]
    assert len(early) == 3
    monkeypatch.setattr(PredictionWriter, "write", write)
    times = {path: bucket.info(path)["LastModified"] for path in early}
    assert len(ushape.predict(run, data / "images", output="s3://bucket/early", quiet=True)) == 8
    assert times == {path: bucket.info(path)["LastModified"] for path in early}


@pytest.mark.timeout(300)
def test_images_that_cannot_be_written_are_reported_and_removed_copies_are_restored(
    server, tmp_path
):
    data, run = tmp_path / "data", tmp_path / "run"
    write_data_set(data, 8, SyntheticConfig(size=64, groups=4), seed=3)
    bucket = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    bucket.mkdir("s3://other")
    bucket.put(f"{data}/", "s3://other/data", recursive=True)
    ushape.train(
        "s3://other/data", output=run, epochs=1, device="cpu", settings=SETTINGS, quiet=True
    )
    image = next((data / "images").glob("*.png")).read_bytes()
    bucket.pipe_file(f"s3://other/odd/{'n' * 300}.png", image)
    bucket.pipe_file(f"s3://other/odd/{'m' * 251}.png", image)  # NAME_overlay.png is too long.
    bucket.pipe_file("s3://other/odd/a + 100%.png", image)
    with raises_code(DataError, "images_failed") as caught:
        ushape.predict(
            run, "s3://other/odd", output="s3://other/odd-masks", overlay=True, quiet=True
        )
    assert caught.value.message.startswith("2 of 3 images")
    found = [path for path in bucket.find("other/odd-masks") if path.endswith(".png")]
    assert sorted(path.rpartition("/")[2] for path in found) == [
        "a + 100%.png",
        "a + 100%_overlay.png",
    ]

    shutil.rmtree(tmp_path / "copies")
    ushape.evaluate(run, quiet=True)


def test_credentials_that_the_server_stops_accepting_end_the_call(server, tmp_path):
    bucket = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    bucket.mkdir("s3://third")
    bucket.pipe({f"s3://third/{number}.png": b"image" for number in range(3)})
    remote = RemoteFolder("s3://third")
    files = list(remote.list_files().values())
    remote.fetch(files[0], tmp_path / "0.png")
    address = "{}:{}".format(*server.get_host_and_port())
    counts = urllib.request.Request(
        f"http://{address}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
    )
    try:
        urllib.request.urlopen(counts).close()  # From now on, the key must be one of a user.
        with raises_code(ConfigError, "remote_credentials"):
            remote.fetch(files[1], tmp_path / "1.png")
    finally:
        counts.data = b"inf"
        urllib.request.urlopen(counts).close()
