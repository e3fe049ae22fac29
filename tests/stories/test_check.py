"""`ushape check` as a user runs it: the table, JSON, the page, and the corrected copy."""

import csv
import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def spoiled(ushape, tmp_path_factory):
    """Cells of which some have gone wrong."""
    folder = tmp_path_factory.mktemp("check") / "cells"
    assert ushape("example", folder, "--count", 24).code == 0
    images, masks = (sorted((folder / part).iterdir()) for part in ("images", "masks"))
    images[5].write_bytes(images[5].read_bytes()[:500])
    masks[6].write_bytes(b"")
    Image.open(masks[4]).resize((700, 700), 2).resize((256, 256), 2).save(masks[4])
    for path in (images[7], masks[7]):
        Image.fromarray(np.asarray(Image.open(path))[:200]).save(path)
    Image.fromarray(np.asarray(Image.open(masks[7])).T).save(masks[7])
    photograph = Image.open(images[12])
    exif = photograph.getexif()
    exif[274] = 6
    photograph.save(images[12].with_suffix(".jpg"), exif=exif, quality=95)
    images[12].unlink()
    shutil.copy(images[0], images[10])
    return folder


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(p).encode() + p.read_bytes() for p in files)).digest()


def test_check_reports_all_problems_and_writes_a_corrected_copy(ushape, spoiled, tmp_path):
    before = digest(spoiled)
    ended = ushape("check", spoiled, "-o", "out", "--fix", "fixed", cwd=tmp_path)
    assert ended.code == 1
    for name in ("unreadable", "zero_bytes", "soft_edges", "transposed", "exif"):
        assert name in ended.output
    assert digest(spoiled) == before

    page = (tmp_path / "out" / "check.html").read_text()
    assert "data:image/webp;base64," in page
    assert not re.search(r"(src|href)=.?http", page)

    with (tmp_path / "fixed" / "changes.csv").open(newline="") as file:
        changed = {row["case"] for row in csv.DictReader(file)}
    assert len(changed) == 5  # Masks of photographs that EXIF turns are read right, not changed.
    again = ushape("check", "fixed", "--json", cwd=tmp_path)
    assert again.code == 0, again.output
    values = json.loads(again.output)
    assert values["pairs"] == 21
    assert not [f for f in values["findings"] if f["severity"] == "error"]
    mask = np.asarray(Image.open(next((tmp_path / "fixed" / "masks").glob("dish02_02*"))))
    assert set(np.unique(mask)) == {0, 255}
    assert (tmp_path / "checks" / "fixed" / "check.html").exists()

    ended = ushape("check", spoiled, "-o", "out", "--fix", "fixed", cwd=tmp_path)
    assert (ended.code, ended.error_code) == (2, "output_exists")
    ended = ushape("check", spoiled, "-o", "out", "--fix", spoiled / "copy", cwd=tmp_path)
    assert (ended.code, ended.error_code) == (2, "output_in_data")


def test_check_refuses_bad_input(ushape, tmp_path):
    for arguments in ([tmp_path / "none"], [tmp_path], [tmp_path, "--set", "labels.color=1"]):
        ended = ushape("check", *arguments, cwd=tmp_path)
        assert ended.code == 2
        assert "Hint" in ended.error
        assert "Traceback" not in ended.error
