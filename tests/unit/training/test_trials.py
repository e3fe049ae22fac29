"""Trials before a training that starts from other weights, with trainings that are made up."""

import shutil
from dataclasses import replace

import pytest
import torch

import ushape
from codes import raises_code
from fakes import FakeClock, FakeTrainer
from ushape import config
from ushape.console import Console
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import RunError
from ushape.io.files import write_sealed_json
from ushape.planning.run import Run
from ushape.planning.start_decision import TRIAL_SHARE
from ushape.training.optimizers import Schedule
from ushape.training.pacer import pacer_of
from ushape.training.trainer import FitResult
from ushape.training.trials import decide_start, plan_trial, trained_s, weights_after_trials

QUIET = Console(quiet=True)
TINY = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.steps_per_epoch=10"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Plan of 32 epochs of 10 steps, from weights in a file."""
    base = tmp_path_factory.mktemp("base")
    write_data_set(base / "cells", 6, SyntheticConfig(size=48, groups=6), seed=0)
    ushape.train(base / "cells", output=base / "run", epochs=1, settings=TINY, quiet=True)
    return ushape.plan(
        base / "cells", start_from=base / "run", epochs=32, settings=TINY[1:], quiet=True
    )


class FakeTraining:
    """Stores weights, a validation Dice and a precision of objects, in the order of the calls."""

    def __init__(self, dice, interrupt_at=None, ap=()):
        self.dice, self.interrupt_at, self.ap = list(dice), interrupt_at, ap
        self.calls = []

    def __call__(self, plan, run, initial, budget_s, resume=True):
        self.calls.append((run.folder.name, initial, budget_s))
        dice = self.dice[len(self.calls) - 1]
        objects = {"validation_ap": self.ap[len(self.calls) - 1]} if self.ap else {}
        facts = {"epoch": 1, "validation_dice": dice, **objects}
        run.save_weights({"a": torch.tensor([dice])}, facts)
        run.metrics_path.write_text(f"epoch,step,seconds\n1,{40},2.5\n")
        return FitResult(
            best_dice=dice,
            best_epoch=1,
            epochs=1,
            was_interrupted=len(self.calls) == self.interrupt_at,
            foreground_patches=1.0,
        )


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


@pytest.mark.parametrize(("dice", "taken"), [((0.75, 0.5), "loaded"), ((0.25, 0.5), "usual")])
def test_decide_start_takes_the_better_trial_and_keeps_its_weights_only(plan, run, dice, taken):
    train = FakeTraining(dice)
    decision = decide_start(plan, run, train, 100.0, QUIET)
    assert decision.taken == taken
    assert (decision.loaded_steps, decision.seconds) == (40, 5.0)
    assert [name for name, _, _ in train.calls] == ["loaded", "usual"]
    assert train.calls[0][1] is not None
    assert train.calls[1][1] is None
    assert weights_after_trials(run, decision)["a"].item() == max(dice)
    kept = {path.relative_to(run.folder / "start").as_posix() for path in files_in(run)}
    assert {name for name in kept if "safetensors" in name} == {f"{taken}/model.safetensors"}


def test_decide_start_compares_objects_that_are_learned(plan, run):
    decision = decide_start(plan, run, FakeTraining([0.75, 0.5], ap=[0.2, 0.3]), None, QUIET)
    assert (decision.loaded_ap, decision.usual_ap, decision.taken) == (0.2, 0.3, "usual")
    assert decide_start(plan, run, FakeTraining([]), None, QUIET) == decision


def files_in(run):
    return [path for path in (run.folder / "start").rglob("*") if path.is_file()]


def test_decide_start_is_final(plan, run):
    decision = decide_start(plan, run, FakeTraining([0.75, 0.5]), None, QUIET)
    assert decide_start(plan, run, FakeTraining([]), None, QUIET) == decision


def test_a_trial_that_has_ended_is_not_repeated(plan, run):
    class Killed(Exception):
        pass

    def die(plan, folder, initial, budget_s):
        if folder.folder.name == "usual":
            raise Killed
        return first(plan, folder, initial, budget_s)

    first = FakeTraining([0.75])
    with pytest.raises(Killed):
        decide_start(plan, run, die, None, QUIET)
    second = FakeTraining([0.5])
    assert decide_start(plan, run, second, None, QUIET).loaded_dice == 0.75
    assert [name for name, _, _ in second.calls] == ["usual"]


def test_trials_of_an_earlier_version_are_continued(plan, run):
    decision = decide_start(plan, run, FakeTraining([0.25, 0.5]), None, QUIET)
    start = run.folder / "start"
    (start / "usual").rename(start / "random")
    # A run that was interrupted during the training itself.
    older = {"usual_dice": "random_dice", "usual_steps": "random_steps"}
    values = {older.get(key, key): value for key, value in config.to_dict(decision).items()}
    write_sealed_json(run.start_decision_path, values)
    decision = decide_start(plan, run, FakeTraining([]), None, QUIET)
    assert decision.taken == "usual"
    assert weights_after_trials(run, decision)["a"].item() == 0.5


def test_trial_of_an_earlier_version_is_not_repeated(plan, run):
    start = run.folder / "start"
    train = FakeTraining([0.5])
    older = Run.create(start / "random")
    train(plan, older, None, None)
    older.note_end(plan_trial(plan))
    again = FakeTraining([0.75])
    assert decide_start(plan, run, again, None, QUIET).usual_dice == 0.5
    assert [name for name, _, _ in again.calls] == ["loaded"]


def test_an_interrupted_trial_begins_again(plan, run):
    with pytest.raises(KeyboardInterrupt):
        decide_start(plan, run, FakeTraining([0.75], interrupt_at=1), None, QUIET)
    assert not (run.folder / "start" / "loaded").exists()
    again = FakeTraining([0.75, 0.5])
    assert decide_start(plan, run, again, None, QUIET).taken == "loaded"
    assert len(again.calls) == 2


def test_trials_need_the_source_only_once(plan, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        decide_start(plan, run, FakeTraining([0.75], interrupt_at=1), None, QUIET)
    hidden = tmp_path / "hidden"
    shutil.move(plan.start.path, hidden)
    try:
        assert decide_start(plan, run, FakeTraining([0.75, 0.5]), None, QUIET).taken == "loaded"
    finally:
        shutil.move(hidden, plan.start.path)


def test_errors_of_a_trial_name_the_run(plan, run):
    def fail(plan, folder, initial, budget_s):
        raise RunError(
            "Full.", code="run_not_written", hint="Free it.", continuation=folder.continuation
        )

    with raises_code(RunError, "run_not_written") as caught:
        decide_start(plan, run, fail, None, QUIET)
    assert caught.value.hint == f"Free it. {run.continuation}"
    assert caught.value.hint.endswith(f"ushape resume {run.folder}")


def test_errors_of_a_trial_that_cannot_be_continued_stay_as_they_are(plan, run):
    def fail(plan, folder, initial, budget_s):
        raise RunError("The loss became nan.", code="loss_not_finite", hint="Lower the rate.")

    with raises_code(RunError, "loss_not_finite") as caught:
        decide_start(plan, run, fail, None, QUIET)
    assert caught.value.hint == "Lower the rate."


def test_trials_and_training_share_the_time(plan, run):
    train = FakeTraining([0.75, 0.5])
    decide_start(plan, run, train, 100.0, QUIET)
    # Each trial has an eighth of the training: 10 + 10 + 80 s.
    assert TRIAL_SHARE == 0.125
    assert [budget_s for _, _, budget_s in train.calls] == [10.0, 10.0]


def test_trial_that_was_killed_goes_on_in_the_time_that_it_has_left(plan, run):
    trial = Run.create(run.folder / "start" / "loaded")
    trial.metrics_path.write_text("epoch,step,seconds\n1,10,2.5\n2,20,1.5\n")
    train = FakeTraining([0.75, 0.5])
    decide_start(plan, run, train, 100.0, QUIET)
    assert [budget_s for _, _, budget_s in train.calls] == [6.0, 10.0]


def test_trained_s_counts_the_training_and_its_trials(plan, run):
    assert trained_s(run) == 0.0
    FakeTraining([0.5])(plan, Run.create(run.folder / "start" / "loaded"), None, None)
    assert trained_s(run) == 2.5
    decide_start(plan, run, FakeTraining([0.75, 0.5]), None, QUIET)
    assert trained_s(run) == 5.0
    FakeTraining([0.5])(plan, run, None, None)
    assert trained_s(run) == 7.5
    run.metrics_path.write_bytes(b"epoch,seconds\n1,\xff\n")
    assert trained_s(run) == 5.0


def test_plan_trial_has_an_eighth_of_the_steps_and_other_patches(plan):
    trial = plan_trial(plan).recipe
    # 32 epochs of 10 steps: 40 steps in 4 epochs.
    assert (trial.train.epochs, trial.train.steps_per_epoch) == (4, 10)
    assert trial.seed == plan.recipe.seed + 1
    assert trial.network == plan.recipe.network


def test_slow_trial_uses_its_whole_time_because_no_evaluation_follows(plan):
    # 40 steps are planned for 40 s, but each takes 2 s. The evaluation of the run takes 40 s.
    trial, clock = plan_trial(replace(plan, evaluation_s=40.0)), FakeClock()
    train = trial.recipe.train
    schedule = Schedule(train, train.epochs * train.steps_per_epoch)
    pacer, trainer = pacer_of(trial, schedule, 40.0, clock), FakeTrainer()
    pacer.on_train_start(trainer, None)
    while not trainer.should_stop:
        clock.now += 2.0
        trainer.global_step += 1
        pacer.on_train_batch_end(trainer, None, None, None, 0)
    assert trainer.global_step in (19, 20)
