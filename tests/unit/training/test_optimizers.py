import pytest
import torch
from torch import nn

from ushape.planning.recipe import TrainConfig
from ushape.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    Schedule,
    build_optimizer,
    scale_rate,
)


def rates(name, *places, warmup_fraction=0.1):
    train = TrainConfig(schedule=name, warmup_fraction=warmup_fraction)
    return [Schedule(train, 1).factor(place) for place in places]


def test_schedule_warmup_steps_replace_the_fraction():
    train = TrainConfig(schedule="warmup", warmup_steps=100)
    found = [Schedule(train, 1000).factor(step) for step in (0, 50, 100, 900)]
    assert found == pytest.approx([0.01, 0.505, 1, 1])
    assert Schedule(train, 20).factor(5) == pytest.approx(0.505)  # In a short training half of it.


def test_schedule_cosine_rises_then_falls_to_zero():
    assert rates("cosine", 0.0, 0.1, 0.55, 1.0, 1.7) == pytest.approx([0.01, 1, 0.5, 0, 0])
    assert rates("cosine", 0.0, warmup_fraction=0.0) == pytest.approx([1.0])


def test_schedules_by_hand():
    assert rates("constant", 0, 0.5, 2) == [1, 1, 1]
    assert rates("warmup", 0, 0.05, 0.1, 0.9) == pytest.approx([0.01, 0.505, 1, 1])
    assert rates("polynomial", 0.5, 1.0, warmup_fraction=0.0) == pytest.approx([0.5**0.9, 0])


def test_schedule_one_cycle_equals_torch():
    steps = 100
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, cycle_momentum=False
    )
    # Torch peaks one step early and ends at its last step.
    for step in range(steps):
        rise = 0.3 * steps - 1
        progress = 0.3 * step / rise if step <= rise else 0.3 + 0.7 * (step - rise) / (99 - rise)
        assert rates("one_cycle", progress) == pytest.approx([optimizer.param_groups[0]["lr"]])
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_never_exceed_the_highest_rate(name):
    found = rates(name, *[place / 50 for place in range(60)])
    assert 0 <= min(found) <= max(found) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_minimize_a_quadratic_function(name):
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    train = TrainConfig(optimizer=name, learning_rate=0.02, weight_decay=0.0)
    optimizer = build_optimizer([weight], train, "cpu")
    for _ in range(600):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.abs().max() < 0.05


def test_build_optimizer_passes_momentum_and_weight_decay():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    train = TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.2)
    optimizer = build_optimizer([weight], train, "cpu")
    seen = []
    for _ in range(2):
        optimizer.zero_grad()
        (3 * weight).sum().backward()
        optimizer.step()
        seen.append(weight.item())
    # Gradient 3 + 0.2 w; velocity 3.2, then 0.5 * 3.2 + 3 + 0.2 * 0.68.
    assert seen == pytest.approx([1 - 0.32, 0.68 - 0.1 * (1.6 + 3.136)])


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_scale_rate_gives_some_parameters_another_rate(name):
    network = nn.Sequential(
        nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)
    )
    train = TrainConfig(optimizer=name, learning_rate=0.01)
    optimizer = build_optimizer(network.parameters(), train, "cpu")
    scale_rate(optimizer, network[:2].parameters(), 0.1)
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert len(rates) == 8
    for index, layer in enumerate(network):
        for parameter in layer.parameters():
            assert rates[id(parameter)] == pytest.approx(0.001 if index < 2 else 0.01)
    network[:2].requires_grad_(False)
    before = network[0].weight.clone()
    network(torch.randn(2, 8, 8, 8)).square().mean().backward()
    optimizer.step()
    assert torch.equal(network[0].weight, before)


def test_schedule_freezes_the_encoder_in_the_first_steps():
    schedule = Schedule(TrainConfig(encoder_freeze_fraction=0.25), 8)
    assert [schedule.freezes_encoder(step) for step in (0, 1, 2, 7)] == [True, True, False, False]
    schedule.total_steps = 100
    assert schedule.freezes_encoder(24)
    assert not Schedule(TrainConfig(encoder_freeze_fraction=0), 8).freezes_encoder(0)
