"""The time limit of a training that runs out of memory or is resumed, on a clock of the tests."""

from dataclasses import replace

import pytest
import torch

import ushape
from fakes import FakeClock, FakeTrainer
from ushape.api import train as module
from ushape.api._processes import Team
from ushape.console import Console
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning.recipe import TrainConfig
from ushape.planning.run import Run
from ushape.training.optimizers import Schedule
from ushape.training.pacer import Pacer
from ushape.training.trainer import FitResult

TINY = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.batch_size=8"]

MINUTE = 60.0
STEP_S, EPOCH_STEPS = 10.0, 6


class CommandClock:
    """Clock of a command that begins now."""

    def __init__(self, clock):
        self._clock, self._began = clock, clock.now

    @property
    def elapsed_s(self):
        return self._clock.now - self._began


class Killed(Exception):
    """The process was killed."""


class TimedTraining:
    """Makes steps of 10 s in epochs of a minute, until the pacer ends them or an event occurs.

    Args:
        events: Time and exception of each event.
    """

    def __init__(self, clock):
        self.clock, self.events, self.checkpoints = clock, [], {}

    def __call__(self, plan, run, initial, budget_s, resume=True):
        pacer = Pacer(Schedule(TrainConfig(schedule="cosine"), 1000), budget_s, self.clock)
        trainer, rows = FakeTrainer(), []
        if resume and run.folder in self.checkpoints:
            state, trainer.global_step, rows = self.checkpoints[run.folder]
            pacer.load_state_dict(state)
        pacer.on_train_start(trainer, None)
        began = self.clock.now
        while not trainer.should_stop:
            self.clock.now += STEP_S
            if self.events and self.clock.now >= self.events[0][0]:
                raise self.events.pop(0)[1]
            trainer.global_step += 1
            pacer.on_train_batch_end(trainer, None, None, None, 0)
            if trainer.should_stop or trainer.global_step % EPOCH_STEPS == 0:
                pacer.on_train_epoch_end(trainer, None)
                rows = [*rows, f"{trainer.global_step},{self.clock.now - began}\n"]
                began = self.clock.now
                run.metrics_path.write_text("step,seconds\n" + "".join(rows))
                facts = {"epoch": len(rows), "validation_dice": 0.5}
                run.save_weights({"a": torch.zeros(1)}, facts)
                self.checkpoints[run.folder] = pacer.state_dict(), trainer.global_step, rows
        return FitResult(
            best_dice=0.5,
            best_epoch=1,
            epochs=len(rows),
            was_interrupted=False,
            foreground_patches=1.0,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder / "cells", 6, SyntheticConfig(size=48, groups=6), seed=0)
    return folder


def in_an_hour(plan):
    """Return a plan with a limit of 60 minutes, of which the evaluation takes 3."""
    train = replace(plan.recipe.train, minutes=60.0)
    return replace(plan, recipe=replace(plan.recipe, train=train), evaluation_s=3 * MINUTE)


@pytest.fixture(scope="module")
def plan(folder):
    return in_an_hour(ushape.plan(folder / "cells", epochs=1, settings=TINY, quiet=True))


@pytest.fixture(scope="module")
def plan_with_trials(folder):
    """Plan of a training that starts from other weights if a trial shows that they are better."""
    settings = [*TINY, "train.steps_per_epoch=1"]
    ushape.train(folder / "cells", output=folder / "run", epochs=1, settings=settings, quiet=True)
    given = {"start_from": folder / "run", "settings": TINY[2:]}
    return in_an_hour(ushape.plan(folder / "cells", epochs=32, quiet=True, **given))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Trains in a run as a command does, and returns the minutes that this has taken."""
    clock, run = FakeClock(), Run.create(tmp_path / "run")
    training = TimedTraining(clock)
    monkeypatch.setattr(module, "_open", lambda *_: (training, None))

    def start(plan, *, planning=2.0, events=(), resume=False):
        own = CommandClock(clock)
        began = clock.now
        clock.now += planning * MINUTE
        training.events = [(began + at * MINUTE, error) for at, error in events]
        try:
            used = module._fit(run, plan, [], [], Team(1), own, Console(quiet=True), resume=resume)
            assert used[1].recipe.train.batch_size == 8 // 2 ** len(events)
        except Killed:
            pass
        assert not training.events
        return (clock.now - began) / MINUTE

    return start


@pytest.mark.parametrize(
    "failures",
    [
        pytest.param([], id="never"),
        pytest.param([25.0], id="in the middle"),
        pytest.param([2.5], id="before the first checkpoint"),
        pytest.param([45.0], id="when less time is left than was used"),
        pytest.param([20.5, 40.9], id="twice"),
    ],
)
def test_training_that_ran_out_of_memory_uses_the_whole_time_and_no_more(plan, command, failures):
    taken = command(plan, events=[(at, MemoryError()) for at in failures])
    assert taken == pytest.approx(57.0, abs=0.5)


@pytest.mark.parametrize("failures", [[], [10.5], [1.5], [5.0, 30.0]])
def test_resumed_training_has_the_time_that_is_left(plan, command, failures):
    # Two minutes of planning, and 20 epochs.
    assert command(plan, events=[(22.05, Killed())]) == pytest.approx(22.0, abs=0.5)
    failures = [(at, MemoryError()) for at in failures]
    taken = command(plan, planning=1.0, events=failures, resume=True)
    assert taken == pytest.approx(57.0 - 20.0, abs=0.5)


@pytest.mark.parametrize(
    "failures",
    [
        pytest.param([], id="never"),
        pytest.param([30.0], id="after the trials"),
        pytest.param([5.0], id="in the first trial"),
        pytest.param([10.0], id="in the second trial"),
        pytest.param([5.0, 10.0, 30.0], id="always"),
    ],
)
def test_trials_and_training_share_the_time_if_memory_runs_out(plan_with_trials, command, failures):
    taken = command(plan_with_trials, events=[(at, MemoryError()) for at in failures])
    assert taken == pytest.approx(57.0, abs=0.5)


@pytest.mark.parametrize("killed", [5.05, 10.05, 30.05])
def test_resumed_training_counts_the_time_of_its_trials(plan_with_trials, command, killed):
    command(plan_with_trials, planning=0.0, events=[(killed, Killed())])
    failures = [(20.0, MemoryError())]
    taken = command(plan_with_trials, planning=0.0, events=failures, resume=True)
    assert killed + taken == pytest.approx(57.0, abs=1.2)
