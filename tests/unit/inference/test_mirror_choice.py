from dataclasses import replace

import numpy as np
import pytest

from probabilities import BINARY
from ushape.inference.mirror_choice import choose_mirroring
from ushape.inference.object_search import ValidatedCase
from ushape.inference.separation import SEPARATED, object_precision
from ushape.transforms.object_distance import border_distance

WITH_DISTANCE = replace(BINARY, has_distance=True)


def case(group, missed):
    """A square of 10 x 10 pixels, of which some rows are missed."""
    truth = np.zeros((20, 20), np.uint8)
    truth[5:15, 5:15] = 1
    shares = np.where(truth, 230, 10).astype(np.uint8)[None]
    shares[:, 15 - missed : 15] = 10
    return ValidatedCase(group, shares, truth)


def decide(before, after, groups=("a", "b", "c", "d"), **options):
    plain, mirrored = (
        [case(group, missed) for group, missed in zip(groups, some, strict=True)]
        for some in (before, after)
    )
    return choose_mirroring(plain, mirrored, BINARY, versions=4, **options)


def test_mirroring_is_accepted_if_the_error_falls_in_most_groups():
    # Dice of a square that misses n of 10 rows: 2 (10 - n) / (20 - n).
    choice = decide([4, 4, 4, 4], [2, 2, 2, 4])
    assert choice.is_accepted
    assert "4 mirrored versions" in choice.line
    assert "0.7500 -> 0.8542 on 4 groups (3 better, 0 worse)" in choice.line


ENOUGH = "must decrease by at least 3%"
AGREED = "two thirds of the groups that change must improve"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        pytest.param([4, 4, 4, 4], [4, 4, 4, 4], ENOUGH, id="nothing changes"),
        pytest.param([0, 0, 0, 0], [0, 0, 0, 0], ENOUGH, id="nothing can improve"),
        pytest.param([4, 4, 4, 4], [0, 4, 5, 5], AGREED, id="most groups become worse"),
        pytest.param([4, 4, 4, 4], [0, 0, 5, 5], AGREED, id="half of the groups improve"),
        pytest.param([4, 4, 4, 4], [5, 5, 5, 5], ENOUGH, id="all groups become worse"),
    ],
)
def test_mirroring_is_refused_without_a_clear_gain(before, after, reason):
    choice = decide(before, after)
    assert not choice.is_accepted
    assert reason in choice.line
    assert "--set predict.tta=mirrored" in choice.line


def test_mirroring_needs_a_gain_that_is_worth_the_time():
    # One pixel of 100 more in each case: 1 - Dice falls by less than 3 %.
    plain = [case(group, 6) for group in "abcd"]
    better = [replace(one, probabilities=one.probabilities.copy()) for one in plain]
    for one in better:
        one.probabilities[0, 9, 5] = 230
    assert not choose_mirroring(plain, better, BINARY, versions=2).is_accepted


def test_mirroring_is_accepted_for_a_small_gain_if_the_score_is_high():
    # One of 3 pixels that are missed: 1 - Dice falls by a third, and Dice by less than 0.002.
    plain = [large_case(missed=3)] * 3
    choice = choose_mirroring(plain, [large_case(missed=2)] * 3, BINARY, versions=2)
    assert choice.is_accepted
    assert "0.9983 -> 0.9989" in choice.line


def large_case(missed):
    """A square of 30 x 30 pixels, of which a few are missed."""
    truth = np.zeros((40, 40), np.uint8)
    truth[5:35, 5:35] = 1
    shares = np.where(truth, 230, 10).astype(np.uint8)[None]
    shares[0, 5, 5 : 5 + missed] = 10
    return ValidatedCase("a", shares, truth)


def test_mirroring_compares_images_of_few_groups_and_makes_no_group_worse():
    groups = ("a", "a", "a", "b")
    assert decide([4, 4, 4, 4], [2, 2, 2, 4], groups).is_accepted
    assert "on 4 images" in decide([4, 4, 4, 4], [2, 2, 2, 4], groups).line
    refused = decide([4, 4, 4, 4], [2, 2, 2, 5], groups)
    assert not refused.is_accepted
    assert "None of the groups may become worse" in refused.line


def test_mirroring_is_not_chosen_if_it_finds_what_is_not_there():
    empty = ValidatedCase("e", np.full((1, 20, 20), 10, np.uint8), np.zeros((20, 20), np.uint8))
    false = replace(empty, probabilities=np.full((1, 20, 20), 200, np.uint8))
    plain, mirrored = ([case(group, n) for group in "abcd"] for n in (4, 2))
    assert choose_mirroring([*plain, empty], [*mirrored, empty], BINARY, versions=2).is_accepted
    refused = choose_mirroring([*plain, empty], [*mirrored, false], BINARY, versions=2)
    assert not refused.is_accepted
    assert "images without lesion in which it is predicted" in refused.line


def test_mirroring_is_not_chosen_without_annotations():
    empty = ValidatedCase("e", np.full((1, 20, 20), 10, np.uint8), np.zeros((20, 20), np.uint8))
    choice = choose_mirroring([empty] * 4, [empty] * 4, BINARY, versions=2)
    assert not choice.is_accepted
    assert "too little validation data" in choice.line


def test_mirroring_is_chosen_by_the_objects_if_they_are_separated():
    def with_objects(group, is_flat):
        objects = np.zeros((20, 26), np.int32)
        objects[4:16, 1:13], objects[4:16, 13:25] = 1, 2
        distance = np.rint(255 * border_distance(objects, max_distance_px=10)).astype(np.uint8)
        shares = np.where(objects, 230, 10).astype(np.uint8)[None]
        truth = (objects > 0).astype(np.uint8)
        # Without a minimum of the distance, the two objects are merged.
        return ValidatedCase(group, shares, truth, objects, 255 * truth if is_flat else distance)

    plain, mirrored = ([with_objects(one, is_flat) for one in "abc"] for is_flat in (True, False))
    # Half of the merged object is an annotated one: found at the IoU 0.5 of five, once in 2.
    assert object_precision(plain, WITH_DISTANCE, SEPARATED) == pytest.approx(0.5 / 5)
    assert object_precision(mirrored, WITH_DISTANCE, SEPARATED) == 1
    choice = choose_mirroring(plain, mirrored, WITH_DISTANCE, versions=2, objects=SEPARATED)
    assert choice.is_accepted
    assert "objects 0.1000 -> 1.0000 on 3 groups" in choice.line
    # The Dice is the same.
    assert not choose_mirroring(plain, mirrored, WITH_DISTANCE, versions=2).is_accepted
