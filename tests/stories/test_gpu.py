"""A GPU gives what a CPU gives. These tests are skipped on a computer without a CUDA GPU."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import ushape
from commands import wait_for
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning.run import Run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

MOST_DIFFERENT, MEAN_DIFFERENT = 0.1, 0.005
"""Largest and mean difference of probabilities: the devices round differently, and so do their
number formats."""

KINDS = {
    "planned": ("pictures", ()),
    "fp32": ("pictures", ("--set=train.precision=fp32",)),
    "batch norm": ("pictures", ("--set=network.norm=batch",)),
    "objects": ("pictures", ("--set=labels.objects=distance",)),
    "stem": ("pictures", ("--set=network.stem=2",)),
    "muon": ("pictures", ("--set=train.optimizer=muon",)),
    "residual blocks": ("pictures", ("--set=network.block=residual",)),
    "valid convolutions": ("pictures", ("--recipe=unet2015",)),
    "volumes": ("volumes", ()),
    "slices": ("volumes", ("--set=preprocessing.slices=3",)),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of cells and volumes of balls, six each."""
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder / "pictures", 6, SyntheticConfig(size=128, groups=6), seed=5)
    rng = np.random.default_rng(5)
    z, y, x = np.indices((16, 48, 48))
    for kind in ("images", "masks"):
        (folder / "volumes" / kind).mkdir(parents=True)
    for number in range(6):
        center = rng.integers((5, 14, 14), (11, 34, 34))
        distance = np.hypot(np.hypot(y - center[1], x - center[2]), 2 * (z - center[0]))
        mask = distance < rng.integers(8, 12)
        image = 60 + 100 * mask + rng.normal(0, 12, mask.shape)
        for kind, array in (("images", image), ("masks", 255 * mask)):
            path = folder / "volumes" / kind / f"patient{number}.tif"
            tifffile.imwrite(path, array.astype(np.uint8), photometric="minisblack")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_the_gpu_predicts_the_same_on_both_devices(ushape, data, tmp_path, kind):
    name, options = KINDS[kind]
    ended = ushape(
        *("train", data / name, "-o", tmp_path / "run", "--device=cuda", "--epochs=2"), *options
    )
    assert ended.code == 0, ended.error
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["machine"]["device"] == "cuda"
    with (tmp_path / "run/metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert np.isfinite(losses).all()

    images = data / name / "images"
    for device in ("cuda", "cpu"):
        ended = ushape(
            *("predict", tmp_path / "run", images, "-o", tmp_path / device, f"--device={device}"),
            *("--probabilities=npz", "--probability-type=float32"),
        )
        assert ended.code == 0, ended.error
    for path in sorted(images.iterdir()):
        own, other = (_probabilities(tmp_path / device, path.stem) for device in ("cuda", "cpu"))
        assert np.isfinite(own).all()
        _assert_nearly_equal(own, other)


def _probabilities(folder, name):
    with np.load(folder / f"{name}.npz") as archive:
        return archive[archive.files[0]]


def _assert_nearly_equal(own, other):
    difference = np.abs(own - other)
    assert difference.max() < MOST_DIFFERENT
    assert difference.mean() < MEAN_DIFFERENT


def test_a_model_learns_on_a_gpu(tmp_path):
    write_data_set(tmp_path / "cells", 24, SyntheticConfig(size=128, groups=8), seed=3)
    result = ushape.train(
        tmp_path / "cells", output=tmp_path / "run", device="cuda", minutes=1, quiet=True
    )
    assert result.summary.classes[0].mean_dice > 0.8


def test_a_killed_training_continues_on_a_gpu(ushape, data, tmp_path):
    run = tmp_path / "run"
    command = ["train", data / "pictures", "-o", run, "--device=cuda", "--epochs=6"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ushape", *map(str, command)], stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: Run(run).checkpoint_path.exists(), process)
    process.kill()
    process.communicate()
    resumed = ushape("resume", run)
    assert resumed.code == 0, resumed.error
    with (run / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("123456")


def test_too_little_memory_of_a_gpu_halves_the_batch(data, tmp_path, capsys):
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2e9 / whole)
    try:
        ushape.train(
            data / "pictures",
            output=tmp_path / "run",
            device="cuda",
            epochs=1,
            settings=("train.batch_size=64", "train.steps_per_epoch=2", "network.stem=1",
                      "network.widths=[64,128,256]", "sampling.patch_shape=[128,128]",
                      "train.precision=fp32"),
        )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Out of memory: continuing with batch size" in capsys.readouterr().out
    train = Run(tmp_path / "run").load_plan().recipe.train
    assert train.batch_size < 64
    assert train.batch_size * train.accumulate_grad_batches == 64


def test_folds_share_a_gpu(ushape, data, tmp_path):
    ended = ushape(
        *("cross-validate", data / "pictures", "-o", tmp_path / "run", "--folds=3", "--epochs=1"),
        "--device=cuda:0,cuda:0",
    )
    assert ended.code == 0, ended.error
    for fold in (1, 2, 3):
        assert (tmp_path / f"run/fold-{fold}/scores.csv").exists()


def test_more_gpus_than_there_are_are_refused(ushape, data, tmp_path):
    count = torch.cuda.device_count()
    ended = ushape(
        *("train", data / "pictures", "-o", tmp_path / "run", "--device=cuda", "--epochs=1"),
        *("--devices", count + 1),
    )
    assert ended.error_code == "device_not_available"
    assert re.search(rf"this machine has {count}\.", ended.error)


def test_a_run_of_the_gpu_scores_exports_and_continues_from_weights(ushape, data, tmp_path):
    run = tmp_path / "run"
    ended = ushape("train", data / "pictures", "-o", run, "--device=cuda", "--epochs=1")
    assert ended.code == 0, ended.error
    for arguments in (
        ("evaluate", run, "--device=cuda"),
        ("export", run, "--to=torchscript", "-o", tmp_path / "model.pt"),
        ("train", data / "pictures", "-o", tmp_path / "next", "--from", run, "--epochs=1"),
    ):
        ended = ushape(*arguments)
        assert ended.code == 0, (arguments, ended.error)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("opening", ["torchscript", "torchscript, moved later", "pt2"])
def test_an_exported_graph_computes_the_same_on_a_gpu(ushape, data, tmp_path, opening):
    run = tmp_path / "run"
    reduced = "--set=preprocessing.downscale=1.5"
    ended = ushape("train", data / "pictures", "-o", run, "--device=cuda", "--epochs=1", reduced)
    assert ended.code == 0, ended.error
    target = opening.partition(",")[0]
    path = tmp_path / ("model.pt2" if target == "pt2" else "model.pt")
    ended = ushape("export", run, "--to", target, "-o", path)
    assert ended.code == 0, ended.error
    source = np.asarray(Image.open(next((data / "pictures/images").iterdir())), np.float32)
    channels = source[None] if source.ndim == 2 else source.transpose(2, 0, 1)
    image = torch.from_numpy(np.stack([channels, channels[..., ::-1] / 2]))[..., :101]
    found = []
    for device in ("cpu", "cuda"):
        if target == "pt2":
            module = torch.export.load(path).module().to(device)
        elif opening != target:
            module = torch.jit.load(path, map_location="cpu").to(device)
        else:
            module = torch.jit.load(path, map_location=device)
        with torch.no_grad():
            outputs = module(image.to(device))
        assert outputs.device.type == device
        found.append(outputs.cpu().numpy())
    _assert_nearly_equal(*found)


def test_a_large_picture_is_predicted_on_a_gpu_in_bands(ushape, data, tmp_path):
    run = tmp_path / "run"
    ended = ushape("train", data / "pictures", "-o", run, "--device=cuda", "--epochs=1")
    assert ended.code == 0, ended.error
    rng = np.random.default_rng(1)
    source = np.asarray(Image.open(next((data / "pictures/images").iterdir())))
    tiled = np.tile(source, (24, 24) + (1,) * (source.ndim - 2))
    tiled = np.clip(tiled + rng.normal(0, 3, tiled.shape), 0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "large.tif", tiled)
    found = []
    for device in ("cuda", "cpu"):
        ended = ushape(
            *("predict", run, tmp_path / "large.tif", "-o", tmp_path / device),
            *(f"--device={device}", "--probabilities=npz", "--probability-type=float32"),
        )
        assert ended.code == 0, ended.error
        found.append(_probabilities(tmp_path / device, "large"))
    _assert_nearly_equal(*found)
