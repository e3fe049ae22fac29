"""Mistakes of the user end with a message, a hint and exit code 2, and nothing is lost."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from codes import edit_sealed_json


@pytest.fixture
def refused(ushape, tmp_path):
    """Run a command that must be refused; return the message, after a check of the code."""

    def run(*arguments, code=None):
        ended = ushape(*arguments)
        assert ended.code == 2, ended.output + ended.error
        assert "Traceback" not in ended.error
        assert ended.error.startswith("Error: ")
        assert "\nHint: " in ended.error
        assert code in (None, ended.error_code)
        return ended.error

    return run


@pytest.fixture
def own_cells(cells, tmp_path):
    """A copy of the cells that a test may change."""
    return shutil.copytree(cells, tmp_path / "cells")


def first(folder):
    return min(folder.iterdir())


def test_train_refuses_data_without_pairs(refused, own_cells, tmp_path):
    for mask in (own_cells / "masks").iterdir():
        mask.rename(mask.with_name(f"zz{mask.stem[::-1]}.png"))
    said = refused("train", own_cells, "-o", tmp_path / "run")
    assert "images" in said
    assert "masks" in said


def test_train_refuses_a_missing_folder(refused, tmp_path):
    said = refused("train", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert "nowhere" in said


def test_train_refuses_a_single_image(refused, own_cells, tmp_path):
    for part in ("images", "masks"):
        for path in sorted((own_cells / part).iterdir())[1:]:
            path.unlink()
    refused("train", own_cells, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_train_reports_a_transposed_mask(refused, own_cells, tmp_path):
    image = first(own_cells / "images")
    mask = own_cells / "masks" / image.name
    Image.fromarray(np.zeros((64, 48), np.uint8)).save(image)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(mask)
    said = refused("train", own_cells, "-o", tmp_path / "run")
    assert image.stem in said
    assert "64 × 48" in said
    assert "48 × 64" in said
    assert "exchanged" in said


def test_train_lists_every_unreadable_file(refused, own_cells, tmp_path):
    broken = sorted((own_cells / "images").iterdir())[:3]
    broken[0].write_bytes(broken[0].read_bytes()[:300])
    broken[1].write_bytes(b"")
    broken[2].write_bytes(b"this is no image")
    said = refused("train", own_cells, "-o", tmp_path / "run")
    assert all(path.name in said for path in broken)


def test_train_refuses_masks_with_many_values(refused, own_cells, tmp_path):
    rng = np.random.default_rng(0)
    for mask in (own_cells / "masks").iterdir():
        Image.fromarray(rng.integers(256, size=(64, 64), dtype=np.uint8)).save(mask)
    said = refused("train", own_cells, "-o", tmp_path / "run")
    assert "256" in said
    assert "labels.threshold" in said


def test_predict_refuses_a_folder_that_is_not_a_run(refused, cells, tmp_path):
    said = refused("predict", cells, cells / "images", "-o", tmp_path / "out")
    assert "plan.json" in said


def test_predict_writes_the_other_masks_if_one_image_has_other_channels(
    refused, trained, own_cells, tmp_path
):
    image = first(own_cells / "images")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
    out = tmp_path / "out"
    said = refused("predict", trained, own_cells / "images", "-o", out)
    assert image.name in said
    assert "3 channels" in said
    assert len(list(out.glob("*.png"))) == 7


def test_outputs_are_only_replaced_with_overwrite(refused, ushape, trained, cells, tiny, tmp_path):
    plan = (trained / "plan.json").read_bytes()
    refused("train", cells, "-o", trained, "--epochs", 1, *tiny)
    assert (trained / "plan.json").read_bytes() == plan

    out = tmp_path / "out"
    one = first(cells / "images")
    assert ushape("predict", trained, one, "-o", out).code == 0
    (out / one.name).write_bytes(b"precious")
    refused("predict", trained, one, "-o", out)
    assert (out / one.name).read_bytes() == b"precious"
    assert ushape("predict", trained, one, "-o", out, "--overwrite").code == 0
    assert (out / one.name).read_bytes() != b"precious"


def test_predict_never_replaces_the_images(refused, trained, own_cells):
    before = first(own_cells / "images").read_bytes()
    refused("predict", trained, own_cells / "images", "-o", own_cells / "images", "--overwrite")
    assert first(own_cells / "images").read_bytes() == before
    beside = own_cells / "images" / "upper.PNG"
    first(own_cells / "images").rename(beside)
    refused("predict", trained, beside, "-o", own_cells / "images")
    assert beside.read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.batchsize=2", "train.batch_size"),
        ("train.batch_size=-1", "above 0"),
        ("train.batch_size=many", "batch_size"),
        ("loss.terms={dise: 1}", "dice"),
        ("train", "="),
    ],
)
def test_train_names_the_wrong_setting(refused, cells, tmp_path, setting, expected):
    said = refused("train", cells, "-o", tmp_path / "run", "--set", setting)
    assert expected in said


def test_train_lists_the_known_recipes_and_devices(refused, cells, tmp_path):
    assert "auto" in refused("train", cells, "-o", tmp_path / "a", "--recipe", "autp")
    assert "cpu" in refused("train", cells, "-o", tmp_path / "b", "--device", "tpu")


def test_resume_on_a_full_disk_keeps_the_last_checkpoint(trained, ushape, tmp_path):
    """A limit on the size of files simulates the full disk: writing fails in the same way."""
    resource = pytest.importorskip("resource")
    run = shutil.copytree(trained, tmp_path / "run")
    checkpoint = run / "checkpoints" / "last.ckpt"
    recipe = json.loads((run / "plan.json").read_text())["recipe"]
    recipe["train"]["epochs"] = 3
    edit_sealed_json(run / "plan.json", recipe=recipe)
    good = checkpoint.read_bytes()

    ended = subprocess.run(
        [sys.executable, "-m", "ushape", "resume", str(run)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2,) * 2),
    )

    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert checkpoint.read_bytes() == good
    assert not list(run.rglob("*.part"))
    assert ushape("resume", run).code == 0
