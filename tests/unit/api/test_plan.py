"""Options of a training, before any data are read."""

import pytest

from ushape.api.plan import DEFAULT_MINUTES, TrainOptions, optional_path, output_folder
from ushape.errors import ConfigError
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
