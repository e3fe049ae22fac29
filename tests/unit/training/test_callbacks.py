"""Callbacks of the trainer on a clock that the tests set, so that no test depends on speed."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ushape
from fakes import FakeClock, FakeTrainer
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning.run import Run
from ushape.training.callbacks import EpochLog, KeepBest, ThreadsBeside, draw_small
from ushape.training.module import SegmentationModule


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    data = tmp_path_factory.mktemp("data") / "cells"
    write_data_set(data, 6, SyntheticConfig(size=48, groups=6), seed=0)
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.precision=fp32"]
    return ushape.plan(data, epochs=2, settings=settings)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


def validate(callback, module, trainer, dice, ap=None, loss=0.0):
    """One epoch whose weights are all equal to its Dice, or 0.5 if there is none."""
    for parameter in module.averaged.module.parameters():
        parameter.data.fill_(0.5 if dice is None else dice)
    module.validation_dice, module.validation_ap, module.validation_loss = dice, ap, loss
    callback.on_validation_end(trainer, module)
    trainer.current_epoch += 1


def weight_in(path):
    import safetensors.torch

    return next(iter(safetensors.torch.load_file(path).values())).flatten()[0].item()


def test_keep_best_saves_the_weights_of_the_best_epoch(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    for dice in (0.5, 0.75, 0.625, 0.25):
        validate(best, module, trainer, dice)
    assert (best.best_dice, best.best_epoch) == (0.75, 2)
    assert weight_in(run.weights_path) == 0.75
    assert run.weight_facts() == {"epoch": 2, "validation_dice": 0.75}
    assert not run.epoch_weights_path(1).exists()


def test_keep_best_prefers_objects_to_dice_and_dice_among_equals(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    for dice, ap in ((0.5, 0.0), (0.625, 0.0), (0.75, 0.25), (0.875, 0.125)):
        validate(best, module, trainer, dice, ap)
    assert (best.best_dice, best.best_ap, best.best_epoch) == (0.75, 0.25, 3)
    facts = {"epoch": 3, "validation_dice": 0.75, "validation_ap": 0.25}
    assert run.weight_facts() == facts
    again = KeepBest(run)
    again.load_state_dict(best.state_dict())
    validate(again, module, trainer, 0.9, 0.2)
    assert weight_in(run.weights_path) == 0.75


def test_keep_best_continues_from_a_checkpoint_that_lacks_the_objects(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    best.load_state_dict({"best_dice": 0.5, "best_epoch": 2})
    validate(best, module, trainer, 0.25, 0.9)
    assert best.best_epoch == 2
    validate(best, module, trainer, 0.75, 0.1)
    assert (best.best_epoch, best.best_ap) == (2, 0.1)


def test_keep_best_saves_the_first_epoch_even_without_any_overlap(plan, run):
    validate(KeepBest(run), SegmentationModule(plan, [], []), FakeTrainer(), 0.0)
    assert run.weight_facts()["epoch"] == 1


@pytest.mark.parametrize("dice", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("ap", [None, 0.0])
@pytest.mark.parametrize(
    ("losses", "expected"), [([0.5, 0.25, 0.75], 2), ([0.5, 0.5, 0.5], 3), ([0.25, 0.5, 0.75], 1)]
)
def test_keep_best_decides_between_equal_scores_by_the_loss(plan, run, dice, ap, losses, expected):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    for loss in losses:
        validate(best, module, trainer, dice, ap, loss)
    assert best.best_epoch == run.weight_facts()["epoch"] == expected
    resumed, again = KeepBest(run), FakeTrainer()
    for loss in losses:
        validate(resumed, module, again, dice, ap, loss)
        state, resumed = resumed.state_dict(), KeepBest(run)
        resumed.load_state_dict(state)
    assert resumed.best_epoch == run.weight_facts()["epoch"] == expected


def test_keep_best_prefers_a_better_score_to_a_lower_loss(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    validate(best, module, trainer, 0.75, loss=0.5)
    validate(best, module, trainer, 0.5, loss=0.25)
    assert best.best_epoch == 1


def test_keep_best_takes_a_later_equal_epoch_if_the_checkpoint_lacks_the_loss(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    best.load_state_dict({"best_dice": 0.0, "best_epoch": 1})
    trainer.current_epoch = 4
    validate(best, module, trainer, 0.0, loss=0.5)
    assert best.best_epoch == 5


def test_keep_best_keeps_the_last_epoch_without_validation_foreground(plan, run):
    """The loss is the lowest if nothing is predicted, so it must not decide either."""
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    for loss in (0.25, 0.5, 0.75):
        validate(best, module, trainer, None, loss=loss)
        state, best = best.state_dict(), KeepBest(run)
        best.load_state_dict(state)
    assert (best.best_dice, best.best_epoch) == (None, 3)
    assert run.weight_facts() == {"epoch": 3, "validation_dice": None}


def test_keep_best_continues_from_its_state(plan, run):
    module, trainer, first = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    validate(first, module, trainer, 0.5)
    second = KeepBest(run)
    second.load_state_dict(first.state_dict())
    validate(second, module, trainer, 0.25)
    assert weight_in(run.weights_path) == 0.5


def test_keep_best_saves_every_epoch_if_asked_and_only_in_the_first_process(plan, run):
    train_config = replace(plan.recipe.train, save_every_epoch=True)
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

    module.validation_ap = 0.25  # A row of this version after those of an older one.
    log.on_train_epoch_end(trainer, module)
    with run.metrics_path.open(newline="") as file:
        assert [row["validation_ap"] for row in csv.DictReader(file)] == ["", "", "0.25"]


def test_epoch_log_continues_from_its_state_and_writes_in_the_first_process_only(plan, run):
    module, seen = SegmentationModule(plan, [], []), []
    log = EpochLog(run, seen.append, FakeClock())
    log.load_state_dict({"rows": [{"epoch": 1}]})
    trainer = FakeTrainer(current_epoch=1, is_global_zero=False)
    log.on_train_epoch_start(trainer, module)
    log.on_train_epoch_end(trainer, module)
    assert [row["epoch"] for row in log.state_dict()["rows"]] == [1, 2]
    assert not run.metrics_path.exists()


def test_threads_follow_the_load_of_the_processor():
    before = torch.get_num_threads()
    free = iter([1.0, 4.0])
    callback = ThreadsBeside(4, SimpleNamespace(free_cores=lambda: next(free)))
    callback.on_train_epoch_end(None, None)
    try:
        assert torch.get_num_threads() == 1
        callback.on_train_epoch_end(None, None)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_validation_pictures_of_large_images_show_every_third_pixel():
    truth = np.zeros((1200, 800), np.uint8)
    truth[:600] = 1
    image = np.arange(truth.size, dtype=np.float32).reshape(1, *truth.shape)
    large = draw_small(image, truth, truth)
    assert large.shape == (400, 267, 3)
    assert (draw_small(image[:, ::3, ::3], truth[::3, ::3], truth[::3, ::3]) == large).all()
    volume = truth[None, :300, :200].repeat(4, axis=0)
    assert draw_small(volume[None], volume, volume).shape == (300, 200, 3)


def end_epoch(callback, module, trainer):
    """End an epoch without a validation."""
    module.is_validated = False
    callback.on_train_epoch_end(trainer, module)
    trainer.current_epoch += 1


def test_keep_best_keeps_the_last_weights_if_there_was_no_time_to_validate_them(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    validate(best, module, trainer, 0.75)
    for parameter in module.averaged.module.parameters():
        parameter.data.fill_(0.25)
    end_epoch(best, module, trainer)
    assert weight_in(run.weights_path) == 0.75  # The training goes on.
    # It is killed after its last epoch and resumed.
    again = KeepBest(run)
    again.load_state_dict(best.state_dict())
    again.on_train_end(trainer, module)
    assert weight_in(run.weights_path) == 0.25
    assert run.weight_facts() == {"epoch": 2}
    assert (again.best_epoch, again.is_validated) == (2, False)


def test_keep_best_does_not_replace_validated_weights_at_the_end(plan, run):
    module, trainer, best = SegmentationModule(plan, [], []), FakeTrainer(), KeepBest(run)
    validate(best, module, trainer, 0.75)
    end_epoch(best, module, trainer)
    module.is_validated = True
    validate(best, module, trainer, 0.5)
    trainer.current_epoch -= 1
    best.on_train_epoch_end(trainer, module)
    best.on_train_end(trainer, module)
    assert weight_in(run.weights_path) == 0.75


def test_keep_best_keeps_validated_weights_after_an_interrupt(plan, run):
    module, trainer = SegmentationModule(plan, [], []), FakeTrainer()
    best = KeepBest(run, lambda: True)
    validate(best, module, trainer, 0.75)
    end_epoch(best, module, trainer)
    best.on_train_end(trainer, module)
    assert weight_in(run.weights_path) == 0.75
    assert (best.best_dice, best.is_validated) == (0.75, True)


def test_keep_best_saves_epochs_without_a_validation_if_asked(plan, run):
    train_config = replace(plan.recipe.train, save_every_epoch=True)
    kept = replace(plan, recipe=replace(plan.recipe, train=train_config))
    module, trainer, best = SegmentationModule(kept, [], []), FakeTrainer(), KeepBest(run)
    validate(best, module, trainer, 0.75)
    end_epoch(best, module, trainer)
    assert weight_in(run.epoch_weights_path(2)) == 0.75


def test_epoch_log_leaves_the_values_of_a_missing_validation_empty(plan, run):
    seen, module, trainer = [], SegmentationModule(plan, [], []), FakeTrainer(global_step=7)
    log = EpochLog(run, seen.append, FakeClock())
    for is_validated in (True, False):
        log.on_train_epoch_start(trainer, module)
        module.validation_dice, module.is_validated = 0.5, is_validated
        log.on_train_epoch_end(trainer, module)
    with run.metrics_path.open(newline="") as file:
        dice = [row["validation_dice"] for row in csv.DictReader(file)]
    assert dice == ["0.5", ""]
    assert seen[1]["validation_dice"] is seen[1]["validation_loss"] is None
