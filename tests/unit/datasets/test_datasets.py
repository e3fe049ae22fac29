import hashlib
import io
import logging
import sys
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
from ushape.errors import ConfigError, DataError, RunError

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
    assert not (tmp_path / "data").exists()
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
    assert not (tmp_path / "data").exists()


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
    assert not (tmp_path / "c").exists()
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
    with raises_code(RunError, "output_not_writable"):
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
