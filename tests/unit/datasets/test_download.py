import hashlib

import pytest

from codes import raises_code
from ushape.datasets.download import download
from ushape.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 1000


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


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
    assert any("interrupted after 100000" in line for line in said)


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
