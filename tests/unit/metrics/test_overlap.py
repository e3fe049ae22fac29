import numpy as np
import pytest

from ushape.labels import IGNORE, Region
from ushape.metrics.overlap import Counts, count_overlap, dice, iou, kind_of, pixel_error
from ushape.metrics.stats import bootstrap_mean

ONE = Region(name="one", classes=(1,))


def counts(overlap, truth, predicted):
    return Counts(overlap=overlap, truth=truth, predicted=predicted, pixels=100)


def test_counted_by_hand():
    truth = np.array([[0, 1, 1, 1], [2, 2, IGNORE, 0]])
    guess = np.array([[0, 1, 1, 0], [1, 2, 1, 1]])
    found = count_overlap(guess, truth, ONE)
    assert found == Counts(overlap=2, truth=3, predicted=4, pixels=7)
    assert dice(found) == pytest.approx(4 / 7)
    assert iou(found) == pytest.approx(2 / 5)
    assert pixel_error(guess, truth) == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    ("found", "kind", "value"),
    [
        (counts(3, 3, 3), "both present", 1.0),
        (counts(0, 5, 0), "missed", 0.0),
        (counts(0, 5, 9), "missed", 0.0),
        (counts(0, 0, 2), "false alarm", 0.0),
        (counts(0, 0, 0), "both empty", None),
    ],
)
def test_four_kinds_of_case(found, kind, value):
    assert kind_of(found) == kind
    assert dice(found) == iou(found) == value


def test_slices_add_up_to_their_volume():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(2, size=(2, 4, 9, 9))
    slices = [count_overlap(g, t, ONE) for g, t in zip(guess, truth, strict=True)]
    assert sum(slices[1:], slices[0]) == count_overlap(guess, truth, ONE)


def test_everything_ignored_is_no_error():
    assert pixel_error(np.zeros((2, 2)), np.full((2, 2), IGNORE)) == 0


def test_bootstrap_interval_of_a_known_distribution():
    values = np.random.default_rng(0).normal(0.8, 0.1, size=200)
    found = bootstrap_mean(values, seed=0)
    # Normal theory: mean +- 1.96 std / sqrt(n).
    half = 1.96 * values.std() / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=0.002)
    assert found.high == pytest.approx(values.mean() + half, abs=0.002)
    assert found.is_reliable
    assert bootstrap_mean(values, seed=0) == found


def test_bootstrap_of_few_and_of_equal_values():
    assert bootstrap_mean([0.5], seed=0) is None
    assert bootstrap_mean([], seed=0) is None
    few = bootstrap_mean([0.5, 0.5, 0.5], seed=0)
    assert (few.low, few.high, few.is_reliable) == (0.5, 0.5, False)
