"""Division of a training step among several devices."""

from dataclasses import replace

import pytest

import ushape
from codes import raises_code
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import PlanError
from ushape.planning.recipe import TrainConfig
from ushape.planning.shares import (
    describe_shares,
    plan_for_devices,
    plan_for_process,
    share_of_machine,
    share_of_step,
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cells"
    write_data_set(folder, 6, SyntheticConfig(size=48, groups=6), seed=0)
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.batch_size=6"]
    return ushape.plan(folder, epochs=1, device="cpu", settings=settings, quiet=True)


@pytest.mark.parametrize(
    ("batch", "repeated", "devices", "expected"),
    [
        (8, 1, 2, (4, 1)),
        (8, 1, 1, (8, 1)),
        (2, 4, 2, (1, 4)),
        (1, 4, 2, (1, 2)),  # No device has fewer than one patch in memory.
        (3, 2, 2, (1, 3)),
        (6, 3, 2, (3, 3)),
    ],
)
def test_share_of_step_divides_its_patches(batch, repeated, devices, expected):
    train = TrainConfig(batch_size=batch, accumulate_grad_batches=repeated)
    own = share_of_step(train, devices)
    assert own == expected
    assert devices * own[0] * own[1] == batch * repeated


def test_share_of_step_refuses_patches_that_cannot_be_divided():
    with raises_code(PlanError, "patches_not_divisible") as caught:
        share_of_step(TrainConfig(batch_size=5), 2)
    assert "train.batch_size=6" in str(caught.value)


def test_plan_for_devices_rounds_only_a_batch_that_was_not_chosen(plan):
    assert plan_for_devices(plan, 4, may_round=True).recipe.train.batch_size == 8
    assert plan_for_devices(plan, 3, may_round=True).recipe.train.batch_size == 6
    with raises_code(PlanError, "patches_not_divisible"):
        plan_for_devices(plan, 4, may_round=False)


def test_plan_for_devices_adds_loaders_unless_their_number_was_chosen(plan):
    server = replace(plan, machine=replace(plan.machine, device="cuda", cores=64))
    server = replace(
        server, recipe=replace(server.recipe, train=replace(server.recipe.train, workers=3))
    )
    chosen = plan_for_devices(server, 2, may_round=True)
    added = plan_for_devices(server, 2, may_round=True, adds_loaders=True)
    assert (chosen.recipe.train.workers, added.recipe.train.workers) == (3, 32)
    assert plan_for_process(added, 2).recipe.train.workers == 16


def test_plan_for_process_divides_batch_cores_and_memory(plan):
    machine = replace(plan.machine, cores=8, main_memory_bytes=100)
    train = replace(plan.recipe.train, threads=8, workers=3)
    whole = replace(plan, machine=machine, recipe=replace(plan.recipe, train=train))
    own = plan_for_process(plan_for_devices(whole, 2, may_round=False), 2)
    assert (own.recipe.train.batch_size, own.recipe.train.accumulate_grad_batches) == (3, 1)
    assert (own.recipe.train.threads, own.recipe.train.workers) == (4, 2)
    assert (own.machine.cores, own.machine.main_memory_bytes) == (4, 50)
    assert own.recipe.seed == plan.recipe.seed


@pytest.mark.parametrize(("device", "memory"), [("cpu", 25), ("mps", 25), ("cuda", 80)])
def test_share_of_machine_divides_the_main_memory(plan, device, memory):
    machine = replace(plan.machine, device=device, cores=6, memory_bytes=80, main_memory_bytes=100)
    part = share_of_machine(machine, 4)
    assert (part.cores, part.main_memory_bytes, part.memory_bytes) == (1, 25, memory)


def test_describe_shares_says_what_differs_after_a_change_of_devices(plan):
    two = plan_for_devices(plan, 2, may_round=False)
    assert "6 patches in total, 3 on each device" in describe_shares(two)
    assert "differ" not in describe_shares(two, before=2)
    assert "differ" in describe_shares(two, before=3)
    assert "one process" in describe_shares(plan, before=2)
