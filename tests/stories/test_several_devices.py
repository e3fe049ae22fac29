"""One model is trained by two processes, which exchange their gradients."""

import csv
import os
import signal
import subprocess
import sys

import psutil
import pytest
import safetensors.numpy

from commands import command_environment, wait_for
from ushape.api._processes import free_port

LIMIT_S = 500
"""Limit of one command: generous, since four processes may share a busy machine."""

SETTINGS = ("--set=train.batch_size=4", "--set=network.norm=group", "--set=train.precision=fp32")


def test_two_processes_of_srun_reach_the_weights_of_one(ushape, cells, tiny, tmp_path):
    options = (*tiny, *SETTINGS, "--set=train.steps_per_epoch=4", "--epochs", 2)
    ended = ushape("train", cells, "-o", tmp_path / "one", *options)
    assert ended.code == 0, ended.error
    environment = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "MASTER_PORT": str(free_port()),
    }
    both = [
        _popen(
            *("train", cells, "-o", tmp_path / "two", *options),
            **environment,
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=LIMIT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "Epoch 2/2" in said[0]
    assert said[1] == ""  # Only the first process writes messages.

    runs = tmp_path / "one", tmp_path / "two"
    one, two = (safetensors.numpy.load_file(run / "model.safetensors") for run in runs)
    assert max(abs(one[name] - two[name]).max() for name in one) < 1e-5
    for own, other in zip(*(_rows(run / "metrics.csv") for run in runs), strict=True):
        assert own["foreground_patches"] == other["foreground_patches"]
        losses = [float(row["validation_loss"]) for row in (own, other)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_the_first_process_of_srun_trains_all_folds(cells, tiny, tmp_path):
    both = [
        _popen(
            *("cross-validate", cells, "--folds=2", "-o", tmp_path / "run", "--epochs=1", *tiny),
            SLURM_STEP_NUM_TASKS="2",
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
            MASTER_PORT=str(free_port()),
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=LIMIT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "Process 1 of 2 works alone" in said[0]
    assert "Process 2 of 2 ends" in said[1]
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends signals to processes")
def test_a_killed_process_ends_the_training_which_can_be_resumed(cells, tiny, tmp_path):
    folder = tmp_path / "run"
    options = (*tiny, *SETTINGS, "--epochs", 2000, "--devices", 2)
    process = _popen("train", cells, "-o", folder, *options)
    metrics = folder / "metrics.csv"
    wait_for(lambda: metrics.exists() and len(_rows(metrics)) >= 2, process, LIMIT_S)
    ranks = [one for one in psutil.Process(process.pid).children() if "_rank" in str(one.cmdline())]
    assert len(ranks) == 2
    ranks[1].kill()
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2, said
    assert "was killed by SIGKILL" in said
    assert "ushape resume" in said
    assert not any(one.is_running() for one in ranks)

    done = len(_rows(metrics))
    process = _popen("resume", folder)
    wait_for(lambda: len(_rows(metrics)) > done + 1, process, LIMIT_S)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert "Stopped" in said
    assert (folder / "report.html").exists()


EPOCHS = 8


@pytest.fixture(scope="module")
def uninterrupted(cells, tiny, tmp_path_factory):
    """Run that two processes have trained at once."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    options = (*tiny, *SETTINGS, "--epochs", EPOCHS, "--devices", 2)
    process = _popen("train", cells, "-o", folder, *options)
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    return folder


@pytest.mark.skipif(os.name != "posix", reason="sends signals to processes")
def test_training_that_was_killed_is_continued_exactly(uninterrupted, cells, tiny, tmp_path):
    folder = tmp_path / "run"
    options = (*tiny, *SETTINGS, "--epochs", EPOCHS, "--devices", 2)
    process = _popen("train", cells, "-o", folder, *options)
    wait_for(lambda: (folder / "checkpoints" / "last.ckpt").exists(), process, LIMIT_S)
    process.kill()
    process.communicate(timeout=LIMIT_S)  # Ends when all processes have closed their output.
    assert 1 <= len(_rows(folder / "metrics.csv")) < EPOCHS

    process = _popen("resume", folder)
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert "Epoch 1/" not in said
    _require_same_training(uninterrupted, folder)


def test_processes_of_torchrun_train_as_those_that_ushape_starts(
    uninterrupted, cells, tiny, tmp_path
):
    folder = tmp_path / "run"
    options = (*tiny, *SETTINGS, "--epochs", EPOCHS)
    launcher = ("torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1")
    launcher += (f"--master-port={free_port()}", "-m", "ushape")
    process = _popen("train", cells, "-o", folder, *options, program=launcher)
    said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    assert said.count(f"Epoch {EPOCHS}/{EPOCHS}") == 1
    _require_same_training(uninterrupted, folder)


def _require_same_training(expected, found):
    first, second = (
        safetensors.numpy.load_file(run / "model.safetensors") for run in (expected, found)
    )
    assert first.keys() == second.keys()
    assert [name for name in first if (first[name] != second[name]).any()] == []
    names = ("epoch", "step", "loss", "validation_loss", "validation_dice")
    tables = (_rows(run / "metrics.csv") for run in (expected, found))
    first, second = ([[row[name] for name in names] for row in rows] for rows in tables)
    assert first == second
    assert (expected / "scores.csv").read_bytes() == (found / "scores.csv").read_bytes()


def _popen(*arguments, program=("ushape",), **environment):
    return subprocess.Popen(
        [sys.executable, "-m", *program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**command_environment(), **environment},
    )


def _rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))
