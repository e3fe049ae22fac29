from dataclasses import replace
from pathlib import Path

import pytest

from codes import raises_code
from ushape import config
from ushape.data.case_stats import CaseStats, at_spacing
from ushape.errors import ConfigError, DataError
from ushape.planning.recipe import Recipe
from ushape.planning.spacing import choose_target_spacing, refuse_unfit
from ushape.types import Case


def case_stats(*spacings, shape=(20, 200, 200)):
    """Return the statistics of cases with these spacings; their ids are 0, 1, ..."""
    return [
        CaseStats(
            case=Case(id=str(number), image=Path(f"{number}.nii")),
            shape=shape if spacing is None else shape[-len(spacing) :],
            spacing_mm=spacing,
            object_size=30.0,
            objects_by_value={1: (2, 30.0)},
        )
        for number, spacing in enumerate(spacings)
    ]


def decide(stats, *settings, recipe=None, training=None):
    recipe = config.override(recipe or Recipe(), settings)
    ids = {one.case.id for one in stats} if training is None else training
    recipe, results = choose_target_spacing(recipe, stats, ids)
    return recipe.preprocessing.target_spacing_mm, " ".join(result.text for result in results)


def test_volumes_of_different_spacing_are_resampled_and_the_plan_says_so():
    target, text = decide(case_stats((5, 0.7, 0.7), (5, 0.7, 0.7), (4, 1, 1), (8, 0.5, 0.5)))
    assert target == (4.3, 0.7, 0.7)  # 10th percentile of 4, 5, 5, 8; median of the others.
    assert "4.3 × 0.7 × 0.7 mm" in text
    assert "4 × 0.5 × 0.5 mm and 8 × 1 × 1 mm" in text
    assert "preprocessing.target_spacing_mm=null" in text


def test_equal_or_unknown_spacings_are_kept_without_a_word():
    assert decide(case_stats((5, 0.7, 0.7), (5.1, 0.7, 0.7))) == (None, "")
    assert decide(case_stats(None, None)) == (None, "")
    assert decide(case_stats(None, (5, 0.7, 0.7))) == (None, "")


def test_spacings_are_kept_if_a_file_states_none():
    stats = case_stats((5, 0.7, 0.7), (4, 1, 1), None)
    for training in ({"0", "1", "2"}, {"0", "1"}):  # The third may be a test case.
        target, text = decide(stats, training=training)
        assert target is None
        assert "1 of 3 files has none, such as 2" in text


def test_images_are_resampled_if_their_spacing_can_be_trusted():
    shape = (300, 300)
    assert decide(case_stats((0.5, 0.5), (0.8, 0.8), shape=shape))[0] == (0.65, 0.65)
    target, text = decide(case_stats((0.5, 0.5), (1.0, 1.0), shape=shape))
    assert target is None
    assert "exactly 1 mm" in text
    target, text = decide(case_stats((0.5, 0.5), (0.5, 0.5), (50, 50), shape=shape))
    assert target is None
    assert "2 would be enlarged 100 times" in text


def test_settings_overrule_the_spacing():
    stats = case_stats((5, 0.7, 0.7), (4, 1, 1))
    for setting in (
        "preprocessing.target_spacing_mm=null",
        "preprocessing.spacing_mm=[5, 1, 1]",
        "preprocessing.spacing_mm=null",
    ):
        assert decide(stats, setting) == (None, "")
    target, text = decide(stats, "preprocessing.target_spacing_mm=[3, 1, 1]")
    assert target == (3, 1, 1)
    assert "set by the user" in text
    assert decide(stats, recipe=replace(Recipe(), name="unet2015")) == (None, "")


def test_slices_are_resampled_by_the_spacing_within_them():
    by_slice = "preprocessing.slices=1"
    # A file whose slices are 200 mm apart is not enlarged, since z is not resampled.
    target, text = decide(case_stats((5, 0.7, 0.7), (200, 1, 1), (5, 0.7, 0.7)), by_slice)
    assert target == (0.7, 0.7)
    assert "slices are resampled to 0.7 × 0.7 mm" in text
    assert decide(case_stats((5, 0.7, 0.7), (9, 0.7, 0.7)), by_slice) == (None, "")
    assert decide(case_stats((1, 1, 1), (1, 2, 2), (1, 2, 2)), by_slice)[0] == (2, 2)
    both = (by_slice, "preprocessing.target_spacing_mm=[1, 1]")
    assert decide(case_stats((200, 0.7, 0.7)), *both)[0] == (1, 1)
    with raises_code(DataError, "missing_spacing") as error:
        decide(case_stats((5, 0.7, 0.7), None), *both)
    assert "1 of 2 files does not contain its spacing" in error.value.message


def test_impossible_targets_are_refused():
    stats = case_stats((5, 0.7, 0.7), (4, 1, 1))
    with raises_code(ConfigError, "axis_count_mismatch"):
        decide(stats, "preprocessing.target_spacing_mm=[1, 1]")
    both = ("preprocessing.target_spacing_mm=[3, 1, 1]", "preprocessing.spacing_mm=[5, 1, 1]")
    with raises_code(ConfigError, "settings_conflict"):
        decide(stats, *both)
    with raises_code(DataError, "missing_spacing"):
        decide([*stats, *case_stats(None)], both[0])
    with raises_code(DataError, "implausible_spacing"):
        decide(stats, "preprocessing.target_spacing_mm=[0.1, 1, 1]")
    refuse_unfit(stats, (3, 1, 1))


def test_at_spacing_changes_sizes_but_not_counts():
    (one,) = case_stats((5, 0.5, 0.5))
    found = at_spacing(one, (2.5, 1, 1))
    assert found.shape == (40, 100, 100)
    assert found.spacing_mm == (2.5, 1, 1)
    assert found.object_size == pytest.approx(15)
    assert found.objects_by_value == {1: (2, pytest.approx(15))}
    assert at_spacing(one, None) is one
    found = at_spacing(one, (1, 1))  # As slices are resampled.
    assert (found.shape, found.spacing_mm) == ((20, 100, 100), (5, 1, 1))
    assert found.object_size == pytest.approx(15)
