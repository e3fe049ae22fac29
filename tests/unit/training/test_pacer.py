"""The time limit on a clock that the tests set."""

import pytest

from fakes import FakeClock, FakeTrainer
from ushape.planning.recipe import TrainConfig
from ushape.training.optimizers import Schedule
from ushape.training.pacer import Pacer


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


def test_pacer_extends_a_plan_within_an_epoch_after_slow_first_steps():
    # Ten steps of 4 s while the machine was busy; the others take 0.5 s.
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    trainer = train(pacer, clock, lambda step: 4.0 if step < 10 else 0.5, epoch_steps=1000)
    assert trainer.global_step >= 110
    assert 90.0 <= pacer.used_s <= 101.0


def test_pacer_leaves_time_for_the_first_validation_when_it_extends():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    train(pacer, clock, lambda step: 0.5, epoch_steps=170, validation_s=9.0)
    assert pacer.used_s <= 100.5


@pytest.mark.parametrize(("frozen_s", "steps"), [(0.5, 100), (0.4, 110), (0.7, 88)])
def test_pacer_knows_that_steps_without_the_encoder_are_faster(frozen_s, steps):
    frozen = TrainConfig(schedule="cosine", encoder_freeze_fraction=0.4)
    clock, schedule = FakeClock(), Schedule(frozen, 100)
    pacer = Pacer(schedule, 80.0, clock, has_frozen_steps=True)

    def step_s(step):
        return frozen_s if schedule.freezes_encoder(step) else 1.0

    # 40 steps of half a second and 60 of a second are expected at first.
    trainer = train(pacer, clock, step_s, until=30)
    assert schedule.total_steps == pytest.approx(100 * 0.5 / frozen_s, rel=0.06)
    train(pacer, clock, step_s, trainer=trainer)
    assert 76 <= pacer.used_s <= 81
    assert trainer.global_step == pytest.approx(steps, abs=3)


def test_pacer_ends_in_time_if_steps_suddenly_take_twenty_times_as_long():
    clock, schedule = FakeClock(), schedule_of(200)
    pacer = Pacer(schedule, 100.0, clock)
    trainer = train(pacer, clock, lambda step: 0.5 if step < 100 else 10.0, validation_s=0.5)
    assert pacer.used_s <= 110.0  # One step longer at most.
    assert 103 <= trainer.global_step <= 106


def test_pacer_does_not_end_early_for_one_disturbed_step():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    trainer = train(pacer, clock, lambda step: 20.0 if step == 5 else 1.0, epoch_steps=20)
    assert 75 <= trainer.global_step <= 82
    assert pacer.used_s >= 95.0


@pytest.mark.parametrize("validation_s", [5.0, 20.0, 45.0])
@pytest.mark.parametrize("epoch_steps", [5, 17])
def test_pacer_keeps_the_limit_if_validation_is_slow(validation_s, epoch_steps):
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock)
    train(pacer, clock, lambda step: 1.0, epoch_steps=epoch_steps, validation_s=validation_s)
    assert pacer.used_s <= 101.0


def test_pacer_leaves_more_time_for_the_evaluation_on_a_slow_machine():
    # Steps take twice as long as planned, so 20 s for the evaluation become 40 s.
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 100.0, clock, evaluation_s=20.0)
    train(pacer, clock, lambda step: 2.0)
    assert 72.0 <= pacer.used_s <= 82.0


def test_pacer_makes_one_step_without_any_time():
    clock, schedule = FakeClock(), schedule_of(100)
    trainer = train(Pacer(schedule, 1e-9, clock), clock, lambda step: 1.0)
    assert trainer.global_step == 1


def test_pacer_makes_one_step_if_the_time_is_over_before_the_first():
    clock, schedule = FakeClock(), schedule_of(100)
    pacer = Pacer(schedule, 1.0, clock)
    clock.now += 5.0  # A busy machine takes this long to start the training.
    trainer = FakeTrainer()
    pacer.on_train_start(trainer, None)
    pacer.on_train_batch_end(trainer, None, None, None, 0)  # Gradients are accumulated.
    assert not trainer.should_stop
    assert train(pacer, clock, lambda step: 1.0, trainer=trainer).global_step == 1


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
    second = Pacer(resumed_schedule, 60.0, clock)  # The seconds that are left.
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
