"""A batch that does not fit after all: half of it, twice, from where the training was."""

import csv
import json

import pytest
import torch

import ushape
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.training.module import SegmentationModule

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
    """As if more patches did not fit, from some step on."""
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
