"""Callbacks of the trainer on a clock that the tests set, so that no test depends on speed."""

import csv
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

import ushape
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning.recipe import TrainConfig
from ushape.planning.run import Run
from ushape.training.callbacks import EpochLog, KeepBest, Pacer
from ushape.training.module import SegmentationModule
from ushape.training.optimizers import Schedule


@dataclass
class FakeClock:
    now: float = 1000.0

    def __call__(self):
        return self.now


@dataclass
class FakeTrainer:
    """The attributes of Lightning's Trainer that the callbacks read and set."""

    global_step: int = 0
    current_epoch: int = 0
    should_stop: bool = False
    is_global_zero: bool = True
    optimizers: list = field(
        default_factory=lambda: [SimpleNamespace(param_groups=[{"lr": 0.002}])]
    )


def schedule_of(total_steps):
    return Schedule(TrainConfig(schedule="cosine"), total_steps)


def train(pacer, clock, step_s, *, epoch_steps=10, validation_s=0.0, until=10**9, trainer=None):
    """Run the callback as a training would whose step number n takes step_s(n) seconds."""
    trainer = trainer or FakeTrainer()
    pacer.on_train_start(trainer, None)
    while not trainer.should_stop and trainer.global_step < until:
        clock.now += step_s(trainer.global_step)
        trainer.global_step += 1
        pacer.on_train_batch_end(trainer, None, None, None, 0)
        if trainer.should_stop or trainer.global_step % epoch_steps == 0:
            clock.now += validation_s
            pacer.on_train_epoch_end(trainer, None)
            trainer.current_epoch += 1
            if trainer.global_step >= pacer.schedule.total_steps:
                trainer.should_stop = True
    return trainer


def test_pacer_does_not_change_a_plan_that_is_kept():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    trainer = train(pacer, clock, lambda step: 1.0)
    assert trainer.global_step == schedule.total_steps == 100
    assert pacer.revisions == []
    assert pacer.used_s == 100.0


@pytest.mark.parametrize(
    ("step_s", "least", "most"),
    [
        pytest.param(lambda step: 3.0, 28, 34, id="slow machine"),
        pytest.param(lambda step: 0.25, 370, 402, id="fast machine"),
        pytest.param(lambda step: 0.5 if step < 50 else 4.0, 62, 70, id="slower after 50 steps"),
        pytest.param(lambda step: 0.5 + (step % 7) / 6, 90, 104, id="uneven steps"),
    ],
)
@pytest.mark.parametrize("epoch_steps", [5, 25])
def test_pacer_keeps_the_time_limit(step_s, least, most, epoch_steps):
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    trainer = train(pacer, clock, step_s, epoch_steps=epoch_steps)
    slowest = max(step_s(step) for step in range(trainer.global_step))
    assert pacer.used_s <= 100.0 + slowest
    assert least <= trainer.global_step <= most
    # The learning rate has reached the end of its schedule.
    assert schedule.factor(trainer.global_step) < 0.01


def test_pacer_uses_the_time_of_a_machine_that_becomes_faster():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    trainer = train(pacer, clock, lambda step: 4.0 if step < 10 else 0.5, epoch_steps=5)
    assert 100 <= trainer.global_step <= 130
    assert 95.0 <= pacer.used_s <= 100.5


def test_pacer_counts_validation_in_the_speed():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    train(pacer, clock, lambda step: 1.0, epoch_steps=5, validation_s=2.5)
    assert pacer.revisions
    assert 60 <= schedule.total_steps <= 70  # 1.5 s per step.
    assert pacer.used_s <= 100.0 + 1.0 + 2.5


def test_pacer_does_not_extend_a_plan_within_an_epoch():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    train(pacer, clock, lambda step: 0.5, epoch_steps=50, until=49)
    assert schedule.total_steps == 100
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    train(pacer, clock, lambda step: 2.0, epoch_steps=50, until=20)
    assert 45 <= schedule.total_steps <= 55


def test_pacer_without_a_limit_ends_after_the_planned_steps():
    clock, schedule = FakeClock(), schedule_of(30)
    trainer = train(Pacer(schedule, None, clock), clock, lambda step: 1000.0)
    assert trainer.global_step == schedule.total_steps == 30


def test_pacer_continues_after_an_interruption_where_it_was():
    clock, schedule = FakeClock(), schedule_of(100)
    first = Pacer(schedule, 100.0, clock)
    trainer = train(first, clock, lambda step: 2.0, until=20)
    state = first.state_dict()
    clock.now += 5000.0  # Nothing runs.
    resumed_schedule = schedule_of(100)
    second = Pacer(resumed_schedule, 100.0, clock)
    second.load_state_dict(state)
    assert second.used_s == 40.0
    trainer = train(second, clock, lambda step: 2.0, trainer=trainer)
    assert second.revisions[0] == first.revisions[0]
    assert 48 <= trainer.global_step <= 51
    assert second.used_s <= 102.0


def test_pacer_stops_at_once_if_it_was_killed_after_the_last_step():
    schedule, trainer = schedule_of(30), FakeTrainer(global_step=30)
    Pacer(schedule, None, FakeClock()).on_train_start(trainer, None)
    assert trainer.should_stop


def test_pacer_estimates_the_seconds_left():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer, trainer = Pacer(schedule, None, clock), FakeTrainer()
    assert pacer.seconds_left(trainer) is None
    train(pacer, clock, lambda step: 2.0, until=21, trainer=trainer)
    assert pacer.seconds_left(trainer) == pytest.approx(2.0 * 79)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    data = tmp_path_factory.mktemp("data") / "cells"
    write_data_set(data, 6, SyntheticConfig(size=48, groups=6), seed=0)
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.precision=fp32"]
    return ushape.plan(data, epochs=2, settings=settings)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


def validate(callback, module, trainer, dice):
    """One epoch whose weights are all equal to its Dice."""
    for parameter in module.averaged.module.parameters():
        parameter.data.fill_(dice)
    module.validation_dice = dice
    callback.on_validation_end(trainer, module)
    trainer.current_epoch += 1


def weight_in(path):
    import safetensors.torch

    return next(iter(safetensors.torch.load_file(path).values())).flatten()[0].item()


def test_keep_best_saves_the_weights_of_the_best_epoch(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    for dice in (0.5, 0.75, 0.75, 0.25):
        validate(best, module, trainer, dice)
    assert (best.best_dice, best.best_epoch) == (0.75, 2)
    assert weight_in(run.weights_path) == 0.75
    assert run.weight_facts() == {"epoch": 2, "validation_dice": 0.75}
    assert not run.epoch_weights_path(1).exists()


def test_keep_best_saves_the_first_epoch_even_without_any_overlap(plan, run):
    validate(KeepBest(run), SegmentationModule(plan, [], []), FakeTrainer(), 0.0)
    assert run.weight_facts()["epoch"] == 1


def test_keep_best_continues_from_its_state(plan, run):
    module, trainer, first = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    validate(first, module, trainer, 0.5)
    second = KeepBest(run)
    second.load_state_dict(first.state_dict())
    validate(second, module, trainer, 0.25)
    assert weight_in(run.weights_path) == 0.5


def test_keep_best_saves_every_epoch_if_asked_and_only_in_the_first_process(plan, run):
    train_config = replace(plan.recipe.train, keep_epochs=True)
    kept = replace(plan, recipe=replace(plan.recipe, train=train_config))
    module, best = SegmentationModule(kept, [], []), KeepBest(run)
    validate(best, module, FakeTrainer(is_global_zero=False), 0.9)
    assert not run.weights_path.exists()
    trainer = FakeTrainer()
    validate(best, module, trainer, 0.5)
    validate(best, module, trainer, 0.25)
    assert [weight_in(run.epoch_weights_path(epoch)) for epoch in (1, 2)] == [0.5, 0.25]


def test_epoch_log_writes_a_row_per_epoch(plan, run):
    clock, seen = FakeClock(), []
    module, trainer = SegmentationModule(plan, [], []), FakeTrainer(global_step=7)
    log = EpochLog(run, seen.append, clock)
    for epoch in range(2):
        trainer.current_epoch = epoch
        log.on_train_epoch_start(trainer, module)
        clock.now += 2.5
        module.loss_sum, module.batches = 3.0, 4
        module.foreground_patches, module.patches = 2, 8
        module.validation_dice, module.validation_loss = 0.5, 0.125
        log.on_train_epoch_end(trainer, module)
    with run.metrics_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "epoch": "1",
        "step": "7",
        "loss": "0.75",
        "validation_loss": "0.125",
        "validation_dice": "0.5",
        "learning_rate": "0.002",
        "foreground_patches": "0.25",
        "seconds": "2.5",
    }
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert seen == log.rows


def test_epoch_log_continues_from_its_state_and_writes_in_the_first_process_only(plan, run):
    module, seen = SegmentationModule(plan, [], []), []
    log = EpochLog(run, seen.append, FakeClock())
    log.load_state_dict({"rows": [{"epoch": 1}]})
    trainer = FakeTrainer(current_epoch=1, is_global_zero=False)
    log.on_train_epoch_start(trainer, module)
    log.on_train_epoch_end(trainer, module)
    assert [row["epoch"] for row in log.state_dict()["rows"]] == [1, 2]
    assert not run.metrics_path.exists()
