"""Settings of a search around a plan."""

import pytest

import ushape
from codes import raises_code
from ushape import config
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError
from ushape.models import network_sizes
from ushape.planning.recipe import Recipe
from ushape.planning.search_space import (
    describe_choice,
    propose_space,
    read_searches,
    settings_of,
    without_fixed,
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cells"
    write_data_set(folder, 6, SyntheticConfig(size=48, groups=6), seed=0)
    return ushape.plan(folder, epochs=2, device="cpu", quiet=True)


@pytest.fixture(scope="module")
def space(plan):
    return propose_space(plan, (512, 512))


def test_proposed_values_lie_around_the_plan(plan, space):
    found = {one.key: list(one.values) for one in space}
    assert found["train.learning_rate"] == ["0.004", "0.001"]
    assert found["preprocessing.downscale"] == ["1.5"]
    assert len(space) <= 6


def test_each_proposed_value_is_a_setting_of_a_recipe(plan, space):
    for one in space:
        for name in one.values:
            settings = settings_of(space, {one.key: name})
            changed = config.override(plan.recipe, settings)
            assert changed != plan.recipe
    assert settings_of(space, {}) == ()


def test_proposed_patches_fit_the_network(plan, space):
    legal = network_sizes(plan.recipe.network).legal_shape
    patches = next(one.values for one in space if one.key == "sampling.patch_shape")
    for text in patches.values():
        patch = config.override(Recipe(), (f"sampling.patch_shape={text}",)).sampling.patch_shape
        assert legal(patch) == patch


def test_weaker_augmentation_keeps_the_planned_flips(plan, space):
    settings = settings_of(space, {"augment": "half as strong"})
    weaker = config.override(Recipe(), settings).augment
    assert weaker.geometry.flip_axes == plan.augment.geometry.flip_axes
    assert weaker.geometry.scale == pytest.approx(plan.augment.geometry.scale / 2)


def test_small_images_are_not_downscaled(plan):
    assert "preprocessing.downscale" not in [one.key for one in propose_space(plan, (200, 150))]


def test_stated_values_replace_add_and_remove_settings(plan, space):
    searches = (
        "train.learning_rate=0.003,planned",
        "network.widths=[8,16], [16,32]",
        "loss.terms=planned",
    )
    found = {one.key: list(one.values) for one in read_searches(searches, space, Recipe(), plan)}
    assert found["train.learning_rate"] == ["0.003"]
    assert found["network.widths"] == ["[8,16]", "[16,32]"]
    assert "loss.terms" not in found
    assert "augment" in found


def test_settings_are_searched_under_their_current_names(plan):
    (found,) = read_searches(["network.up=nearest,transposed"], (), Recipe(), plan)
    assert found.key == "network.upsampling"
    assert found.planned == plan.recipe.network.upsampling
    assert without_fixed([found], ["network.up=bilinear"]) == ()
    assert without_fixed([found], ["network.down=stride"]) == (found,)
    (changed,) = settings_of([found], {found.key: "nearest"})
    assert config.override(Recipe(), changed).network.upsampling == "nearest"


def test_settings_of_the_user_are_not_searched(space):
    left = [one.key for one in without_fixed(space, ["train.learning_rate=1", "augment.a.b=2"])]
    assert "train.learning_rate" not in left
    assert "augment" not in left
    assert "loss.terms" in left


@pytest.mark.parametrize(
    ("search", "code"),
    [
        ("train.learning_rate", "invalid_setting"),
        ("train.learning_rate=", "invalid_setting"),
        ("seed=1,2", "setting_not_searched"),
        ("predict.tune=true,false", "setting_not_searched"),
        ("train.minutes=1,2", "setting_not_searched"),
        ("train.learning_rate=-1", "value_out_of_range"),
    ],
)
def test_impossible_searches_are_refused(plan, space, search, code):
    with raises_code(ConfigError, code):
        read_searches((search,), space, Recipe(), plan)


def test_choices_are_described_by_what_they_change():
    assert describe_choice({"a.b": "planned"}) == "as planned"
    assert describe_choice({"a.b": "planned", "a.c": "2"}) == "a.c 2"
