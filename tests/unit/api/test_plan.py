"""Options of a training, before any data are read, and plans of small volumes."""

import nibabel
import numpy as np
import pytest

from ushape.api.plan import DEFAULT_MINUTES, TrainOptions, optional_path, output_folder, plan_data
from ushape.console import Clock, Console
from ushape.errors import ConfigError
from ushape.planning.hardware import inspect_machine
from ushape.planning.plan import Plan
from ushape.planning.recipes import load_recipe


def train_of(**options):
    return TrainOptions.resolve(**options).recipe.train


def test_minutes_are_the_default_limit():
    assert train_of().minutes == DEFAULT_MINUTES
    assert (train_of(epochs=3).minutes, train_of(epochs=3).epochs) == (None, 3)
    assert train_of(settings=["train.epochs=3"]).minutes is None


def test_options_take_precedence_over_the_recipe():
    assert load_recipe("lgg-buda").train.epochs is not None
    given = TrainOptions.resolve(recipe="lgg-buda", minutes=5, seed=7).recipe
    assert (given.train.minutes, given.train.epochs, given.seed) == (5, None, 7)
    assert TrainOptions.resolve(recipe=given).recipe == given


def test_one_setting_may_be_a_string():
    assert train_of(settings="train.batch_size=3").batch_size == 3


@pytest.mark.parametrize(
    "options",
    [
        {"minutes": 3, "epochs": 3},
        {"minutes": 3, "settings": ["train.epochs=3"]},
        {"epochs": 3, "settings": ["train.minutes=3"]},
        {"settings": ["train.minutes=3", "train.epochs=3"]},
        {"recipe": "lgg-buda", "settings": ["train.minutes=3"]},
        {"plan": "plan.json", "recipe": "auto"},
        {"plan": "plan.json", "seed": 0},
        {"plan": "plan.json", "settings": "train.batch_size=2"},
    ],
)
def test_conflicting_options_are_refused(options):
    with pytest.raises(ConfigError) as error:
        TrainOptions.resolve(**options)
    assert error.value.code == "conflicting_options"


def test_output_folder_is_named_after_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert output_folder(None, ".", "-folds").as_posix() == f"runs/{tmp_path.name}-folds"
    assert output_folder("mine", "data").as_posix() == "mine"
    assert optional_path("") is None


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Six volumes of 7 slices of 24 x 20 pixels; every second one has slices twice as far apart."""
    base = tmp_path_factory.mktemp("volumes")
    image = np.random.default_rng(0).integers(0, 99, (20, 24, 7)).astype(np.int16)
    mask = np.zeros((20, 24, 7), np.uint8)
    mask[5:12, 6:15, 2:5] = 1
    for number in range(6):
        affine = np.diag([1.5, 1.5, 4.0 * (1 + number % 2), 1])
        for folder, array in (("images", image + number), ("masks", mask)):
            (base / folder).mkdir(exist_ok=True)
            path = base / folder / f"p{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return base


@pytest.mark.parametrize(
    ("settings", "target", "slice_shape"),
    [
        (["preprocessing.slices=null"], (6, 1.5, 1.5), None),
        (["preprocessing.slices=1"], None, (24, 20)),
        (["preprocessing.slices=1", "preprocessing.target_spacing_mm=[3, 3]"], (3, 3), (12, 10)),
        (["preprocessing.slices=3", "preprocessing.target_spacing_mm=[4, 3, 3]"], (3, 3), (12, 10)),
    ],
)
def test_plan_resamples_volumes_by_slice_within_their_slices(uneven, settings, target, slice_shape):
    chosen = ["network.widths=[4,8]", "preprocessing.downscale=1", *settings]
    options = TrainOptions.resolve(recipe="auto", epochs=1, settings=chosen, data=uneven)
    found, planned = plan_data(
        uneven, None, options, inspect_machine("cpu"), Clock(), Console(quiet=True)
    )
    plan = planned.plan
    assert plan.preprocessing.config.target_spacing_mm == target
    text = " ".join(plan.reasons)
    assert ("images are resampled" in text) == (slice_shape is None)
    assert ("slices are resampled" in text) == (target == (3, 3))
    assert Plan.from_dict(plan.to_dict(), source="plan.json").preprocessing == plan.preprocessing
    if slice_shape is not None:
        sample = plan.preprocessing.load(found.facts[0].case)
        assert sample.image.shape == (1, 7, *slice_shape)
