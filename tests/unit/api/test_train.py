"""What a training passes on, and what a resumed one loads."""

import csv
import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from ushape.api.train import _create_free_folder, resume, train
from ushape.data.lazy import LazySamples
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import RunError
from ushape.planning.run import Run


@pytest.fixture
def options(tmp_path):
    """Arguments of a training of a second."""
    write_data_set(tmp_path / "data", 6, SyntheticConfig(size=64, groups=3), seed=3)
    return {
        "data": tmp_path / "data",
        "output": tmp_path / "run",
        "epochs": 1,
        "device": "cpu",
        "settings": [
            "network.widths=[4,8]",
            "sampling.patch_shape=[32,32]",
            "train.batch_size=2",
            "train.steps_per_epoch=2",
        ],
        "quiet": True,
    }


def test_train_does_not_load_the_cases_and_splits_that_it_wrote(options, monkeypatch):
    def refuse(run):
        raise AssertionError("loaded")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "load_cases", refuse)
        patched.setattr(Run, "load_splits", refuse)
        first = train(**options)
    assert repr(first).startswith(f"TrainResult(folder={str(options['output'])!r}, summary=")

    again = resume(first.folder, quiet=True)
    assert again.summary == first.summary


def test_train_leaves_no_folder_behind_if_planning_fails(options):
    with pytest.raises(Exception, match="lgg"):
        train(**{**options, "recipe": "lgg-unknown"})
    assert not options["output"].exists()


def test_train_without_validation_foreground_says_so_and_keeps_the_last_epoch(options, capsys):
    """Two images of six have foreground: one for training, one for the test."""
    data = options["data"].with_name("few")
    write_data_set(data, 6, SyntheticConfig(size=64, groups=6), seed=3)
    for number, path in enumerate(sorted((data / "masks").iterdir())):
        mask = np.zeros((64, 64), np.uint8)
        mask[:30, :40] = 255 * (number < 2)
        Image.fromarray(mask).save(path)
    settings = [*options["settings"], "train.patience=1"]
    changed = {"data": data, "epochs": 3, "settings": settings, "quiet": False}
    found = train(**{**options, **changed})
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("No validation image has foreground") == 1
    assert "No test image has foreground" not in out
    assert "validation Dice 0" not in out
    assert "validation Dice 1" not in out
    assert "the weights are the last ones, those of epoch 3 of 3" in out
    with Run(found.folder).metrics_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["validation_dice"] for row in rows] == [""] * 3
    assert all(float(row["validation_loss"]) > 0 for row in rows)


def test_resume_refuses_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(RunError):
        resume(tmp_path, quiet=True)


def test_free_folder_is_numbered(tmp_path):
    folder = tmp_path / "cells"
    assert _create_free_folder(folder) == folder
    (tmp_path / "cells-2").mkdir()
    assert _create_free_folder(folder) == tmp_path / "cells-3"
    assert (tmp_path / "cells-3").is_dir()


@pytest.mark.parametrize("slices", [None, 3], ids=["3D", "2.5D"])
def test_resume_cuts_patches_of_divided_volumes_from_the_files_as_before(
    options, tmp_path, monkeypatch, slices
):
    volume = np.random.default_rng(0).integers(0, 900, (12, 24, 32)).astype(np.uint16)
    for kind, array in (("images", volume), ("masks", (volume > 800).astype(np.uint8))):
        (tmp_path / "volumes" / kind).mkdir(parents=True)
        for name in "abc":
            tifffile.imwrite(tmp_path / "volumes" / kind / f"{name}.tif", np.roll(array, ord(name)))
    shape = "[8,16,16]" if slices is None else "[16,16]"
    settings = [
        "network.widths=[2,4]",
        f"sampling.patch_shape={shape}",
        f"preprocessing={{downscale: 1, divide_above_px: 8192, slices: {slices or 'null'}}}",
        "train={batch_size: 2, steps_per_epoch: 2, patch_source: files, workers: 0}",
    ]
    chosen = {**options, "data": tmp_path / "volumes", "settings": settings, "epochs": 3}
    straight = train(**{**chosen, "output": tmp_path / "straight"}).folder

    class Killed(Exception):
        pass

    cut, count = LazySamples.__getitem__, itertools.count()

    def die(samples, index):
        if next(count) == 7:  # In the second epoch.
            raise Killed
        return cut(samples, index)

    with monkeypatch.context() as patched:
        patched.setattr(LazySamples, "__getitem__", die)
        with pytest.raises(Killed):
            train(**chosen)
    assert len(Run.open(options["output"]).load_cases()) > 3
    rows = (options["output"] / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 1  # The header, and an epoch.
    resumed = resume(options["output"], quiet=True).folder
    for name in ("model.safetensors", "scores.csv", "plan.json"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes(), name
