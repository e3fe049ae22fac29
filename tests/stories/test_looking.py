"""Commands that show something before training: preview, weight-map, find-lr."""

import csv

import numpy as np
import pytest
from PIL import Image


def size_of(path):
    with Image.open(path) as picture:
        assert picture.getcolors() is None or len(picture.getcolors()) > 20, "an empty picture"
        return picture.size


@pytest.mark.parametrize("recipe", ["auto", "unet2015", "lgg-buda"])
def test_preview_draws_a_case_and_its_patches(ushape, cells, tmp_path, recipe):
    target = tmp_path / "preview.png"
    small = ("--set=network.widths=[4,8]", "--set=sampling.patch_shape=[52,52]")
    command = ("preview", cells, "--recipe", recipe, "--strength=4", "-o", target, *small)
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    assert size_of(target)[0] > 1000
    ended = ushape(*command)
    assert (ended.code, ended.error_code) == (2, "output_exists")
    assert ushape(*command, "--overwrite").code == 0


def test_weight_map_of_a_mask_and_of_instances(ushape, cells, tmp_path):
    mask = max((cells / "masks").iterdir(), key=lambda path: path.stat().st_size)
    ended = ushape("weight-map", mask, "-o", tmp_path / "w.png")
    assert ended.code == 0, ended.error
    assert "objects, largest weight" in ended.output
    assert size_of(tmp_path / "w.png")[0] > 500

    touching = np.zeros((20, 20), np.uint8)
    touching[5:15, 4:10], touching[5:15, 10:16] = 1, 2
    Image.fromarray(touching).save(tmp_path / "objects.png")
    ended = ushape("weight-map", tmp_path / "objects.png", "-o", tmp_path / "o.png", "--instances")
    # The gap is two pixels wide: the distances are 1 and 2.
    assert f"2 objects, largest weight {10 * np.exp(-9 / 50):.2f}" in ended.output

    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "empty.png")
    ended = ushape("weights", tmp_path / "empty.png", "-o", tmp_path / "e.png")  # Former name.
    assert (ended.code, ended.error_code) == (2, "no_foreground")
    ended = ushape("weight-map", mask, "-o", tmp_path / "w.jpg")
    assert (ended.code, ended.error_code) == (2, "not_png")


def test_find_lr_writes_its_curve_and_suggests_a_rate(ushape, cells, tmp_path, tiny):
    target = tmp_path / "lr.png"
    ended = ushape(
        "find-lr",
        cells,
        "-o",
        target,
        "--steps=40",
        "--max-lr=100000",
        *tiny,
        "--set=train.accumulate_grad_batches=2",
    )
    assert ended.code == 0, ended.error
    assert "Suggested setting: --set train.learning_rate=" in ended.output
    assert size_of(target)[0] > 500
    rows = list(csv.DictReader(target.with_suffix(".csv").read_text().splitlines()))
    assert "diverged" in ended.output
    assert 10 < len(rows) < 40
    assert all(np.isfinite(float(row["loss"])) for row in rows)


def test_learning_rate_auto_is_found_before_the_training(ushape, cells, tmp_path, tiny):
    run = tmp_path / "run"
    ended = ushape("train", cells, "-o", run, "--epochs=1", *tiny, "--set=train.learning_rate=auto")
    assert ended.code == 0, ended.error
    assert "found by a range test" in ended.output
    assert (run / "learning_rate.png").exists()
    plan = (run / "plan.json").read_text()
    assert '"learning_rate": "auto"' not in plan
