import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, precision_score, recall_score

from ushape.labels import IGNORE, Region
from ushape.metrics import METRICS
from ushape.metrics.overlap import (
    Counts,
    balanced_accuracy,
    case_kind,
    count_classes,
    count_overlap,
    dice,
    iou,
    mean_known,
    pixel_error,
    precision,
    recall,
    volume_difference,
)

ONE = Region(name="one", classes=(1,))


def counts(overlap, truth, predicted):
    return Counts(overlap=overlap, truth=truth, predicted=predicted, pixels=100)


def test_overlap_metrics_by_hand():
    truth = np.array([[0, 1, 1, 1], [2, 2, IGNORE, 0]])
    guess = np.array([[0, 1, 1, 0], [1, 2, 1, 1]])
    found = count_overlap(guess, truth, ONE)
    assert found == Counts(overlap=2, truth=3, predicted=4, pixels=7)
    assert dice(found) == pytest.approx(4 / 7)
    assert iou(found) == pytest.approx(2 / 5)
    assert precision(found) == 2 / 4
    assert recall(found) == pytest.approx(2 / 3)
    assert volume_difference(found) == pytest.approx(1 / 3)
    # Of the 4 background pixels, 2 are predicted as background.
    assert balanced_accuracy(found) == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert pixel_error(guess, truth) == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    ("found", "kind", "value"),
    [
        (counts(3, 3, 3), "both present", 1.0),
        (counts(0, 5, 0), "missed", 0.0),
        (counts(0, 5, 9), "missed", 0.0),
        (counts(0, 0, 2), "false positive", 0.0),
        (counts(0, 0, 0), "both empty", None),
    ],
)
def test_case_kind_of_the_four_kinds(found, kind, value):
    assert case_kind(found) == kind
    assert dice(found) == iou(found) == value


@pytest.mark.parametrize(
    ("found", "values"),
    [
        (counts(3, 3, 3), (1, 1, 0, 1)),
        (counts(0, 5, 0), (0, 0, -1, 0.5)),
        (counts(0, 5, 10), (0, 0, 1, (0 + 85 / 95) / 2)),
        (counts(0, 0, 2), (0, None, None, None)),
        (counts(0, 0, 0), (None, None, None, None)),
        (counts(100, 100, 100), (1, 1, 0, None)),
        (Counts(overlap=1, truth=1, predicted=1, pixels=1), (1, 1, 0, None)),
        (Counts(overlap=0, truth=0, predicted=0, pixels=0), (None, None, None, None)),
    ],
)
def test_overlap_metrics_are_none_if_undefined_and_0_for_a_miss(found, values):
    own = precision, recall, volume_difference, balanced_accuracy
    assert tuple(metric(found) for metric in own) == values


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("predicted", [0, 7])
def test_overlap_metrics_of_a_miss_are_all_defined(name, predicted):
    assert METRICS[name](counts(0, 5, predicted)) is not None


def test_overlap_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(200):
        truth, guess = rng.random((2, 6, 6)) < rng.uniform(0.1, 0.9, size=(2, 1, 1))
        found = count_overlap(guess, truth, ONE)
        flat = truth.ravel(), guess.ravel()
        assert precision(found) == pytest.approx(precision_score(*flat, zero_division=0))
        assert recall(found) == pytest.approx(recall_score(*flat))
        assert balanced_accuracy(found) == pytest.approx(balanced_accuracy_score(*flat))


def test_counts_of_slices_add_up_to_those_of_the_volume():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(2, size=(2, 4, 9, 9))
    slices = [count_overlap(g, t, ONE) for g, t in zip(guess, truth, strict=True)]
    assert sum(slices[1:], slices[0]) == count_overlap(guess, truth, ONE)


def test_pixel_error_of_a_fully_ignored_mask_is_0():
    assert pixel_error(np.zeros((2, 2)), np.full((2, 2), IGNORE)) == 0


def test_mean_known_leaves_out_undefined_values():
    assert mean_known([0.5, None, 1.0]) == 0.75
    assert mean_known([None]) is None


def test_count_classes_equals_count_overlap_of_each_class():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 4, (2, 20, 20)).astype(np.uint8)
    truth[:4] = IGNORE
    single = [Region(name=str(index), classes=(index,)) for index in (1, 2, 3)]
    nested = [Region(name="all", classes=(1, 2, 3)), Region(name="core", classes=(3,))]
    for scored in (single, nested):
        expected = [count_overlap(predicted, truth, region) for region in scored]
        assert count_classes(predicted, truth, scored) == expected
