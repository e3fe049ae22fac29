import json
from pathlib import Path

import numpy as np
import pytest

from ome_zarrs import add_labels, save_image
from ushape.inference.output.manifest import MANIFEST_FILE, Manifest
from ushape.types import Case

BELOW = Path("sub/a.png")


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"image")
    return Case(id="a", image=path)


@pytest.fixture
def output(tmp_path):
    """Output folder with the mask of the image."""
    folder = tmp_path / "masks"
    (folder / "sub").mkdir(parents=True)
    (folder / BELOW).write_bytes(b"mask")
    return folder


def finish(folder, case, made_by):
    manifest = Manifest(folder, made_by)
    manifest.begin(BELOW, case)
    manifest.finish(BELOW, case, [folder / BELOW], [{"class": "cell"}])


def test_manifest_of_an_equal_call_knows_finished_images(case, output):
    finish(output, case, {"weights": 1})
    manifest = Manifest(output, {"weights": 1})
    assert manifest.is_done(BELOW, case)
    assert manifest.finished == [BELOW]
    assert manifest.rows_of([BELOW]) == [{"image": "sub/a.png", "class": "cell"}]


def test_manifest_of_another_call_ignores_all_lines(case, output):
    finish(output, case, {"weights": 1})
    manifest = Manifest(output, {"weights": 2})
    assert not manifest.is_ours
    assert not manifest.is_done(BELOW, case)
    assert not manifest.may_replace(BELOW, case)


def test_manifest_detects_changed_images_and_edited_outputs(case, output):
    finish(output, case, {})
    case.image.write_bytes(b"another image")
    manifest = Manifest(output, {})
    assert not manifest.is_done(BELOW, case)
    assert manifest.may_replace(BELOW, case)
    (output / BELOW).write_bytes(b"edited")
    assert not manifest.may_replace(BELOW, case)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_manifest_does_not_count_label_images_and_their_listing(version, output, tmp_path):
    path = tmp_path / "x.zarr"
    save_image(path, (20, 16), "yx", version, is_consolidated=True)
    case = Case(id="a", image=path)
    finish(output, case, {})
    add_labels(path, np.ones((20, 16), np.uint8))
    assert Manifest(output, {}).is_done(BELOW, case)
    file = path / ("zarr.json" if version == "0.5" else ".zattrs")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attributes": {"other": 1}}))
    assert not Manifest(output, {}).is_done(BELOW, case)


def test_manifest_may_replace_outputs_of_an_interrupted_call(case, output):
    Manifest(output, {}).begin(BELOW, case)
    manifest = Manifest(output, {})
    assert manifest.may_replace(BELOW, case)
    assert not manifest.is_done(BELOW, case)
    manifest.forget()
    assert not manifest.may_replace(BELOW, case)


def test_manifest_skips_damaged_lines(case, output):
    finish(output, case, {})
    path = output / MANIFEST_FILE
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"{]\n[1]\n" + b"".join(others) + b'{"image": "cut off')
    assert Manifest(output, {}).finished == [BELOW]
    assert json.loads(first) == {"made_by": {}}


def test_manifest_detects_a_changed_image_of_the_group(case, output, tmp_path):
    other = Case(id="b", image=tmp_path / "b.png")
    other.image.write_bytes(b"neighbor")
    alone = Case(id="c", image=tmp_path / "c.png", group="another")
    alone.image.write_bytes(b"image")
    together = [case, other, alone]
    manifest = Manifest(output, {}, together)
    for one in (case, alone):
        manifest.begin(Path(f"{one.id}.png"), one)
        manifest.finish(Path(f"{one.id}.png"), one, [], [])
    other.image.write_bytes(b"a changed neighbor")
    manifest = Manifest(output, {}, together)
    assert not manifest.is_done(Path("a.png"), case)
    assert manifest.may_replace(Path("a.png"), case)
    assert manifest.is_done(Path("c.png"), alone)
    manifest.finish(Path("a.png"), case, [], [])
    assert Manifest(output, {}, together[::-1]).is_done(Path("a.png"), case)
    assert not Manifest(output, {}, [case, alone]).is_done(Path("a.png"), case)
