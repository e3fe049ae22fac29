import asyncio
import gzip
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import hostile
from ushape.io.lock import LOCK_FILE, locked
from ushape.serving.limits import Limits
from ushape.serving.refusals import Refusal
from ushape.serving.uploads import (
    PREFIX,
    check_header,
    plain_name,
    private_folder,
    receive_images,
    remove_abandoned,
    suffix_of_content,
)


def receive(body, folder, size=10):
    async def chunks():
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return asyncio.run(receive_images(chunks(), hostile.FORM_TYPE, folder))


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_files_are_written_however_the_body_is_cut(tmp_path, size):
    first, second = hostile.png(hostile.NOISE), hostile.tiff(hostile.NOISE)
    body = hostile.form(hostile.part(first, "a/b c.png"), hostile.part(second, "../d.jpg"))
    found = receive(body, tmp_path, size)
    assert [one.path.read_bytes() for one in found] == [first, second]
    assert [one.path.relative_to(tmp_path) for one in found] == [
        Path("0/image.png"),
        Path("1/image.tif"),
    ]
    assert [one.name for one in found] == ["b_c", "d"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.png", "a"),
        ("a.nii.gz", "a"),
        ("../../etc/passwd", "passwd"),
        (r"C:\x\y.tif", "y"),
        ("", "image"),
        ("...", "image"),
        ("\u202e\0", "image"),
        ("a" * 500, "a" * 60),
    ],
)
def test_names_have_no_folders_and_no_special_characters(name, shown):
    assert plain_name(name) == shown


@pytest.mark.parametrize(
    ("content", "name", "suffix"),
    [
        (hostile.png(hostile.NOISE), "x", ".png"),
        (hostile.saved(hostile.NOISE, "JPEG"), "x.png", ".jpg"),
        (hostile.saved(hostile.NOISE, "GIF"), "x", ".gif"),
        (hostile.saved(hostile.NOISE, "BMP"), "x", ".bmp"),
        (hostile.saved(hostile.NOISE, "WEBP"), "x", ".webp"),
        (hostile.saved(hostile.NOISE, "PPM"), "x", ".pnm"),
        (hostile.tiff(hostile.NOISE), "x", ".tif"),
        (hostile.nifti(4, 4), "x", ".nii"),
        (gzip.compress(b"x", mtime=0), "x.NII.GZ", ".nii.gz"),
        (gzip.compress(b"x", mtime=0), "x.png", ""),
        (hostile.npz_bomb(), "x.npz", ".npz"),
        (hostile.npz_bomb(), "x.docx", ""),
        (hostile.dicom(1, 1), "x", ".dcm"),
        (b"NRRD0004\n", "x", ".nrrd"),
        (b"ObjectType = Image\n", "x.mhd", ".mha"),
        (b"%!PS", "x.png", ""),
        (b"", "x.png", ""),
    ],
)
def test_content_decides_the_format(content, name, suffix):
    assert suffix_of_content(content[:4096], name) == suffix


def test_header_is_checked_before_pixels_are_unpacked(tmp_path):
    limits = Limits(megapixels=0.08)
    path = tmp_path / "a.png"
    path.write_bytes(hostile.png(np.zeros((100, 100), np.uint8)))
    assert check_header(path, limits) == 10_000
    path.write_bytes(hostile.png(np.zeros((101, 100), np.uint8)))
    with pytest.raises(Refusal) as refusal:
        check_header(path, limits)
    assert refusal.value.status == 413
    tiff = tmp_path / "a.tif"
    tiff.write_bytes(hostile.tiff(np.zeros((200, 400), np.uint8)))
    assert check_header(tiff, limits) == 80_000


def test_folder_is_private_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with private_folder() as folder:
        assert folder.stat().st_mode & 0o77 == 0
        (folder / "x").write_text("x")
        remove_abandoned(tmp_path)  # Another server starts.
        assert (folder / "x").exists()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_servers_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, other = tmp_path / f"{PREFIX}old", tmp_path / "other"
    target = tmp_path / "target"
    for folder in (old, other, target):
        folder.mkdir(0o700)
        (folder / LOCK_FILE).write_text("{}")
        (folder / "image.png").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    with private_folder():
        assert not old.exists()
    assert (other / "image.png").exists()
    assert (target / "image.png").exists()
    with locked(other):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="the folder for temporary files is private")
def test_folders_of_other_users_are_left(tmp_path, monkeypatch):
    open_to_all, own = tmp_path / f"{PREFIX}open", tmp_path / f"{PREFIX}own"
    victim = tmp_path / "thesis.txt"
    victim.write_text("text")
    for folder, mode in ((open_to_all, 0o755), (own, 0o700)):
        folder.mkdir(mode)
        (folder / LOCK_FILE).symlink_to(victim)
    remove_abandoned(tmp_path)
    assert victim.read_text() == "text"
    assert open_to_all.exists()
    (own / LOCK_FILE).unlink()
    (own / LOCK_FILE).write_text("{}")
    monkeypatch.setattr(os, "geteuid", lambda: own.stat().st_uid + 1)
    remove_abandoned(tmp_path)
    assert own.exists()
