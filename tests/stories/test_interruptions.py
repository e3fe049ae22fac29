"""A training that is killed at any moment is resumed to the same weights."""

import csv
import os
import signal
import subprocess
import sys

import pytest
import torch

from commands import command_environment, wait_for

EPOCHS = 5

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals to process groups")


@pytest.fixture
def start(cells, tiny):
    """Starts a training with a loading process and augmentation; returns the process."""

    def run(folder, *options, epochs=EPOCHS):
        given = ["train", cells, "-o", folder, "--epochs", epochs, *tiny, "--set=train.workers=1"]
        return _popen(options or given)

    return run


@pytest.fixture(scope="module")
def uninterrupted(cells, tiny, ushape, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "straight"
    ended = ushape("train", cells, "-o", folder, "--epochs", EPOCHS, *tiny, "--set=train.workers=1")
    assert ended.code == 0, ended.error
    return folder


@pytest.mark.parametrize("kills", [("plan",), (2, 4), ("scores",)])
def test_resume_after_a_kill_reaches_the_same_weights(start, uninterrupted, tmp_path, kills):
    folder = tmp_path / "run"
    process = start(folder)
    for moment in kills:
        _kill_when(process, folder, moment)
        process = start(folder, "resume", folder)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said

    assert (folder / "model.safetensors").read_bytes() == (
        uninterrupted / "model.safetensors"
    ).read_bytes()
    assert _weights(folder).keys() == _weights(uninterrupted).keys()
    for name, value in _weights(uninterrupted).items():
        assert torch.equal(value, _weights(folder)[name]), name
    assert _rows(folder, "epoch", "loss", "validation_dice") == _rows(
        uninterrupted, "epoch", "loss", "validation_dice"
    )
    assert (folder / "scores.csv").read_bytes() == (uninterrupted / "scores.csv").read_bytes()


def test_resume_of_a_finished_run_changes_nothing(uninterrupted, ushape):
    before = (uninterrupted / "model.safetensors").read_bytes()
    ended = ushape("train", "--resume", uninterrupted)  # Former spelling.
    assert ended.code == 0, ended.error
    assert (uninterrupted / "model.safetensors").read_bytes() == before


def test_interrupt_stops_evaluates_and_writes_the_run(start, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, epochs=2000)
    wait_for(lambda: _epochs_done(folder) >= 2, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 0
    assert "Stopped" in output
    assert "mean Dice" in output
    assert (folder / "report.html").exists()
    assert 2 <= _epochs_done(folder) < 2000


def test_interrupt_in_a_fold_writes_the_joint_report(start, cells, tiny, tmp_path):
    folder = tmp_path / "run"
    command = ("cross-validate", cells, "--folds", 2, "-o", folder, "--epochs", 2000, *tiny)
    process = start(folder, *command)
    wait_for(lambda: _epochs_done(folder / "fold-1") >= 2, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 0, output
    assert "Stopped in fold 1 of 2" in output
    assert (folder / "report.html").exists()
    assert not (folder / "fold-2").exists()


def _popen(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ushape", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=command_environment(),
    )


def _kill_when(process, folder, moment):
    """Kill the process and its data loaders without a signal that they could handle."""
    if moment == "plan":
        wait_for((folder / "plan.json").exists, process)
    elif moment == "scores":
        wait_for(lambda: _epochs_done(folder) >= EPOCHS, process)
    else:
        wait_for(lambda: _epochs_done(folder) >= moment, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _epochs_done(folder):
    metrics = folder / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0


def _weights(folder):
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


def _rows(folder, *columns):
    with (folder / "metrics.csv").open() as file:
        return [[row[column] for column in columns] for row in csv.DictReader(file)]
