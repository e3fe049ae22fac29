"""The time limit on a clock that the tests set."""

import pytest

from fakes import FakeClock, FakeTrainer
from ushape.planning.recipe import TrainConfig
from ushape.planning.rules.duration import divide_into_epochs
from ushape.training.optimizers import Schedule
from ushape.training.pacer import Pacer, fitting_steps


def schedule_of(total_steps):
    return Schedule(TrainConfig(schedule="cosine"), total_steps)


def train(pacer, clock, step_s, *, epoch_steps=10, validation_s=0.0, until=10**9, trainer=None):
    """Run the callback as a training would whose step number n takes step_s(n) seconds."""
    trainer = trainer or FakeTrainer()
    trainer.validated = validated = []
    pacer.on_train_start(trainer, None)
    while not trainer.should_stop and trainer.global_step < until:
        clock.now += step_s(trainer.global_step)
        trainer.global_step += 1
        pacer.on_train_batch_end(trainer, None, None, None, 0)
        if trainer.should_stop or trainer.global_step % epoch_steps == 0:
            if trainer.check_val_every_n_epoch == 1:
                clock.now += validation_s
                validated.append(trainer.global_step)
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
    assert schedule.total_steps == 90  # Four validations take 10 s.
    assert pacer.used_s == 100.0


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


@pytest.mark.parametrize(
    ("allowed_s", "validation_s", "period", "done", "expected"),
    [
        (100.0, 0.0, 10, 0, 100),
        (100.0, 10.0, 1000, 0, 90),  # One validation.
        (100.0, 10.0, 10, 0, 50),  # Five epochs of 20 s.
        (105.0, 10.0, 10, 0, 50),  # A sixth validation would not fit.
        (113.0, 10.0, 10, 0, 53),  # It fits after 3 steps.
        (35.0, 10.0, 20, 15, 15),  # 5 steps, 10 s, 10 steps, 10 s.
        (9.0, 10.0, 20, 15, 0),
    ],
)
def test_fitting_steps(allowed_s, validation_s, period, done, expected):
    found = fitting_steps(allowed_s, 1.0, validation_s, period=period, done=done)
    assert found == expected


def simulate(step_s, validation_s, budget_s, evaluation_s, *, planned=1.0, actual=1.0):
    """Plan and simulate a training.

    Args:
        validation_s: Seconds for the validation of two cases.
        planned: Seconds of a validation that the plan expects, relative to the true ones.
        actual: Seconds of a step, relative to those that the plan expects.
    """
    config = TrainConfig(schedule="cosine", minutes=1)
    case_s = validation_s / 2
    division = divide_into_epochs(config, budget_s, step_s, planned * case_s, validated=20)
    schedule, clock = Schedule(config, division.epochs * division.steps), FakeClock()
    pacer = Pacer(
        schedule,
        budget_s,
        clock,
        evaluation_s=evaluation_s,
        validation_s=division.validation_s,
        epoch_steps=division.steps,
    )
    each_s = division.validation_s / planned
    trainer = train(
        pacer,
        clock,
        lambda step: actual * step_s,
        epoch_steps=division.steps,
        validation_s=each_s,
    )
    return pacer, trainer, each_s


EXPENSIVE = [(0.3, 20, 90, 40), (0.15, 30, 130, 60), (0.5, 8, 40, 40), (0.15, 120, 450, 100)]
"""Seconds of a step, of the validation of two cases, of the training and of the evaluation."""

USUAL = [(0.2, 0.3, 140, 20), (0.5, 2.0, 560, 30), (0.05, 0.5, 40, 10), (1.0, 15.0, 3400, 100)]


@pytest.mark.parametrize("times", EXPENSIVE + USUAL)
@pytest.mark.parametrize("planned", [0.05, 0.25, 0.5, 1.0, 2.0])
def test_training_uses_its_time_whatever_validation_takes(times, planned):
    pacer, trainer, each_s = simulate(*times, planned=planned)
    step_s, _, budget_s, _ = times
    assert pacer.used_s <= budget_s + each_s + step_s
    # A validation is needed; if the plan expects a longer one, time is left for it.
    fit = (budget_s - max(planned, 1.0) * each_s) / step_s
    assert trainer.global_step >= 0.9 * fit
    assert pacer.schedule.total_steps == pytest.approx(trainer.global_step, abs=1)
    assert pacer.schedule.factor(trainer.global_step) < 0.01


@pytest.mark.parametrize("times", EXPENSIVE + USUAL)
@pytest.mark.parametrize("actual", [1.5, 4.0])
def test_training_keeps_its_time_if_steps_are_slow(times, actual):
    pacer, trainer, each_s = simulate(*times, actual=actual)
    step_s, _, budget_s, evaluation_s = times
    # The steps alone are compared with the plan: a long validation is no sign of a slow machine.
    kept_s = min((actual - 1) * evaluation_s, 0.5 * budget_s)
    assert pacer.used_s <= budget_s - kept_s + each_s + actual * step_s
    assert trainer.global_step * actual * step_s >= 0.9 * (budget_s - 1.1 * kept_s - each_s)
    assert pacer.schedule.factor(trainer.global_step) < 0.01


@pytest.mark.parametrize("times", EXPENSIVE)
def test_pacer_finishes_the_steps_of_a_plan_that_validates_too_often(times):
    # Three epochs, as if validation took the usual share; nothing is known of it at first.
    step_s, validation_s, budget_s, evaluation_s = times
    epoch_steps = round(0.94 * budget_s / (1.06 * step_s) / 3)
    clock, schedule = FakeClock(), schedule_of(3 * epoch_steps)
    pacer = Pacer(schedule, budget_s, clock, evaluation_s=evaluation_s)
    trainer = train(
        pacer,
        clock,
        lambda step: step_s,
        epoch_steps=epoch_steps,
        validation_s=validation_s,
    )
    assert trainer.global_step >= 0.9 * (budget_s - validation_s) / step_s
    assert budget_s - 2 * step_s <= pacer.used_s <= budget_s + step_s
    assert trainer.validated == [epoch_steps]
    assert schedule.factor(trainer.global_step) < 0.01


def test_trial_always_ends_with_a_validation():
    # No evaluation follows, so the last validation is made although it takes 8 of 50 s.
    clock, schedule = FakeClock(), schedule_of(90)
    pacer = Pacer(schedule, 100.0, clock)
    trainer = train(pacer, clock, lambda step: 1.0, epoch_steps=42, validation_s=8.0)
    assert trainer.validated == [42, trainer.global_step]
    assert 98.0 <= pacer.used_s <= 101.0


def test_pacer_leaves_out_validations_that_would_take_more_than_their_share():
    # Epochs of 8 s, each with a validation of 2 s: one follows at least 18 s of steps.
    clock, schedule = FakeClock(), schedule_of(80)
    pacer = Pacer(schedule, 100.0, clock, evaluation_s=10.0)
    trainer = train(pacer, clock, lambda step: 1.0, epoch_steps=8, validation_s=2.0)
    *earlier, last = trainer.validated
    assert earlier == [8, 32, 56]
    assert last == trainer.global_step == 92
    assert pacer.used_s == 100.0


def test_pacer_validates_after_an_interrupt():
    clock, schedule = FakeClock(), schedule_of(240)
    pacer, trainer = Pacer(schedule, 90.0, clock, evaluation_s=10.0), FakeTrainer()
    train(pacer, clock, lambda step: 0.3, epoch_steps=80, validation_s=20.0, trainer=trainer)
    assert trainer.validated == [80]
    trainer.should_stop = True
    trainer.global_step += 1
    pacer.on_train_batch_end(trainer, None, None, None, 0)
    assert trainer.check_val_every_n_epoch == 1


def test_pacer_keeps_its_decision_about_validations_after_an_interruption():
    clock, schedule = FakeClock(), schedule_of(240)
    first = Pacer(schedule, 90.0, clock, evaluation_s=10.0)
    times = {"epoch_steps": 80, "validation_s": 20.0}
    trainer = train(first, clock, lambda step: 0.3, until=160, **times)
    second = Pacer(schedule_of(240), 90.0 - first.used_s, clock, evaluation_s=10.0)
    second.load_state_dict(first.state_dict())
    train(second, clock, lambda step: 0.3, trainer=trainer, **times)
    assert trainer.validated == []
    assert trainer.global_step == pytest.approx(70 / 0.3, abs=2)
