from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ushape.errors import ConfigError
from ushape.normalization import Normalization
from ushape.planning.fingerprint import ClassFacts, Fingerprint
from ushape.planning.recipe import PredictConfig, Recipe, TrainConfig
from ushape.planning.rules.result import change
from ushape.planning.rules.slices import (
    COMPARED,
    Trial,
    best_trial,
    choose_slices,
    describe_trials,
    reconsider_slices,
    see_slices,
    without_comparison,
)
from ushape.transforms.augment import AugmentConfig
from ushape.transforms.augment.geometry import GeometryConfig
from ushape.types import Case

LONG = Recipe(train=TrainConfig(minutes=10))


def data(shape=(10, 192, 192), spacing=None):
    return Fingerprint(
        cases=8,
        channels=2,
        median_shape=shape,
        largest_shape=shape,
        pixels_per_epoch=8 * int(np.prod(shape)),
        normalization=Normalization.measure(np.ones((2, 4))),
        foreground_cases=1.0,
        foreground_share=0.1,
        object_size=40,
        objects_per_case=3,
        redundancy=0.0,
        recordings=8,
        mirror_axes=(1, 2),
        rotates_freely=True,
        round_trip_dice={},
        classes=(ClassFacts(name="a", cases=1, pixels=0.1, object_size=20, objects_per_case=2),),
        spacing_mm=spacing,
    )


def choose(recipe, **facts):
    return choose_slices(recipe, data(**facts), [])


def test_volumes_are_compared_if_their_slices_are_few_or_thick():
    few, thick = {"shape": (10, 192, 192)}, {"shape": (40, 192, 192), "spacing": (3, 1, 1)}
    for facts in (few, thick):
        recipe, result, compared = choose(LONG, **facts)
        assert (recipe.preprocessing.slices, compared) == (None, COMPARED)
        assert "preprocessing.slices" in result.text
    assert choose(LONG, shape=(40, 192, 192), spacing=(2.9, 1, 1))[2] == ()
    assert choose(LONG, shape=(40, 192, 192))[2] == ()
    # The stated spacing counts, not that of the files.
    stated = change(LONG, "preprocessing", spacing_mm=(10, 1, 1))
    assert choose(stated, shape=(40, 192, 192), spacing=(1, 1, 1))[2] == COMPARED


@pytest.mark.parametrize(
    ("given", "steps", "is_compared"),
    [
        (LONG, 1999, True),
        (LONG, 2000, False),
        (Recipe(train=TrainConfig(minutes=4.9)), 100, False),
        (Recipe(train=TrainConfig(epochs=3)), 100, False),
        (change(LONG, "preprocessing", slices=None), 100, False),  # As set.
        (change(LONG, "sampling", patch_shape=(16, 64, 64)), 100, False),
    ],
)
def test_volumes_are_compared_if_there_is_time_for_few_steps_in_3d(given, steps, is_compared):
    recipe, decided, compared = choose(given, shape=(40, 192, 192), spacing=(1, 1, 1))
    assert compared == ()
    planned = change(recipe, "train", epochs=1, steps_per_epoch=steps)
    result, compared = reconsider_slices(given, planned, decided)
    assert compared == (COMPARED if is_compared else ())
    if is_compared:
        assert "only 1999 steps in 3D" in result.text
        assert "compares 3D with 2D and 2.5D" in result.text
        assert "1999 steps" in result.fact
    else:
        assert result is decided


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("preprocessing", {"slices": 3}),
        ("preprocessing", {"slices": None}),
        ("preprocessing", {"downscale": (1, 2, 2)}),
        ("sampling", {"patch_shape": (8, 64, 64)}),
        ("network", {"strides": ((1, 2, 2),)}),
        ("train", {"minutes": 4}),
        ("train", {"minutes": None, "epochs": 3}),
    ],
)
def test_volumes_are_not_compared_if_settings_or_time_forbid_it(section, values):
    recipe, result, compared = choose(change(LONG, section, **values))
    assert compared == ()
    assert recipe.preprocessing.slices == values.get("slices")
    assert result is not None


def test_weights_to_start_from_decide_the_dimensions():
    assert choose(replace(LONG, start_from="run"))[2] == ()


@pytest.mark.parametrize(
    ("axes", "compared"), [((1,), ()), ((0,), ()), ((-3,), ()), ((-1,), COMPARED), ((), COMPARED)]
)
def test_stated_axes_of_volumes_mean_3d(axes, compared):
    # Axis 1 is y in a volume, but x in a slice.
    for name in ("flip_axes", "still_axes"):
        geometry = GeometryConfig(**{name: axes})
        recipe = replace(LONG, augment=AugmentConfig(geometry=geometry))
        assert choose(recipe)[2] == compared


@pytest.mark.parametrize(("axes", "compared"), [((-3, -1), ()), ((-2, -1), COMPARED)])
def test_mirroring_along_z_in_prediction_means_3d(axes, compared):
    recipe = replace(LONG, predict=PredictConfig(mirror_axes=axes))
    assert choose(recipe)[2] == compared


def test_plan_says_as_set_only_if_the_dimensions_were_set():
    assert "2D, as set." in choose(change(LONG, "preprocessing", slices=1))[1].text
    for recipe in (
        without_comparison(LONG),
        change(replace(LONG, start_from="run"), "preprocessing", slices=None),
    ):
        text = choose(recipe)[1].text
        assert text.startswith("Dimensions: 3D")
        assert "as set." not in text


def test_plan_says_that_a_training_by_the_plan_does_not_compare():
    assert "without --plan" in choose(LONG)[1].text


def test_stacks_without_any_neighbor_are_refused():
    alone = [[Case(id=f"a_{number}", image=Path(f"a_{number}.png"))] for number in range(3)]
    stated = change(LONG, "preprocessing", slices=3)
    with pytest.raises(ConfigError) as error:
        choose_slices(stated, data(shape=(64, 64)), alone)
    assert error.value.code == "no_neighbors"
    text = choose_slices(stated, data(shape=(64, 64)), [[one for (one,) in alone]])[1].text
    assert "2 images of 3 lack a direct neighbor" in text


@pytest.mark.parametrize(("given", "slices"), [("auto", None), (1, None), (None, None), (5, 5)])
def test_images_by_themselves_have_neighbors_only_on_request(given, slices):
    pair = [Case(id=f"a_{number}", image=Path(f"a_{number}.png")) for number in range(2)]
    stated = change(LONG, "preprocessing", slices=given)
    recipe, result, compared = choose_slices(stated, data(shape=(64, 64)), [pair])
    assert (recipe.preprocessing.slices, compared) == (slices, ())
    assert (result is None) == (slices is None)


def test_settings_of_the_resolution_lose_their_z_axis():
    stated = change(LONG, "preprocessing", slices=1, spacing_mm=(10, 1, 2), downscale=(1, 2, 2))
    recipe, _, _ = choose(stated)
    assert recipe.preprocessing.spacing_mm == (1, 2)
    assert recipe.preprocessing.downscale == (2, 2)
    for values in ({"downscale": (2, 2, 2)}, {"shape": (8, 64, 64), "downscale": 1}):
        with pytest.raises(ConfigError) as error:
            choose(change(LONG, "preprocessing", slices=1, **values))
        assert error.value.code == "axis_count_mismatch"


def test_see_slices_by_hand():
    recipe = change(LONG, "preprocessing", slices=3)
    seen = see_slices(data(spacing=(8, 1, 1)), recipe)
    assert (seen.channels, seen.median_shape, seen.spacing_mm) == (6, (192, 192), (1, 1))
    assert seen.slices_per_case == 10
    assert seen.mirror_axes == (0, 1)
    # An object of 40 pixels is in 5 of 10 slices, one of 20 pixels in 2.5.
    assert seen.objects_per_case == pytest.approx(1.5)
    assert seen.classes[0].objects_per_case == pytest.approx(0.5)
    whole = change(LONG, "preprocessing", slices=None)
    assert see_slices(data(), whole) == data()


def test_trials_are_decided_by_objects_first_then_by_the_dice():
    trials = [Trial(None, 0.7), Trial(1, 0.8), Trial(3, 0.8)]
    text = describe_trials(trials, 44.4, "10 slices")
    assert text.startswith("Dimensions: 2D, by trials of 44 s each.")
    assert "0.7000 in 3D, 0.8000 in 2D, 0.8000 in 2.5D with 3 slices" in text
    trials = [Trial(None, 0.7, 0.5), Trial(1, 0.8, 0.4)]
    assert describe_trials(trials, 44.4, "").startswith("Dimensions: 3D")


def test_objects_decide_only_if_all_trials_learned_them():
    trials = [Trial(None, 0.7, 0.5), Trial(1, 0.8), Trial(3, 0.75, 0.6)]
    assert best_trial(trials).slices == 1
    assert "average precision" not in describe_trials(trials, 44.4, "")
