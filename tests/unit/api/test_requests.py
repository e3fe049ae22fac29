"""Requests of earlier versions, which are continued with the settings of their first run."""

import copy
import json

import pytest

from codes import raises_code
from ushape import config
from ushape.api._requests import continue_recipe, describe_request
from ushape.api._series import Series
from ushape.console import Console
from ushape.errors import RunError
from ushape.planning.recipe import Recipe
from ushape.planning.recipes import load_recipe

NEW = {
    "labels": ["instances"],
    "preprocessing": ["spacing_mm", "target_spacing_mm", "distances", "slices", "slide_mpp"],
    "predict": ["slide_mpp"],
    "split": ["stratify_classes"],
    "network": ["strides", "kernels"],
}
"""Settings that the earlier version did not have."""


def as_stored_before(request):
    """Return the request as an earlier version stored it."""
    stored = copy.deepcopy(request)
    recipe = stored["recipe"]
    for section, keys in NEW.items():
        for key in keys:
            del recipe[section][key]
    recipe["network"]["deep_supervision"] = 0
    recipe["train"]["monitor"] = "validation_dice"
    recipe["predict"]["mirror_axes"] = [-2, -1]
    if isinstance(recipe["augment"], dict):
        del recipe["augment"]["geometry"]["still_axes"]
    return stored


@pytest.fixture
def series(tmp_path):
    return Series(tmp_path / "out" / "folds.json", "cross-validation")


@pytest.mark.parametrize("name", ["auto", "unet2015"])
def test_series_of_an_earlier_version_goes_on_with_its_settings(series, name, capsys):
    recipe = load_recipe(name)
    request = describe_request("data", None, recipe, folds=2)
    series.begin(as_stored_before(request))
    found = continue_recipe(series.find(request)["recipe"], recipe, Console())
    assert (found.train.monitor, found.predict.mirror_axes) == ("validation_dice", (-2, -1))
    assert (found.network.strides, found.preprocessing.spacing_mm) == ("equal", None)
    assert found.preprocessing.target_spacing_mm is None
    assert found.preprocessing.distances == "pixels"
    assert not found.split.stratify_classes  # The folds that follow test the remaining groups.
    assert (found.network.deep_supervision, found.preprocessing.slices) == (0, None)
    assert found.network.widths == recipe.network.widths
    assert "train.monitor=validation_dice" in capsys.readouterr().out.replace("\n", "")


def test_series_of_an_earlier_version_with_other_settings_is_refused(series):
    series.begin(as_stored_before(describe_request("data", None, Recipe(), folds=2)))
    for setting in (
        "train.epochs=3",
        "network.strides=[[1,2,2]]",
        "train.monitor=training_loss",
    ):
        other = config.override(Recipe(), setting)
        with raises_code(RunError, "other_request"):
            series.find(describe_request("data", None, other, folds=2))


def with_earlier_names(request):
    """Return the request with the names of settings that an earlier version had."""
    stored = copy.deepcopy(request)
    recipe = stored["recipe"]
    train, sampling, network = recipe["train"], recipe["sampling"], recipe["network"]
    train["patience_on"] = train.pop("monitor")
    train["patches_from"] = train.pop("patch_source")
    sampling["draw"] = sampling.pop("strategy").replace("foreground_weighted", "lesion")
    network["output"], network["up"] = network.pop("valid_output"), network.pop("upsampling")
    recipe["split"]["spread_classes"] = recipe["split"].pop("stratify_classes")
    return stored


def test_series_whose_settings_had_other_names_is_continued(series):
    own = ["train.monitor=training_loss", "sampling.strategy=foreground_weighted"]
    recipe = config.override(Recipe(), own)
    request = describe_request("data", None, recipe, folds=2)
    series.begin(with_earlier_names(request))
    stored = series.find(request)["recipe"]
    assert continue_recipe(stored, recipe, Console(quiet=True)) == recipe
    for setting in ("sampling.strategy=uniform", "train.monitor=validation_dice"):
        other = config.override(recipe, setting)
        with raises_code(RunError, "other_request"):
            series.find(describe_request("data", None, other, folds=2))


def test_series_of_this_version_is_continued_by_the_same_recipe_only(series):
    changed = config.override(Recipe(), "train.monitor=validation_dice")
    request = describe_request("data", None, changed, folds=2)
    series.begin(request)
    stored = series.find(request)["recipe"]
    assert continue_recipe(stored, changed, Console(quiet=True)) == changed
    with raises_code(RunError, "other_request"):
        series.find(describe_request("data", None, Recipe(), folds=2))


@pytest.mark.parametrize("recipe", [None, "auto", {"unknown": 1}])
def test_series_with_an_unknown_recipe_is_refused(series, recipe):
    request = describe_request("data", None, Recipe(), folds=2)
    series.path.parent.mkdir()
    series.path.write_text(json.dumps({**request, "recipe": recipe}))
    with raises_code(RunError, "other_request"):
        series.find(request)
