from dataclasses import replace

import numpy as np
import pytest

from probabilities import BINARY
from ushape.errors import ConfigError, PlanError
from ushape.inference.decision_rule import DecisionRule
from ushape.inference.object_search import ValidatedCase
from ushape.inference.separation import (
    IOUS,
    SEPARATED,
    choose_comparable,
    choose_separation,
    comparable_settings,
    mean_precision,
    object_precision,
    separate,
    tabulate_counts,
)
from ushape.inference.tuning import choose_tuning, join_tunings
from ushape.instances.label import ObjectConfig, label_objects
from ushape.metrics.instance import ObjectCounts
from ushape.transforms.object_distance import border_distance

CONNECTED = replace(BINARY, has_distance=True)
NUMBERED = replace(CONNECTED, threshold=1)


def touching_squares(size=24, side=6):
    """Numbered squares without gaps between them, and background around."""
    objects = np.zeros((size, size), np.int32)
    count = size // side - 1
    for y in range(count):
        for x in range(count):
            corner = (3 + side * y, 3 + side * x)
            objects[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = y * count + x + 1
    return objects


def predicted(group, objects, sure=0.9):
    inside = objects > 0
    distance = border_distance(objects, max_distance_px=10)
    return ValidatedCase(
        group,
        np.rint(255 * np.where(inside, sure, 0.1)[None]).astype(np.uint8),
        inside.astype(np.uint8),
        objects,
        np.rint(255 * distance).astype(np.uint8),
    )


def test_counts_of_processes_add_up_to_the_average_precision_of_all():
    first = ObjectCounts(truth=3, predicted=2, ious=(0.95, 0.6))
    second = ObjectCounts(truth=1, predicted=4, ious=(0.75,))
    names = ["cell", "debris", "nothing"]
    one = tabulate_counts({"cell": first}, names)
    other = tabulate_counts({"cell": second, "debris": second}, names)
    joined = first + second
    expected = np.mean(
        [np.mean([own.average_precision(iou) for iou in IOUS]) for own in (joined, second)]
    )
    assert mean_precision(one + other) == pytest.approx(expected)
    assert mean_precision(tabulate_counts({}, names)) is None


def test_separate_finds_objects_that_touch():
    objects = touching_squares()
    distance = border_distance(objects, max_distance_px=10)
    classes, labels = separate((objects > 0).astype(np.uint8), distance, NUMBERED, SEPARATED)
    np.testing.assert_array_equal(labels, objects)
    np.testing.assert_array_equal(classes, objects > 0)


def test_separate_draws_a_line_where_objects_are_connected_parts():
    objects = touching_squares()
    distance = border_distance(objects, max_distance_px=10)
    classes, labels = separate((objects > 0).astype(np.uint8), distance, CONNECTED, SEPARATED)
    np.testing.assert_array_equal(label_objects(classes).labels, labels)
    assert labels.max() == objects.max() == 9
    np.testing.assert_array_equal(labels[labels > 0], objects[labels > 0])


def test_separate_draws_no_line_between_classes():
    classes = np.repeat(np.uint8([1, 2, 2]), 4)[None].repeat(5, axis=0)
    distance = np.float32([0.2, 1, 1, 0.2] * 3)[None].repeat(5, axis=0)
    found, labels = separate(classes, distance, CONNECTED, SEPARATED)
    assert labels[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 0, 3, 3, 3, 3]
    np.testing.assert_array_equal(found, np.where(labels > 0, classes, 0))


def test_separate_keeps_classes_apart_and_drops_small_objects():
    classes = np.zeros((6, 12), np.uint8)
    classes[1:5, 1:5], classes[1:5, 5:9], classes[2, 10] = 1, 2, 1
    distance = np.where(classes > 0, 1.0, 0.0)
    how = replace(SEPARATED, min_size_px=2)
    found, labels = separate(classes, distance, NUMBERED, how)
    assert labels.max() == 2
    np.testing.assert_array_equal(found, np.where(labels > 0, classes, 0))
    assert found[2, 10] == 0


def test_choose_separation_takes_the_best_settings():
    cases = [predicted(name, touching_squares(), sure=0.65) for name in "ab"]
    noise = np.random.default_rng(0).integers(0, 60, cases[0].truth.shape)
    noisy = [replace(one, distance=np.clip(one.distance - noise, 0, 255)) for one in cases]
    noisy = [replace(one, distance=one.distance.astype(np.uint8)) for one in noisy]
    found = choose_separation(noisy, NUMBERED, DecisionRule(), SEPARATED, keep_thresholds=False)
    assert found.how.h_distance > 0.1  # Lower peaks are noise.
    assert found.rule == DecisionRule()
    assert "average precision" in found.report[0]
    assert f"--set predict.objects.h_distance={found.how.h_distance};" in found.report[0]


def test_choose_comparable_takes_a_larger_rise_for_a_noisy_distance():
    cases = [predicted(name, touching_squares()) for name in "ab"]
    noise = np.random.default_rng(0).integers(0, 60, cases[0].truth.shape)
    noisy = [
        replace(one, distance=np.clip(one.distance - noise, 0, 255).astype(np.uint8))
        for one in cases
    ]
    found = choose_comparable(noisy, NUMBERED, SEPARATED)
    assert found.h_distance > 0.1
    assert (
        object_precision(noisy, NUMBERED, found)
        > object_precision(noisy, NUMBERED, SEPARATED) - 1e-9
    )


def test_choose_separation_changes_a_threshold_only_if_it_may():
    # At 0.5, pixels around the objects are foreground as well.
    case = predicted("a", touching_squares())
    halo = np.where(case.truth > 0, 230, 140)[None].astype(np.uint8)
    cases = [replace(case, probabilities=halo)]
    free, kept = (
        choose_separation(cases, NUMBERED, DecisionRule(), SEPARATED, keep_thresholds=keep)
        for keep in (False, True)
    )
    assert free.rule.of("lesion").threshold == 0.6
    assert kept.rule == DecisionRule()


def test_choose_separation_needs_the_distance():
    cases = [replace(predicted("a", touching_squares()), distance=None)]
    with pytest.raises(PlanError) as error:
        choose_separation(cases, NUMBERED, DecisionRule(), SEPARATED, keep_thresholds=True)
    assert error.value.code == "distance_required"


def test_comparable_settings_vary_only_what_is_chosen_after_training():
    for own in (ObjectConfig(separation="distance_transform"), replace(SEPARATED, h_distance=0.3)):
        fixed = {one.h_distance for one in comparable_settings(own, [160, 160])}
        assert fixed == {own.h_distance}
    sized = comparable_settings(replace(SEPARATED, min_size_px=3, corners_connect=True), [160])
    assert [(one.h_distance, one.min_size_px) for one in sized] == [(0.1, 3), (0.2, 3), (0.4, 3)]
    assert all(one.corners_connect for one in sized)
    found = comparable_settings(SEPARATED, [16, 160, 320])
    assert [(one.h_distance, one.min_size_px) for one in found] == [
        (0.1, 10),
        (0.2, 10),
        (0.4, 10),
    ]
    assert len(comparable_settings(SEPARATED, [])) == 3


def test_choose_tuning_does_not_change_objects_that_the_user_defines():
    cases = [predicted(name, touching_squares()) for name in "abc"]
    tuned = choose_tuning(cases, NUMBERED, rule=True, how=SEPARATED)
    assert tuned.objects is not None
    assert tuned.objects.separation == "learned_distance"
    own = ObjectConfig(separation="distance_transform", min_size_px=7)
    assert choose_tuning(cases, NUMBERED, rule=True, how=own).objects is None
    for own in (replace(SEPARATED, min_size_px=7), replace(SEPARATED, h_distance=0.33)):
        chosen = choose_tuning(cases, NUMBERED, rule=True, how=own)
        kept = "min_size_px" if own.min_size_px else "h_distance"
        assert getattr(chosen.objects, kept) == getattr(own, kept)
        assert chosen.report  # The rest is chosen by the average precision.
        # A setting that is put back to its default at the prediction has an effect.
        for tuning in (chosen, join_tunings([chosen, chosen])):
            assert getattr(tuning.objects_for(SEPARATED), kept) == getattr(SEPARATED, kept)
            assert tuning.objects_for(own) == tuning.objects
    assert join_tunings([tuned, tuned]).objects == tuned.objects
    # A setting of the prediction replaces what was chosen; the rest stays.
    assert tuned.objects_for(SEPARATED) == tuned.objects
    changed = tuned.objects_for(replace(SEPARATED, min_size_px=7))
    assert changed == replace(tuned.objects, min_size_px=7)
    assert tuned.objects_for(replace(SEPARATED, separation="none")).separation == "none"


def test_choose_tuning_does_not_remove_sizes_that_are_annotated():
    # Wrong parts of 3 x 3 pixels beside squares of that size: the Dice is better without them.
    objects = touching_squares(size=48, side=3)
    objects[24:] = 0
    wrong = np.zeros_like(objects)
    for column in range(8):
        wrong[30:33, 6 * column : 6 * column + 3] = column + 1
    seen = np.where(wrong > 0, objects.max() + wrong, objects)
    cases = [
        replace(predicted(name, seen), truth=(objects > 0).astype(np.uint8), objects=objects)
        for name in "abc"
    ]
    tuned = choose_tuning(cases, NUMBERED, rule=True, how=SEPARATED)
    cleaning = tuned.rule.of("lesion").cleaning
    assert not cleaning.largest_only
    assert cleaning.min_size_px <= 9


def test_label_objects_needs_the_learned_distance():
    with pytest.raises(ConfigError) as error:
        label_objects(np.ones((4, 4), np.uint8), SEPARATED)
    assert error.value.code == "distance_required"
