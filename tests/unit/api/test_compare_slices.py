"""Trials in 2D, 2.5D and 3D, and predictions slice by slice, on small volumes."""

import json
import shutil
import subprocess
import sys
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
from ushape.api.plan import TrainOptions, plan_data, plan_scanned
from ushape.console import Clock, Console
from ushape.data.cache import SampleStore
from ushape.data.reading import read_classes
from ushape.errors import ConfigError, DataError, RunError
from ushape.inference.predictor import Predictor
from ushape.planning import planner
from ushape.planning.hardware import inspect_machine
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
    """Stores made-up scores, and notes what it was asked for.

    Args:
        fails: Raised by the trainings of these values of slices, once for each listed exception.
    """

    def __init__(self, dice, interrupts=False, fails=None):
        self.dice, self.interrupts, self.calls = dict(dice), interrupts, []
        self.fails = {slices: list(errors) for slices, errors in (fails or {}).items()}

    def open(self, plan, training, validation, console):
        assert training
        assert validation
        return self.train, None

    def train(self, plan, run, initial, budget_s, resume=True):
        slices, train = plan.preprocessing.config.slices, plan.recipe.train
        self.calls.append((slices, budget_s, plan.recipe.network.dims, train.epochs))
        self.batch_size, self.folder = train.batch_size, run.folder
        if self.fails.get(slices):
            raise self.fails[slices].pop(0)
        run.save_weights({"a": torch.zeros(1)}, {"epoch": 1, "validation_dice": self.dice[slices]})
        return FitResult(
            best_dice=0.5,
            best_epoch=1,
            epochs=1,
            was_interrupted=self.interrupts,
            foreground_patches=1.0,
        )

    def score(self, plan, trial, validation, store, console):
        assert trial.load_plan() == plan
        return trial.weight_facts()["validation_dice"], None


@pytest.fixture
def compare(volumes, tmp_path, monkeypatch):
    """Compares with made-up trainings, for plans of 16 epochs in 600 s; returns plan and run."""
    quiet = Console(quiet=True)

    def plan(slices, *more):
        settings = [*TINY, f"preprocessing.slices={json.dumps(slices)}", *more]
        options = TrainOptions.resolve(recipe="auto", epochs=16, settings=settings, data=volumes)
        found, planned = plan_data(volumes, None, options, inspect_machine("cpu"), Clock(), quiet)
        train = replace(planned.plan.recipe.train, minutes=10)
        recipe = replace(planned.plan.recipe, train=train)
        timed = replace(planned.plan, recipe=recipe, evaluation_s=50)
        return found, replace(planned, plan=timed)

    def run(training, compared=COMPARED, replanned=None, settings=()):
        monkeypatch.setattr(_compare_slices, "open_cases", training.open)
        monkeypatch.setattr(_compare_slices, "_score", training.score)
        monkeypatch.setattr(_compare_slices, "training_budget_s", lambda plan, elapsed_s: 550.0)
        found, planned = plan(None, *settings)
        planned = replace(planned, compared=compared)
        folder = Run.create(tmp_path / "run")

        def replan(slices, measured):
            found = plan(slices, *settings)[1]
            if replanned is not None:
                replanned.append((slices, measured is planned.measured))
            return found

        return compare_slices(found, planned, replan, folder, Clock(), quiet), folder

    return run


def test_compare_slices_takes_the_best_of_equal_trials(compare):
    training = FakeTraining({None: 0.5, 1: 0.6, 3: 0.7})
    replanned = []
    planned, run = compare(training, replanned=replanned)
    # An eighth of the training that follows: 550 / (8 + 3) s.
    assert training.calls == [(None, 50, 3, 2), (1, 50, 2, 2), (3, 50, 2, 2)]
    assert planned.plan.recipe.preprocessing.slices == 3
    assert planned.plan.reasons[0] == planned.results[0].text
    assert "0.5000 in 3D, 0.6000 in 2D, 0.7000 in 2.5D with 3 slices" in planned.plan.reasons[0]
    assert list(run.folder.iterdir()) == []
    # The plan in 3D exists already; that of the best trial is made for the remaining time.
    assert [slices for slices, _ in replanned] == [1, 3, 3]


def test_final_plan_in_3d_measures_nothing_again(compare):
    replanned = []
    compare(FakeTraining({None: 0.9, 1: 0.6, 3: 0.7}), replanned=replanned)
    assert replanned == [(1, False), (3, False), (None, True)]


def test_compare_slices_does_nothing_without_candidates(compare):
    training = FakeTraining({})
    planned, run = compare(training, compared=())
    assert training.calls == []
    assert planned.plan.recipe.preprocessing.slices is None
    assert list(run.folder.iterdir()) == []


def test_compare_slices_ends_if_a_trial_is_interrupted(compare, tmp_path):
    with pytest.raises(KeyboardInterrupt) as interrupt:
        compare(FakeTraining({None: 0.5}, interrupts=True))
    assert "same command" in interrupt.value.__notes__[0]
    assert list((tmp_path / "run").iterdir()) == []


def test_trials_of_a_killed_process_do_not_prevent_a_repeated_command(compare, tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    trial = tmp_path / "run" / f".trials.{killed.pid}-1.part" / "3D"
    trial.mkdir(parents=True)
    (trial / "model.safetensors").write_bytes(b"weights")
    _, run = compare(FakeTraining({None: 0.5, 1: 0.6, 3: 0.7}))
    assert list(run.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("has_continuation", "ending"),
    [
        (True, "The trials were removed. Run the same command again to start over."),
        (False, "The trials were removed."),
    ],
)
def test_failed_trials_are_removed_and_nothing_suggests_to_resume_them(
    has_continuation, ending, compare, tmp_path
):
    training = FakeTraining({None: 0.5})

    def train(plan, run, initial, budget_s, resume=True):
        continuation = run.continuation if has_continuation else ""
        raise RunError(
            "full", code="run_not_written", hint="Free space.", continuation=continuation
        )

    training.train = train
    with raises_code(RunError, "run_not_written") as error:
        compare(training)
    assert list((tmp_path / "run").iterdir()) == []
    assert error.value.hint == f"Free space. {ending}"


def test_trial_that_needs_too_much_memory_goes_on_with_half_the_batch(compare):
    training = FakeTraining(
        {None: 0.5, 1: 0.6, 3: 0.7}, fails={3: [RuntimeError("CUDA out of memory")]}
    )
    planned, _ = compare(training)
    assert len(training.calls) == 4
    assert training.batch_size == 1
    assert planned.plan.recipe.preprocessing.slices == 3


def test_candidate_that_cannot_be_trained_is_left_out(compare, tmp_path):
    diverged = RunError("The loss became nan.", code="loss_not_finite", hint="Lower the rate.")
    training = FakeTraining({1: 0.6, 3: 0.7}, fails={None: [MemoryError()] * 2, 3: [diverged]})
    planned, _ = compare(training)  # Not even a batch of 1 fits in 3D.
    assert planned.plan.recipe.preprocessing.slices == 1
    assert "Validation Dice: 0.6000 in 2D (" in planned.plan.reasons[0]
    shutil.rmtree(tmp_path / "run")
    everywhere = FakeTraining({}, fails={slices: [diverged] for slices in COMPARED})
    with raises_code(RunError, "loss_not_finite"):
        compare(everywhere)
    assert list((tmp_path / "run").iterdir()) == []


def test_candidates_are_planned_before_the_first_trial(compare):
    training = FakeTraining({})
    with raises_code(ConfigError, "value_out_of_range") as error:
        compare(training, settings=["predict.mirror_axes=[-3,-1]"])
    assert training.calls == []
    assert "preprocessing.slices=null" in error.value.hint


def test_trials_are_scored_on_the_grid_of_the_files(volumes, tmp_path):
    run = Run(tmp_path / "run")
    settings = [*TINY, "predict.tune=false", "preprocessing.downscale=[1,4,4]"]
    ushape.train(volumes, output=run.folder, epochs=2, settings=settings, quiet=True)
    run.tuning_path.unlink()
    plan = run.load_plan()
    facts = [fact for fact in run.load_cases() if fact.case.id in run.load_splits().validation]
    cases = [fact.case for fact in facts]
    store = SampleStore(cases, plan.preprocessing, keep=False)
    dice, precision = _compare_slices._score(plan, run, facts, store, Console(quiet=True))
    found = []
    for case, prediction in Predictor.open(run.folder, "cpu").predict_many(cases):
        truth = read_classes(case, plan.preprocessing.space)
        assert truth.shape == (7, 24, 20) == prediction.classes.shape
        overlap = np.sum((truth == 1) & (prediction.classes == 1))
        found.append(2 * overlap / (np.sum(truth == 1) + np.sum(prediction.classes == 1)))
    assert dice == pytest.approx(np.mean(found), abs=0.02)  # Shares are rounded to 1/255.
    assert precision is None


def test_plan_says_that_slices_do_not_separate_objects_along_z(volumes):
    def reasons(slices):
        settings = [*TINY, f"preprocessing.slices={slices}", "labels.objects=distance"]
        plan = ushape.plan(volumes, epochs=1, settings=settings, device="cpu", quiet=True)
        return " ".join(plan.reasons)

    assert "within each slice" in reasons(3)
    assert "within each slice" not in reasons("null")


def test_a_later_plan_of_the_same_recipe_measures_nothing_again(volumes, monkeypatch):
    calls, quiet = [], Console(quiet=True)
    monkeypatch.setattr(planner, "measure_step_s", lambda *_: calls.append("step") or 0.1)
    monkeypatch.setattr(planner, "measure_loading_s", lambda *_: calls.append("loading") or 0.1)
    options = TrainOptions.resolve(recipe="auto", minutes=10, settings=TINY, data=volumes)
    found, planned = plan_data(volumes, None, options, inspect_machine("cpu"), Clock(), quiet)
    assert {"step", "loading"} <= set(calls)
    calls.clear()
    machine = planned.plan.machine
    later = plan_scanned(found, options.recipe, machine, None, Clock(), quiet, planned.measured)
    assert calls == []
    assert later.plan.recipe.network == planned.plan.recipe.network
