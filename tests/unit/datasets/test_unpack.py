import io
import tarfile
import zipfile

import pytest

from codes import raises_code
from ushape.datasets.unpack import unpack
from ushape.errors import DataError


def zipped(names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, f"content of {name}")
    return file.getvalue()


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


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
