from dataclasses import replace

import numpy as np
import pytest

from probabilities import BINARY
from ushape.inference.object_search import (
    ValidatedCase,
    measure_objects_by_threshold,
    smallest_objects,
)
from ushape.inference.rule_scores import Basis
from ushape.inference.tuning import choose_tuning
from ushape.instances.label import ObjectConfig, label_objects
from ushape.transforms.object_distance import border_distance


def grid(side, gap, size=64):
    """Squares at a distance of `gap` pixels."""
    axis = np.arange(size) % (side + gap) < side
    return (axis[:, None] & axis).astype(np.uint8)


def bridged(group, side=6, gap=2):
    """Squares of probability 0.95, with gaps of probability 0.72 between them."""
    truth = grid(side, gap)
    shares = np.where(truth, 0.95, 0.72)
    return ValidatedCase(group, np.rint(255 * shares[None]).astype(np.uint8), truth)


def test_measure_objects_by_threshold_chooses_v_rand_for_cells_that_fill_the_image():
    cases = [bridged(name) for name in "abc"]
    curve = measure_objects_by_threshold(cases, BINARY, ObjectConfig())["lesion"]
    assert (curve.metric, curve.basis) == ("rand", Basis(unit="group", count=3))
    assert curve.mean(0.9) == pytest.approx(1)
    # At 0.5 all 64 squares are one segment: sum of squares 1/64 and 1, F-score 2 / 65.
    assert curve.mean(0.5) == pytest.approx(2 / 65)
    assert min(curve.clear_gains()) == 0.8


def test_measure_objects_by_threshold_chooses_object_f1_for_other_touching_objects():
    cases = [bridged(name, side=6, gap=3) for name in "abc"]
    curve = measure_objects_by_threshold(cases, BINARY, ObjectConfig())["lesion"]
    assert curve.metric == "object_f1"
    assert (curve.mean(0.5), curve.mean(0.8)) == (0, 1)


def test_measure_objects_by_threshold_leaves_out_other_masks():
    far = [bridged(name, side=6, gap=10) for name in "abc"]
    few = [bridged(name, side=30, gap=2) for name in "abc"]
    for cases in (far, few):
        assert measure_objects_by_threshold(cases, BINARY, ObjectConfig()) == {}
        wanted = measure_objects_by_threshold(cases, BINARY, ObjectConfig(), "object_f1")
        assert wanted["lesion"].metric == "object_f1"


def test_measure_objects_by_threshold_counts_numbered_objects():
    """Objects that touch in the class map are told apart by the numbers in the mask."""
    truth = np.ones((64, 64), np.uint8)
    numbers = np.repeat(np.repeat(np.arange(1, 65).reshape(8, 8), 8, axis=0), 8, axis=1)
    shares = np.where(grid(6, 2), 0.95, 0.72)
    cases = [ValidatedCase(name, shares[None], truth, numbers) for name in "abc"]
    curve = measure_objects_by_threshold(cases, BINARY, ObjectConfig(), "object_f1")["lesion"]
    assert (curve.mean(0.5), curve.mean(0.8)) == (0, 1)


def test_measure_objects_by_threshold_cuts_a_single_image():
    curve = measure_objects_by_threshold([bridged("a")], BINARY, ObjectConfig())["lesion"]
    assert curve.basis == Basis(unit="quarter", count=4)
    assert curve.mean(0.5) == pytest.approx(2 / 17)


def test_smallest_objects_leaves_out_one_in_a_hundred():
    def case(specks):
        objects = np.zeros((60, 60), np.int32)
        for number in range(100):
            y, x = 6 * (number // 10), 6 * (number % 10)
            objects[y : y + 3, x : x + 3] = number + 1
        for number in range(specks):
            objects[5, 2 * number] = 101 + number
        return ValidatedCase("a", objects[None], (objects > 0).astype(np.uint8), objects)

    assert smallest_objects([case(0)], BINARY, ["lesion"]) == {"lesion": 9}
    assert smallest_objects([case(1)], BINARY, ["lesion"]) == {"lesion": 9}
    assert smallest_objects([case(2)], BINARY, ["lesion"]) == {"lesion": 1}
    assert smallest_objects([case(0)], BINARY, []) == {}
    empty = ValidatedCase("a", np.zeros((1, 8, 8)), np.zeros((8, 8), np.uint8))
    assert smallest_objects([empty], BINARY, ["lesion"]) == {}


def test_choose_tuning_chooses_the_threshold_for_touching_objects():
    cases = [bridged(name, side=6, gap=3) for name in "abc"]
    tuned = choose_tuning(cases, BINARY, rule=True)
    assert tuned.rule.of("lesion").threshold == 0.8
    assert "object F1 0.0000 -> 1.0000 on 3 groups" in tuned.report[0]
    assert "predict.tune_metric=dice" in tuned.report[0]
    assert tuned.basis == {"lesion": Basis(unit="group", count=3)}


def test_choose_tuning_measures_objects_as_the_recipe_defines_them():
    cases = []
    for name in "abc":
        case = bridged(name, side=6, gap=3)
        distance = border_distance(label_objects(case.truth).labels, max_distance_px=10)
        cases.append(replace(case, distance=np.rint(255 * distance).astype(np.uint8)))
    how = ObjectConfig(separation="distance_transform", min_size_px=2)
    tuned = choose_tuning(cases, replace(BINARY, has_distance=True), rule=True, how=how)
    assert tuned.objects is None
    assert "object F1" in tuned.report[0]
    assert tuned.rule.of("lesion").threshold == 0.8


def test_choose_tuning_loses_little_dice_for_objects():
    """Only the inner pixels of the squares are above 0.55, which thin bridges between them have."""
    truth = grid(6, 3, size=63)
    shares = np.where(truth, 0.55, 0.0)
    shares[2::9] = 0.55
    shares[grid(5, 4, size=63) > 0] = 0.95
    cases = [ValidatedCase(name, shares[None], truth) for name in "abc"]
    curve = measure_objects_by_threshold(cases, BINARY, ObjectConfig())["lesion"]
    assert (curve.mean(0.5), curve.mean(0.6)) == (0, 1)
    # 25 of 36 pixels: a Dice of 50 / 61, and 72 / 75 at 0.5, whose error is a quarter of that.
    tuned = choose_tuning(cases, BINARY, rule=True)
    assert tuned.rule.of("lesion").threshold == 0.5
    assert "no threshold is clearly better" in tuned.report[0]
