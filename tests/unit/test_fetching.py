"""Against a server of this machine and a stand-in for Kaggle's client: no network."""

import functools
import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import pytest

from ushape.errors import ConfigError, DataError
from ushape.fetching.download import download
from ushape.fetching.sources import fetch
from ushape.fetching.unpack import unpack

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; knows ranges if `server.ranges`; may stop early once."""

    def do_GET(self):
        whole, start = self.server.content, 0
        self.server.asked.append(self.headers.get("Range"))
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(whole):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        stop, self.server.stop_at = self.server.stop_at, None
        self.wfile.write(whole[start:stop])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.ranges, server.stop_at, server.asked = CONTENT, True, None, []
        server.address = f"http://127.0.0.1:{server.server_port}/data.zip"
        thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def zipped(names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, f"content of {name}")
    return file.getvalue()


def test_a_file_is_downloaded_and_checked(server, tmp_path):
    checksum = hashlib.sha256(CONTENT).hexdigest()
    path = download(server.address, tmp_path / "data.zip", sha256=checksum)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["data.zip"]


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_cut_off_is_continued(server, tmp_path, ranges):
    server.ranges, server.stop_at = ranges, 100_000
    with pytest.raises(DataError) as caught:
        download(server.address, tmp_path / "data.zip")
    assert "continue" in caught.value.hint
    assert not (tmp_path / "data.zip").exists()
    assert download(server.address, tmp_path / "data.zip").read_bytes() == CONTENT
    assert server.asked[1] == "bytes=100000-"


def test_killed_before_the_renaming(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT)
    assert download(server.address, tmp_path / "data.zip").read_bytes() == CONTENT


def test_another_file_than_expected_is_removed(server, tmp_path):
    with pytest.raises(DataError, match="checksum"):
        download(server.address, tmp_path / "data.zip", sha256="0" * 64)
    assert not list(tmp_path.iterdir())


def test_not_reachable(server, tmp_path):
    with pytest.raises(DataError, match="404"):
        download(server.address.replace("data.zip", "missing"), tmp_path / "data.zip")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9"):
        download("http://127.0.0.1:9/x", tmp_path / "data.zip")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "..\\evil"])
def test_no_file_leaves_its_folder(tmp_path, name):
    archive = tmp_path / "bad.zip"
    archive.write_bytes(zipped([name]))
    with pytest.raises(DataError, match="outside of its folder"):
        unpack(archive, tmp_path / "in")
    assert {path.name for path in tmp_path.rglob("*")} <= {"bad.zip", "in"}


def test_links_damage_and_bombs_are_refused(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    archive = tmp_path / "link.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="outside"):
        unpack(archive, tmp_path / "in")
    archive.write_bytes(zipped(["a"])[:-9])
    with pytest.raises(DataError, match="damaged"):
        unpack(archive, tmp_path / "in")
    archive.write_bytes(zipped(["a"]))
    monkeypatch.setattr("ushape.fetching.unpack.MOST_BYTES", 3)
    with pytest.raises(DataError, match="when unpacked"):
        unpack(archive, tmp_path / "in")


class Kaggle:
    """A stand-in for the client: a cached data set with its second copy, a competition."""

    def __init__(self, folder: Path):
        self.folder = folder

    def dataset_download(self, handle):
        assert handle == "mateuszbuda/lgg-mri-segmentation"
        for copy in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
            (self.folder / copy / "p").mkdir(parents=True)
            (self.folder / copy / "p" / "p_1.tif").write_text("x")
        return str(self.folder)

    def competition_download(self, handle, path):
        self.folder.mkdir(exist_ok=True)
        target = self.folder / path
        target.write_bytes(zipped([f"{path.removesuffix('.zip')}/car_01.jpg"]))
        return str(target)


def test_lgg_without_its_second_copy_and_only_once(tmp_path):
    said = []
    found = fetch("lgg", tmp_path, client=Kaggle(tmp_path / "cache"), say=said.append)
    files = [path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()]
    assert files == ["kaggle_3m/p/p_1.tif"]
    assert fetch("lgg", tmp_path, client=None, say=said.append) == found
    assert "already" in said[-1]
    assert not list(tmp_path.glob(".*"))


def test_carvana_from_the_competition(tmp_path):
    found = fetch("carvana", tmp_path, client=Kaggle(tmp_path / "cache"), say=str)
    assert sorted(path.name for path in found.iterdir()) == ["train", "train_masks"]


@pytest.mark.parametrize("problem", ["403 Forbidden: accept the rules", "no credentials"])
def test_kaggle_s_refusal_says_what_to_do(tmp_path, problem):
    class Refusing:
        def competition_download(self, handle, path):
            raise RuntimeError(problem)

    with pytest.raises(ConfigError, match=problem) as caught:
        fetch("carvana", tmp_path, client=Refusing(), say=str)
    for advice in ("carvana-image-masking-challenge", "rules", "kaggle.json", "--from"):
        assert advice in caught.value.hint


def test_by_address_or_by_hand(server, tmp_path):
    server.content = zipped(["stuff/train/images/0.png", "stuff/train/labels/0.png"])
    found = fetch("isbi2012", tmp_path / "a", address=server.address, say=str)
    assert (found / "train" / "labels" / "0.png").exists()
    by_hand = tmp_path / "mine.zip"
    by_hand.write_bytes(server.content)
    assert fetch("isbi2012", tmp_path / "b", address=str(by_hand), say=str).exists()
    assert by_hand.exists()
    with pytest.raises(ConfigError, match="no lasting official address"):
        fetch("isbi2012", tmp_path / "c", say=str)
    by_hand.write_bytes(zipped(["something/else.txt"]))
    with pytest.raises(DataError, match="No folder train"):
        fetch("isbi2012", tmp_path / "d", address=str(by_hand), say=str)
    assert not (tmp_path / "d" / "isbi2012").exists()


def test_unknown_names_and_other_folders(tmp_path):
    with pytest.raises(ConfigError, match="No data set lgh") as caught:
        fetch("lgh", tmp_path, say=str)
    assert "lgg" in caught.value.hint
    (tmp_path / "lgg").mkdir()
    with pytest.raises(DataError, match="has no kaggle_3m"):
        fetch("lgg", tmp_path, say=str)
