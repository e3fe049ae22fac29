"""Trials in 2D, 2.5D and 3D, and predictions slice by slice, on small volumes."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import ushape
from codes import raises_code
from ushape.api import _compare_slices
from ushape.api._compare_slices import compare_slices
from ushape.api.plan import TrainOptions, plan_data
from ushape.console import Clock, Console
from ushape.errors import DataError
from ushape.planning.rules.slices import COMPARED
from ushape.planning.run import Run
from ushape.training.trainer import FitResult

TINY = [
    "network.widths=[4,8]",
    "train.steps_per_epoch=2",
    "train.batch_size=2",
    "predict.tta=none",
]
AFFINE = np.array([[-1, 0, 0, 5], [0, 1.5, 0, 6], [0, 0, 8, 7], [0, 0, 0, 1]], float)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Six volumes of 7 slices, with a bright ball."""
    base = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    for number in range(6):
        x, y, z = np.mgrid[:20, :24, :7]
        ball = (x - 10) ** 2 + (y - 8 - number) ** 2 + (4 * (z - 3)) ** 2 < 64
        image = (rng.normal(50, 5, ball.shape) + 60 * ball).astype(np.float32)
        for folder, array in (("images", image), ("masks", ball.astype(np.uint8))):
            (base / folder).mkdir(exist_ok=True)
            path = base / folder / f"p{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return base


@pytest.fixture(scope="module", params=[1, 3])
def trained(request, volumes, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    settings = [*TINY, f"preprocessing.slices={request.param}"]
    ushape.train(volumes, output=run, epochs=1, settings=settings, quiet=True)
    return run


def test_a_network_in_2d_predicts_volumes_on_their_grid(volumes, trained, tmp_path):
    plan = Run(trained).load_plan()
    assert (plan.recipe.network.dims, plan.image_dims) == (2, 3)
    assert len(plan.patch_shape) == 2
    ids = {line.split(",")[0] for line in (trained / "scores.csv").read_text().splitlines()[1:]}
    assert ids  # One row for each volume and class, not for each slice.
    assert all(path.stem in "p0 p1 p2 p3 p4 p5" for path in map(Path, ids))
    paths = ushape.predict(trained, volumes / "images", output=tmp_path / "out", quiet=True)
    assert len(paths) == 6
    for path in paths:
        image = nibabel.load(volumes / "images" / path.name)
        mask = nibabel.load(path)
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine)


def test_a_network_in_2d_refuses_a_single_slice(trained):
    model = ushape.load(trained)
    assert model.predict(np.zeros((7, 24, 20), np.float32)).mask.shape == (7, 24, 20)
    with raises_code(DataError, "array_shape_mismatch"):
        model.predict(np.zeros((24, 20), np.float32))


class FakeTraining:
    """Stores made-up scores, and notes what it was asked for."""

    def __init__(self, dice, interrupts=False):
        self.dice, self.interrupts, self.calls = dict(dice), interrupts, []

    def open(self, plan, training, validation, console):
        assert training
        assert validation
        return self.train, None

    def train(self, plan, run, initial, budget_s, resume=True):
        slices = plan.preprocessing.config.slices
        self.calls.append((slices, budget_s, plan.recipe.network.dims, plan.recipe.train.epochs))
        run.save_weights({"a": torch.zeros(1)}, {"epoch": 1, "validation_dice": self.dice[slices]})
        return FitResult(
            best_dice=0.5,
            best_epoch=1,
            epochs=1,
            was_interrupted=self.interrupts,
            foreground_patches=1.0,
        )


@pytest.fixture
def compare(volumes, tmp_path, monkeypatch):
    """Compares with made-up trainings, for plans of 16 epochs in 600 s; returns plan and run."""
    quiet = Console(quiet=True)

    def plan(slices):
        settings = [*TINY, f"preprocessing.slices={json.dumps(slices)}"]
        options = TrainOptions.resolve(recipe="auto", epochs=16, settings=settings, data=volumes)
        found, planned = plan_data(volumes, None, options, "cpu", Clock(), quiet)
        train = replace(planned.plan.recipe.train, minutes=10)
        recipe = replace(planned.plan.recipe, train=train)
        timed = replace(planned.plan, recipe=recipe, evaluation_s=50)
        return found, replace(planned, plan=timed)

    def run(training, compared=COMPARED):
        monkeypatch.setattr(_compare_slices, "open_cases", training.open)
        monkeypatch.setattr(_compare_slices, "training_budget_s", lambda plan, elapsed_s: 550.0)
        found, planned = plan(None)
        planned = replace(planned, compared=compared)
        folder = Run.create(tmp_path / "run")
        return compare_slices(
            found, planned, lambda slices: plan(slices)[1], folder, Clock(), quiet
        ), folder

    return run


def test_compare_slices_takes_the_best_of_equal_trials(compare):
    training = FakeTraining({None: 0.5, 1: 0.6, 3: 0.7})
    planned, run = compare(training)
    # An eighth of the training that follows: 550 / (8 + 3) s.
    assert training.calls == [(None, 50, 3, 2), (1, 50, 2, 2), (3, 50, 2, 2)]
    assert planned.plan.recipe.preprocessing.slices == 3
    assert planned.plan.reasons[0] == planned.results[0].text
    assert "0.5000 in 3D, 0.6000 in 2D, 0.7000 in 2.5D with 3 slices" in planned.plan.reasons[0]
    assert not (run.folder / "trials").exists()


def test_compare_slices_does_nothing_without_candidates(compare):
    training = FakeTraining({})
    planned, run = compare(training, compared=())
    assert training.calls == []
    assert planned.plan.recipe.preprocessing.slices is None
    assert not (run.folder / "trials").exists()


def test_compare_slices_ends_if_a_trial_is_interrupted(compare):
    with pytest.raises(KeyboardInterrupt):
        compare(FakeTraining({None: 0.5}, interrupts=True))
