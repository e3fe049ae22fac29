"""Against a server of this machine and a stand-in for Kaggle's client: no network."""

import functools
import hashlib
import http.server
import io
import logging
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from codes import raises_code
from ushape import io as images
from ushape.api import fetch as fetch_module
from ushape.console import LOGGER
from ushape.data.discovery import discover
from ushape.datasets import SOURCES
from ushape.datasets.download import download
from ushape.datasets.unpack import unpack
from ushape.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 1000
LGG = ["p/p_1.tif", "p/p_1_mask.tif", "q/q_1.tif", "q/q_1_mask.tif"]
ISBI = ["train/images/0.png", "train/labels/0.png"]


def fetch(name, to, *, say=str, **options):
    """Fetch quietly; `say` receives each message from the logger."""
    handler = logging.Handler()
    handler.emit = lambda record: say(record.getMessage())
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        return fetch_module.fetch(name, to=to, quiet=True, **options)
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; `server.stops` are the lengths after which it hangs up, in turn."""

    def do_GET(self):
        server, start = self.server, 0
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if self.path == "/missing":
            return self.send_error(404)
        is_same = self.headers.get("If-Range", server.tag) == server.tag
        if server.ranges and wanted and is_same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.tag)
        if server.chunks:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        stop = server.stops.pop(0) if server.stops else None
        body = server.content[start:stop]
        if server.chunks:
            body = b"%x\r\n%s\r\n" % (len(body), body) + (b"0\r\n\r\n" if stop is None else b"")
        self.wfile.write(body)
        return None

    def log_message(self, *arguments):
        pass


class Http11(Handler):
    """Chunks are of HTTP 1.1 only."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        super().do_GET()
        self.close_connection = True


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Http11) as server:
        server.content, server.ranges, server.tag = CONTENT, True, '"first"'
        server.stops, server.asked, server.chunks = [], [], False
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


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def cases(monkeypatch, name, count):
    """The same source, as if its data set had this many cases."""
    from dataclasses import replace

    monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], cases=count))


# ---- download


def test_download_checks_the_file(server, tmp_path):
    checksum = hashlib.sha256(CONTENT).hexdigest().upper()
    target = tmp_path / "new" / "data.zip"
    said = []
    size = len(CONTENT)
    found = download(server.address, target, size_bytes=size, sha256=checksum, say=said.append)
    assert found.read_bytes() == CONTENT
    assert files_in(tmp_path) == ["new/data.zip"]
    assert server.address in said[0]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("chunks", [True, False])
def test_download_continues_after_one_interruption(server, tmp_path, ranges, chunks):
    server.ranges, server.chunks, server.stops = ranges, chunks, [100_000]
    said = []
    found = download(server.address, tmp_path / "data.zip", say=said.append)
    assert found.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]
    assert any("cut off after 100000" in line for line in said)


def test_download_is_continued_by_the_next_call(server, tmp_path):
    server.stops = [10, 20, 30]
    with raises_code(DataError, "download_incomplete") as caught:
        download(server.address, tmp_path / "data.zip", say=str)
    assert "to continue" in caught.value.hint
    assert not (tmp_path / "data.zip").exists()
    assert download(server.address, tmp_path / "data.zip", say=str).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=30-"


def test_download_does_not_mix_versions_of_a_file(server, tmp_path):
    server.stops = [10, 20, 30]
    with pytest.raises(DataError):
        download(server.address, tmp_path / "data.zip", say=str)
    server.content, server.tag = CONTENT[::-1], '"second"'
    assert download(server.address, tmp_path / "data.zip", say=str).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("surplus", [b"", b"of a longer file"])
def test_download_that_was_killed_before_renaming_is_finished(server, tmp_path, surplus):
    (tmp_path / "data.zip.partial").write_bytes(CONTENT + surplus)
    assert download(server.address, tmp_path / "data.zip", say=str).read_bytes() == CONTENT
    assert len(server.asked) == (2 if surplus else 1)
    assert files_in(tmp_path) == ["data.zip"]


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size_bytes": 5}])
def test_download_removes_an_unexpected_file(server, tmp_path, wrong):
    with raises_code(DataError, "download_mismatch") as caught:
        download(server.address, tmp_path / "data.zip", **wrong, say=str)
    assert server.address in caught.value.message
    assert not list(tmp_path.iterdir())


def test_download_reports_unreachable_addresses(server, tmp_path):
    with raises_code(DataError, "download_failed"):
        download(server.address.replace("data.zip", "missing"), tmp_path / "x", say=str)
    with raises_code(DataError, "download_failed"):
        download("http://127.0.0.1:9/x", tmp_path / "x", say=str)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://host/x"])
def test_download_refuses_other_addresses_than_http(tmp_path, address):
    with raises_code(ConfigError, "invalid_address"):
        download(address, tmp_path / "x", say=str)


# ---- unpack


def tarred(*entries):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size) if entry.isreg() else None)
    return file.getvalue()


def entry(name, kind=tarfile.REGTYPE, size=0, link=""):
    found = tarfile.TarInfo(name)
    found.type, found.size, found.linkname = kind, size, link
    return found


EVIL = ["../evil", "a/../../evil", "/evil", "C:\\evil", "C:evil", "..\\evil", "\\\\host\\evil"]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_unpack_refuses_paths_outside_the_folder(tmp_path, name, form):
    archive = tmp_path / "bad"
    archive.write_bytes(zipped(["good", name]) if form == "zip" else tarred(entry(name, size=1)))
    with raises_code(DataError, "archive_unsafe"):
        unpack(archive, tmp_path / "in", most_bytes=1000)
    assert not (tmp_path / "in").exists()


def test_unpack_refuses_links_and_devices(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    archive = tmp_path / "link.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(link, "/etc/passwd")
    with raises_code(DataError, "archive_unsafe"):
        unpack(archive, tmp_path / "in", most_bytes=1000)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        archive.write_bytes(tarred(entry("link", kind, link="/etc/passwd")))
        with raises_code(DataError, "archive_unsafe"):
            unpack(archive, tmp_path / "in", most_bytes=1000)


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_unpack_refuses_bombs_before_anything_is_written(tmp_path, form):
    archive = tmp_path / "bomb"
    archive.write_bytes(zipped("ab") if form == "zip" else tarred(entry("a", size=30)))
    with raises_code(DataError, "archive_too_large"):
        unpack(archive, tmp_path / "in", most_bytes=20)
    assert not (tmp_path / "in").exists()
    unpack(archive, tmp_path / "in", most_bytes=30)


def test_unpack_checks_free_space_first(tmp_path, monkeypatch):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(["a"]))
    usage = type("Usage", (), {"free": 3})
    monkeypatch.setattr("ushape.datasets.unpack.shutil.disk_usage", lambda folder: usage)
    with raises_code(DataError, "disk_full"):
        unpack(archive, tmp_path / "in", most_bytes=1000)


def test_unpack_refuses_names_that_collide(tmp_path):
    archive = tmp_path / "twice.zip"
    archive.write_bytes(zipped(["a/X.tif", "a/x.tif"]))
    with raises_code(DataError, "archive_unsafe"):
        unpack(archive, tmp_path / "in", most_bytes=1000)
    archive.write_bytes(zipped(["a", "a/b"]))
    with raises_code(DataError, "archive_unsafe"):
        unpack(archive, tmp_path / "in", most_bytes=1000)


def test_unpack_distinguishes_damage_from_web_pages(tmp_path):
    archive = tmp_path / "data.zip"
    whole, packed = zipped(["a"]), tarred(entry("a", size=5000))
    for damaged in (whole[:-9], whole.replace(b"content", b"c0ntent"), packed[:-20], b"", b"abc"):
        archive.write_bytes(damaged)
        with raises_code(DataError, "archive_damaged"):
            unpack(archive, tmp_path / "in", most_bytes=10_000)
    archive.write_text("\n<!DOCTYPE html><title>Log in</title>")
    with raises_code(DataError, "archive_damaged"):
        unpack(archive, tmp_path / "in", most_bytes=1000)


def test_unpack_skips_files_of_macos(tmp_path):
    archive = tmp_path / "mac.zip"
    archive.write_bytes(zipped(["a/x.tif", "__MACOSX/a/._x.tif", "a/.DS_Store", "b\\y.tif"]))
    unpack(archive, tmp_path / "in", most_bytes=1000)
    assert files_in(tmp_path / "in") == ["a/x.tif", "b/y.tif"]


# ---- fetch


class Kaggle:
    """A stand-in for the client: files in its cache."""

    def __init__(self, cache: Path, names=()):
        self.cache, self.names, self.calls = cache, names, 0

    def dataset_download(self, handle):
        assert handle == "mateuszbuda/lgg-mri-segmentation"
        self.calls += 1
        for name in self.names:
            (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
            (self.cache / name).write_text(name)
        return str(self.cache)

    def competition_download(self, handle, path):
        assert handle == "carvana-image-masking-challenge"
        self.calls += 1
        self.cache.mkdir(exist_ok=True)
        mask = {"train.zip": "train/a_01.jpg", "train_masks.zip": "train_masks/a_01_mask.gif"}
        (self.cache / path).write_bytes(zipped([mask[path]]))
        return str(self.cache / path)


def lgg(tmp_path, first=LGG, second=LGG):
    names = [f"kaggle_3m/{name}" for name in first]
    names += [f"lgg-mri-segmentation/kaggle_3m/{name}" for name in second]
    return Kaggle(tmp_path / "cache", names)


@pytest.mark.parametrize("rest", [[], ["data.csv"]])
def test_fetch_lgg_removes_the_second_copy_and_downloads_once(tmp_path, monkeypatch, rest):
    cases(monkeypatch, "lgg", 2)
    said, client = [], lgg(tmp_path, LGG, LGG + rest)
    found = fetch("lgg", tmp_path / "data", client=client, say=said.append)
    assert found == tmp_path / "data" / "lgg"
    assert files_in(found) == sorted(f"kaggle_3m/{name}" for name in LGG + rest)
    assert "CC BY-NC-SA" in said[0]
    assert "2 cases" in said[-1]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["lgg"]

    assert fetch("lgg", tmp_path / "data", client=client, say=said.append) == found
    assert "already" in said[-1]
    assert client.calls == 1


def test_arrange_refuses_different_copies(tmp_path):
    client = lgg(tmp_path, [*LGG, "r/r_1.tif"], [*LGG, "s/s_1.tif"])
    with raises_code(DataError, "unexpected_dataset"):
        fetch("lgg", tmp_path / "data", client=client, say=str)
    assert not list((tmp_path / "data").iterdir())
    assert len(files_in(client.cache)) == 10


def test_fetch_carvana_from_the_competition(tmp_path, monkeypatch):
    cases(monkeypatch, "carvana", 1)
    found = fetch("carvana", tmp_path, client=Kaggle(tmp_path / "cache"), say=str)
    assert files_in(found) == ["train/a_01.jpg", "train_masks/a_01_mask.gif"]
    assert len(discover(found).cases) == 1


def test_fetch_refuses_too_few_cases(tmp_path):
    with raises_code(DataError, "unexpected_dataset"):
        fetch("lgg", tmp_path / "data", client=lgg(tmp_path), say=str)
    with raises_code(DataError, "unexpected_dataset"):
        fetch("lgg", tmp_path / "data", client=lgg(tmp_path / "b", LGG[:3], []), say=str)
    assert not list((tmp_path / "data").iterdir())


class HTTPError(Exception):
    """As of kagglehub: the status is in the response."""

    def __init__(self, message, status):
        super().__init__(message)
        self.response = type("Response", (), {"status_code": status})


class UnauthenticatedError(Exception):
    """As of kagglehub, by its name."""


@pytest.mark.parametrize(
    ("error", "kind", "code", "advice"),
    [
        (UnauthenticatedError("User is not"), ConfigError, "kaggle_credentials", "kaggle.json"),
        (HTTPError("no", 401), ConfigError, "kaggle_credentials", "KAGGLE_KEY"),
        (HTTPError("no", 403), ConfigError, "kaggle_consent", "challenge/rules"),
        (RuntimeError("403 Client Error.\n\nrules"), ConfigError, "kaggle_consent", "/rules"),
        (HTTPError("no", 404), DataError, "download_failed", "kaggle.com/c/carvana"),
        (ConnectionError("no route"), DataError, "download_failed", "connection"),
        (OSError(28, "No space left"), DataError, "download_failed", "--from"),
    ],
)
def test_fetch_explains_errors_of_kaggle(tmp_path, error, kind, code, advice):
    class Refusing:
        def competition_download(self, handle, path):
            raise error

    with raises_code(kind, code) as caught:
        fetch("carvana", tmp_path, client=Refusing(), say=str)
    assert advice in caught.value.hint
    assert "--from" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_fetch_requires_the_kaggle_client(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with raises_code(DataError, "missing_package") as caught:
        fetch("lgg", tmp_path, say=str)
    assert "pip install" in caught.value.hint


def test_fetch_isbi2012_converts_the_official_archive(server, tmp_path, monkeypatch):
    # Two sections of 4 x 5 pixels in place of 30 of 512 x 512.
    volume = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    labels = np.where(volume % 3 == 0, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in {"train-volume": volume, "train-labels": labels}.items():
            tiff = io.BytesIO()
            tifffile.imwrite(tiff, array, photometric="minisblack")
            archive.writestr(f"ISBI-2012-challenge/{name}.tif", tiff.getvalue())
        archive.writestr("readme.txt", "terms")
    server.content = file.getvalue()
    source = SOURCES["isbi2012"]
    monkeypatch.setitem(
        SOURCES, "isbi2012", type(source)(**{**vars(source), "address": server.address, "cases": 2})
    )
    found = fetch("isbi2012", tmp_path, say=str)
    names = [f"train/{kind}/{number:02d}.png" for kind in ("images", "labels") for number in (0, 1)]
    assert files_in(found) == ["readme.txt", *names]
    assert np.array_equal(images.read(found / "train" / "images" / "01.png").array[0], volume[1])
    assert np.array_equal(images.read_mask(found / "train/labels/01.png").codes, labels[1])
    assert [case.id for case in discover(found / "train").cases] == ["00", "01"]


def test_fetch_from_an_address_or_a_local_archive(server, tmp_path):
    server.content = zipped(f"stuff/{name}" for name in ISBI)
    checksum = hashlib.sha256(server.content).hexdigest()
    said = []
    found = fetch(
        "isbi2012", tmp_path / "a", address=server.address, sha256=checksum, say=said.append
    )
    assert files_in(found) == ISBI
    assert any("whole dataset has 30" in line for line in said)

    by_hand = tmp_path / "mine.zip"
    by_hand.write_bytes(server.content)
    (tmp_path / "b" / "isbi2012").mkdir(parents=True)  # An empty folder is in nobody's way.
    found = fetch("isbi2012", tmp_path / "b", address=str(by_hand), say=str)
    assert files_in(found) == ISBI
    with raises_code(DataError, "download_mismatch"):
        fetch("isbi2012", tmp_path / "c", address=str(by_hand), sha256="0" * 64, say=str)
    by_hand.write_bytes(zipped(["something/else.txt"]))
    with raises_code(DataError, "unexpected_dataset"):
        fetch("isbi2012", tmp_path / "c", address=str(by_hand), say=str)
    assert by_hand.exists()
    assert not list((tmp_path / "c").iterdir())
    for wrong in (tmp_path / "nowhere.zip", tmp_path):
        with raises_code(DataError, "file_not_found"):
            fetch("isbi2012", tmp_path / "c", address=str(wrong), say=str)
    with raises_code(ConfigError, "missing_argument"):
        fetch("isbi2012", tmp_path / "c", sha256="0" * 64, say=str)


@pytest.mark.parametrize("stopped", ["arrange", "count_cases"])
def test_fetch_continues_after_the_download(server, tmp_path, monkeypatch, stopped):
    server.content = zipped(ISBI)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"ushape.api.fetch.{stopped}", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch("isbi2012", tmp_path, address=server.address, say=str)
    assert [path.name for path in tmp_path.iterdir()] == [".isbi2012.partial"]

    found = fetch("isbi2012", tmp_path, address=server.address, say=str)
    assert files_in(found) == ISBI
    assert len(server.asked) == 1  # What had arrived was taken.
    assert [path.name for path in tmp_path.iterdir()] == ["isbi2012"]


def test_fetch_continues_after_a_kill_while_unpacking(server, tmp_path):
    server.content = zipped(ISBI)
    rubbish = tmp_path / ".isbi2012.partial" / "unpacked" / "train" / "images" / "9.png"
    rubbish.parent.mkdir(parents=True)
    rubbish.touch()
    assert files_in(fetch("isbi2012", tmp_path, address=server.address, say=str)) == ISBI


def test_fetch_discards_an_invalid_archive(server, tmp_path):
    server.content = zipped(ISBI)[:-9]
    with raises_code(DataError, "archive_damaged"):
        fetch("isbi2012", tmp_path, address=server.address, say=str)
    assert not list(tmp_path.iterdir())
    server.content = zipped(ISBI)
    assert files_in(fetch("isbi2012", tmp_path, address=server.address, say=str)) == ISBI


def test_fetch_does_not_continue_a_download_from_another_address(server, tmp_path):
    server.content, server.stops = b"z" * 500, [10, 20, 30]
    with raises_code(DataError, "download_incomplete"):
        fetch("isbi2012", tmp_path, address=server.address, say=str)
    server.content = zipped(ISBI)
    other = server.address.replace("data.zip", "other/data.zip")
    assert files_in(fetch("isbi2012", tmp_path, address=other, say=str)) == ISBI
    assert server.asked[-1] is None


def test_fetch_refuses_an_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with raises_code(DataError, "write_failed"):
        fetch("lgg", tmp_path / "file", client=Kaggle(tmp_path / "cache"), say=str)


def test_fetch_refuses_unknown_names_and_other_folders(tmp_path):
    with raises_code(ConfigError, "unknown_dataset") as caught:
        fetch("LGH", tmp_path, say=str)
    assert caught.value.hint == "Did you mean lgg? Available: lgg, carvana, isbi2012."
    (tmp_path / "lgg" / "mine").mkdir(parents=True)
    with raises_code(DataError, "unexpected_dataset"):
        fetch("lgg", tmp_path, say=str)
    assert (tmp_path / "lgg" / "mine").exists()


def test_sources_state_their_terms():
    for source in SOURCES.values():
        assert sum(map(bool, (source.dataset, source.competition, source.address))) == 1
        assert source.page.startswith("https://")
        assert bool(source.archives) == (source.dataset is None)
        assert "License" in source.terms
