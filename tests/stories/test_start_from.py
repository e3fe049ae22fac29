"""A training starts from the weights of another one: `ushape train --from`."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from commands import command_environment, wait_for
from ushape.datasets.synthetic import SyntheticConfig, write_data_set

CELLS = SyntheticConfig(size=96, groups=4, spacing_px=20, membrane_px=2)

SMALL = (
    "--device=cpu",
    "--set=sampling.patch_shape=[48,48]",
    "--set=train.batch_size=4",
    "--set=train.precision=fp32",
)


@pytest.fixture(scope="module")
def dishes(tmp_path_factory):
    """Two folders with two images each of the same four dishes."""
    base = tmp_path_factory.mktemp("dishes")
    write_data_set(base / "all", 16, CELLS, seed=3)
    for kind in ("images", "masks"):
        for number, path in enumerate(sorted((base / "all" / kind).iterdir())):
            target = base / ("first", "second")[number % 2] / kind
            target.mkdir(parents=True, exist_ok=True)
            path.rename(target / path.name)
    return base


@pytest.fixture(scope="module")
def colored(dishes):
    """The second folder as RGB images, with two classes."""
    for kind in ("images", "masks"):
        target = dishes / "colored" / kind
        target.mkdir(parents=True)
        for path in sorted((dishes / "second" / kind).iterdir()):
            values = np.asarray(Image.open(path))
            lower = (np.arange(len(values)) >= 48)[:, None]
            made = np.where(values > 0, 1 + lower, 0).astype(np.uint8)
            if kind == "images":
                made = np.stack([values, 255 - values // 2, values], axis=-1)
            Image.fromarray(made).save(target / path.name)
    return dishes / "colored"


@pytest.fixture(scope="module")
def source(dishes, ushape, tmp_path_factory):
    """A run on the first folder that has learned something."""
    run = tmp_path_factory.mktemp("source") / "cells"
    options = ("--epochs=4", "--set=network.widths=[8,16,16]", "--set=train.steps_per_epoch=40")
    rate = "--set=train.learning_rate=0.005"
    ended = ushape("train", dishes / "first", "-o", run, *options, rate, *SMALL)
    assert ended.code == 0, ended.error
    return run


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_other_images_are_learned_faster_from_earlier_weights(dishes, source, ushape, tmp_path):
    options = ("--epochs=1", "--set=train.steps_per_epoch=12", *SMALL)
    run = tmp_path / "run"
    ended = ushape("train", dishes / "second", "-o", run, "--from", source, *options)
    assert ended.code == 0, ended.error
    decision = json.loads((tmp_path / "run" / "start" / "decision.json").read_text())
    assert decision["loaded_steps"] == decision["usual_steps"] == 12
    assert decision["loaded_dice"] > decision["usual_dice"]
    assert "The training continues from the trial with the loaded weights." in ended.output
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["recipe"]["network"]["widths"] == [8, 16, 16]
    tensors = plan["start"]["tensors"]
    said = f"Start: loaded {tensors} of {tensors} tensors from cells/model.safetensors"
    assert said in ended.output
    assert len(plan["start"]["checksum"]) == 64
    card = (tmp_path / "run" / "model_card.md").read_text()
    assert plan["start"]["checksum"][:12] in card
    assert "Trials of 12 steps" in card

    # The run needs nothing but its own folder.
    moved = tmp_path / "moved"
    (tmp_path / "run").rename(moved)
    image = next((dishes / "second" / "images").iterdir())
    ended = ushape("predict", moved, image, "-o", tmp_path / "masks")
    assert ended.code == 0, ended.error


def test_colors_and_classes_may_differ(source, colored, ushape, tmp_path):
    run = tmp_path / "run"
    ended = ushape("train", colored, "-o", run, "--from", source, "--epochs=1", *SMALL)
    assert ended.code == 0, ended.error
    start = json.loads((run / "plan.json").read_text())["start"]
    assert start["loaded"] == start["tensors"] - 2
    assert "adapted: first convolution; fresh: head." in ended.output
    assert (run / "report.html").exists()


def test_plan_explains_the_start(source, colored, ushape, tmp_path):
    ended = ushape("plan", colored, "--from", source, "--epochs=1", "--explain", *SMALL)
    assert ended.code == 0, ended.error
    assert "SHA-256 of the file" in ended.output


def test_time_limit_includes_the_trials(source, cells, ushape, tmp_path):
    options = ("--minutes=0.4", "--seed=1", *SMALL)
    ended = ushape("train", cells, "-o", tmp_path / "run", "--from", source, *options)
    assert ended.code == 0, ended.error
    assert "Trials of" in ended.output


def test_every_fold_starts_from_the_weights(source, colored, ushape, tmp_path):
    options = ("--folds=2", "--epochs=1", "--set=train.steps_per_epoch=2", *SMALL)
    command = ("cross-validate", colored, "-o", tmp_path / "folds", "--from", source, *options)
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    for fold in ("fold-1", "fold-2"):
        assert (tmp_path / "folds" / fold / "start" / "decision.json").exists()
    again = ushape(*command)
    assert again.code == 0, again.error
    assert again.output.count("already finished") == 2


@pytest.mark.skipif(os.name != "posix", reason="sends signals to process groups")
def test_training_that_is_killed_at_any_moment_ends_with_the_same_weights(
    source, cells, ushape, tmp_path
):
    """It is killed in each trial, after the decision and in the training; the source is removed."""
    given = shutil.copytree(source, tmp_path / "given")
    options = ("--epochs=16", "--set=train.steps_per_epoch=4", "--set=train.workers=1", *SMALL)
    command = ("train", cells, "--from", given, *options)
    ended = ushape(*command, "-o", tmp_path / "straight")
    assert ended.code == 0, ended.error

    run = tmp_path / "killed"
    moments = (
        run / "start" / "loaded" / "checkpoints" / "last.ckpt",
        run / "start" / "usual" / "checkpoints" / "last.ckpt",
        run / "start" / "decision.json",
        run / "checkpoints" / "last.ckpt",
    )
    process = start(*command, "-o", run)
    for moment in moments:
        wait_for(moment.exists, process, limit_s=240)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        shutil.rmtree(given, ignore_errors=True)
        process = start("resume", run)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    for name in ("model.safetensors", "scores.csv"):
        assert (run / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    for folder in ("start/loaded", "start/usual", "."):
        dice = [
            [row["validation_dice"] for row in rows_of(base / folder)]
            for base in (run, tmp_path / "straight")
        ]
        assert dice[0] == dice[1], folder


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ushape", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=command_environment(),
    )


@pytest.mark.skipif(os.name != "posix", reason="sends signals to process groups")
def test_interrupt_in_a_trial_says_how_to_continue(source, cells, tmp_path):
    options = ("--epochs=4000", "--set=train.steps_per_epoch=6", *SMALL)
    run = tmp_path / "run"
    process = start("train", cells, "-o", run, "--from", source, *options)
    wait_for((run / "start" / "loaded" / "metrics.csv").exists, process, limit_s=240)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 130, said
    assert f"ushape resume {run}" in said
