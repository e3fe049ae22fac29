"""Number of loading processes in little memory."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import ushape
from ushape.data.cache import SampleStore
from ushape.data.discovery import discover
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning.run import Run
from ushape.training import loaders
from ushape.training.datamodule import SegmentationData
from ushape.training.loaders import bytes_of_batch, with_fitting_loaders


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cells"
    write_data_set(folder, 6, SyntheticConfig(size=48, groups=6), seed=0)
    return folder


@pytest.fixture(scope="module")
def plan(cells):
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.workers=4"]
    return ushape.plan(cells, epochs=1, settings=[*settings, "train.batch_size=2"])


def in_shared_memory(monkeypatch, count):
    usage = shutil._ntuple_diskusage(10**12, 0, count)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def loaders_of(plan, kept_bytes=0.0, neighbors=1):
    said = []
    workers = with_fitting_loaders(plan, kept_bytes, said.append, neighbors).recipe.train.workers
    return workers, " ".join(said)


def test_size_of_a_batch_is_that_of_its_arrays(cells, plan):
    store = SampleStore(discover(cells).cases, plan.preprocessing, keep=True)
    patch = SegmentationData(plan, store, store, np.full((6, 2), 100)).dataset[0, 0]
    arrays = [array for array in patch.values() if isinstance(array, torch.Tensor)]
    assert bytes_of_batch(plan) == 2 * sum(array.nbytes for array in arrays)


@pytest.mark.parametrize(
    # Each process has two finished batches, and one is being trained on.
    ("batches", "expected"),
    [(9, 4), (8.9, 3), (7, 3), (3, 1), (2.9, 0), (0, 0)],
)
def test_batches_of_all_processes_fit_into_the_shared_memory(plan, monkeypatch, batches, expected):
    in_shared_memory(monkeypatch, int(batches * bytes_of_batch(plan)))
    workers, said = loaders_of(plan)
    assert workers == expected
    assert ("--shm-size" in said) is (expected < 4)


def test_several_processes_share_the_shared_memory(plan, monkeypatch):
    in_shared_memory(monkeypatch, 18 * bytes_of_batch(plan))
    workers, said = loaders_of(plan, neighbors=3)  # 6 batches each.
    assert workers == 2
    free_mb = 18 * bytes_of_batch(plan) / 1e6
    assert f"{free_mb:.0f} MB of shared memory are free" in said
    assert "shared by 3 devices" in said
    # Those of other machines have memory of their own.
    machine = replace(plan.machine, devices=6)
    assert loaders_of(replace(plan, machine=machine), neighbors=3)[0] == 2


def test_systems_without_a_limit_of_shared_memory_start_all_processes(plan, monkeypatch, tmp_path):
    monkeypatch.setattr(loaders, "SHARED_MEMORY", tmp_path / "missing")
    assert loaders_of(plan) == (4, "")


@pytest.mark.parametrize(
    # Of 4 GB, cases may take 1 GB, the copy of the training process included.
    ("platform", "kept_bytes", "expected"),
    [
        ("darwin", 2e8, 4),
        ("win32", 2.1e8, 3),
        ("darwin", 5e8, 1),
        ("win32", 9e8, 0),
        ("darwin", 0, 4),
        ("linux", 9e8, 4),
    ],
)
def test_copies_of_the_cases_fit_into_the_main_memory(
    plan, monkeypatch, tmp_path, platform, kept_bytes, expected
):
    monkeypatch.setattr(loaders, "SHARED_MEMORY", tmp_path / "missing")
    context = object() if platform == "linux" else None
    monkeypatch.setattr(loaders, "worker_context", lambda: context)
    small = replace(plan, machine=replace(plan.machine, main_memory_bytes=4 * 10**9))
    workers, said = loaders_of(small, kept_bytes)
    assert workers == expected
    assert ("copy of the training cases" in said) is (expected < 4)


def test_a_training_starts_fewer_processes_and_says_so(cells, tmp_path, monkeypatch, capsys):
    seen = []
    fetch = SegmentationData.train_dataloader

    def note(data):
        seen.append(data.plan.recipe.train.workers)
        return fetch(data)

    monkeypatch.setattr(SegmentationData, "train_dataloader", note)
    monkeypatch.setattr(loaders, "free_shared_bytes", lambda: 0)
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.workers=2"]
    settings += ["train.steps_per_epoch=2", "train.batch_size=2"]
    ushape.train(cells, output=tmp_path / "run", epochs=1, settings=settings)
    assert seen == [0]
    assert "patches are loaded by the training process itself" in capsys.readouterr().out
    assert Run(tmp_path / "run").load_plan().recipe.train.workers == 2
