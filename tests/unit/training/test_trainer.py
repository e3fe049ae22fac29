"""Training within the memory, damaged checkpoints and Ctrl-C."""

import csv
import errno
import itertools
import json
import os
import subprocess
import sys
import zipfile
from functools import partial

import pytest
import torch

import ushape
from fakes import FakeClock
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import RunError
from ushape.planning.run import Run
from ushape.training import pacer, trainer
from ushape.training.module import SegmentationModule
from ushape.training.pacer import Pacer, pacer_of
from ushape.training.trainer import OUT_OF_MEMORY, _refuse_damaged

TINY = [
    "network.widths=[4,8]",
    "network.norm=none",
    "sampling.patch_shape=[32,32]",
    "train.steps_per_epoch=3",
    "train.precision=fp32",
]


@pytest.fixture
def cells(tmp_path):
    write_data_set(tmp_path / "cells", 6, SyntheticConfig(size=48, groups=6), seed=0)
    return tmp_path / "cells"


def limit_memory(monkeypatch, patches, after_steps=0):
    """Refuse larger batches after some steps, as if they did not fit into memory."""
    loss_of, seen = SegmentationModule.loss_of, []

    def refuse(module, batch):
        seen.append(len(batch["image"]))
        if len(batch["image"]) > patches and len(seen) > after_steps:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return loss_of(module, batch)

    monkeypatch.setattr(SegmentationModule, "loss_of", refuse)
    return seen


def train(cells, folder, batch):
    ushape.train(cells, output=folder, epochs=2, settings=[*TINY, f"train.batch_size={batch}"])
    return torch.cat([v.flatten() for v in load(folder).values()])


def load(folder):
    import safetensors.torch

    return safetensors.torch.load_file(folder / "model.safetensors")


def test_train_within_memory_halves_the_batch_and_reaches_the_same_weights(
    cells, tmp_path, monkeypatch, capsys
):
    expected = train(cells, tmp_path / "whole", 4)
    capsys.readouterr()
    seen = limit_memory(monkeypatch, patches=1, after_steps=4)  # In the second epoch.
    found = train(cells, tmp_path / "halved", 4)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    output = capsys.readouterr().out
    assert output.count("Out of memory") == 2
    plan = json.loads((tmp_path / "halved" / "plan.json").read_text())["recipe"]["train"]
    assert (plan["batch_size"], plan["accumulate_grad_batches"]) == (1, 4)
    assert seen[:4] == [4, 4, 4, 4]
    with (tmp_path / "halved" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]


def test_train_within_memory_refuses_a_single_patch_that_does_not_fit(cells, tmp_path, monkeypatch):
    limit_memory(monkeypatch, patches=0)
    with pytest.raises(ushape.PlanError) as caught:
        train(cells, tmp_path / "run", 2)
    assert caught.value.code == "out_of_memory"


def test_train_within_memory_raises_other_errors(cells, tmp_path, monkeypatch):
    def fail(module, batch):
        raise RuntimeError("something else")

    monkeypatch.setattr(SegmentationModule, "loss_of", fail)
    with pytest.raises(RuntimeError, match="something else"):
        train(cells, tmp_path / "run", 2)


def test_training_whose_time_is_over_before_its_first_step_leaves_usable_weights(
    cells, tmp_path, monkeypatch
):
    clock = itertools.count(step=100.0)  # Each look at the clock takes longer than the training.
    monkeypatch.setattr(trainer, "pacer_of", partial(pacer_of, clock=lambda: next(clock)))
    result = ushape.train(cells, output=tmp_path / "run", minutes=0.05, settings=TINY)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1"]
    assert result.summary is not None
    assert load(tmp_path / "run")


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("MPS backend out of memory (MPS allocated: 18 GB)", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_out_of_memory_matches_the_allocators_of_all_devices(message, is_memory):
    assert bool(OUT_OF_MEMORY.search(message)) is is_memory


def test_refuse_damaged_checks_the_contents_of_a_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", b"x" * 1000)
    _refuse_damaged(path)
    whole = path.read_bytes()
    for content in (whole[:500], whole.replace(b"xx", b"xy", 1)):
        path.write_bytes(content)
        with pytest.raises(RunError) as caught:
            _refuse_damaged(path)
        assert caught.value.code == "damaged_checkpoint"


@pytest.mark.parametrize("processes", [1, 2])
def test_stop_at_first_interrupt_lets_the_step_finish_once(processes):
    # In a process of its own: a signal in a process that has quantized with NNCF crashed it.
    script = f"""
import signal, threading
from types import SimpleNamespace
from ushape.training.trainer import _stop_at_first_interrupt

signal.signal(signal.SIGINT, signal.default_int_handler)
trainer = SimpleNamespace(should_stop=False, world_size={processes})
interrupt = threading.Event()
with _stop_at_first_interrupt(trainer, interrupt):
    signal.raise_signal(signal.SIGINT)
    # Several processes agree on the step after which all of them end.
    assert trainer.should_stop is ({processes} == 1)
    assert interrupt.is_set()
    # The second Ctrl-C ends at once.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


class KilledError(Exception):
    """The process was killed."""


class LongValidation(Pacer):
    """Pacer for which each validation takes 20 of 90 s, and each step a second."""

    def __init__(self, schedule, budget_s, clock, **values):
        values |= {"evaluation_s": 1e-6, "validation_s": 0.0}
        super().__init__(schedule, 1090.0 - clock(), clock, **values)

    def on_train_batch_end(self, trainer, *arguments):
        self.clock.now += 1.0
        super().on_train_batch_end(trainer, *arguments)

    def on_train_epoch_end(self, trainer, *arguments):
        if trainer.lightning_module.is_validated:
            self.clock.now += 20.0
        super().on_train_epoch_end(trainer, *arguments)


@pytest.mark.parametrize("killed_after", [None, 2])
def test_training_without_time_for_the_last_validation_keeps_the_last_weights(
    cells, tmp_path, monkeypatch, capsys, killed_after
):
    monkeypatch.setattr(trainer, "pacer_of", partial(pacer_of, clock=FakeClock()))
    monkeypatch.setattr(pacer, "Pacer", LongValidation)
    settings = [*TINY[:3], "train.steps_per_epoch=20", "train.precision=fp32"]
    run = tmp_path / "run"
    if killed_after:
        with monkeypatch.context() as patch:
            patch.setattr(SegmentationModule, "on_train_epoch_start", die_in(killed_after))
            with pytest.raises(KilledError):
                ushape.train(cells, output=run, minutes=5, settings=settings)
        ushape.resume(run)
    else:
        ushape.train(cells, output=run, minutes=5, settings=settings)
    assert "no time to validate" in capsys.readouterr().out
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["20", "40", "60", "69"]
    assert [bool(row["validation_dice"]) for row in rows] == [True, False, False, False]
    assert float(rows[-1]["learning_rate"]) < 1e-5
    assert Run(run).weight_facts() == {"epoch": 4}


def die_in(epoch):
    """Return a start of an epoch that fails, in this one."""
    start = SegmentationModule.on_train_epoch_start

    def on_train_epoch_start(module):
        if module.current_epoch == epoch:
            raise KilledError
        start(module)

    return on_train_epoch_start


def name_of_error(tmp_path, error):
    """Code or class of what a training raises if this exception ends it."""
    (tmp_path / "run").mkdir()
    try:
        with trainer._errors_of_training(Run(tmp_path / "run"), None, None):
            raise error
    except Exception as raised:
        return raised.code if isinstance(raised, RunError) else type(raised).__name__


@pytest.mark.parametrize(
    ("code", "name", "expected"),
    [
        (errno.EPIPE, None, "BrokenPipeError"),  # `ushape train data | head -3`
        (errno.EIO, None, "OSError"),
        (errno.ENOSPC, None, "run_not_written"),  # Of the log of TensorBoard.
        (errno.EDQUOT, None, "run_not_written"),
        (errno.EIO, "run/metrics.csv", "run_not_written"),
        (errno.EACCES, "run/metrics.csv", "run_not_written"),
        (errno.ENOSPC, "elsewhere", "OSError"),
        (errno.ENOENT, "images/a.png", "FileNotFoundError"),
    ],
)
def test_only_errors_of_the_run_or_of_a_full_disk_are_about_the_run(tmp_path, code, name, expected):
    path = None if name is None else str(tmp_path / name)
    assert name_of_error(tmp_path, OSError(code, os.strerror(code), path)) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
            "dataloader's workers are out of shared memory. Please try to raise your limit.",
            "shared_memory_full",
        ),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nRuntimeError: unable to allocate "
            "shared memory(shm) for file </torch_1_2_3>: No space left on device (28)",
            "shared_memory_full",
        ),
        (
            "unable to write to file </torch_1_2_3>: No space left on device (28)",
            "shared_memory_full",
        ),
        ("DataLoader worker (pid 7) is killed by signal: Killed.", "loader_killed"),
        ("unable to open shared memory object </torch_1>: Too many open files", "RuntimeError"),
    ],
)
def test_full_shared_memory_is_not_taken_for_full_main_memory(tmp_path, message, expected):
    assert name_of_error(tmp_path, RuntimeError(message)) == expected
