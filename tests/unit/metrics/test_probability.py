from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from ushape.metrics.probability import (
    Reliability,
    ReliabilityPoint,
    auroc,
    average_precision,
    measure_reliability,
)

SCORES = (auroc, average_precision, measure_reliability)


def masks(*values):
    return np.array(values, dtype=bool)


def random_pairs(count):
    """Probabilities with and without ties, their ground truth, and the counted pixels."""
    rng = np.random.default_rng(0)
    for number in range(count):
        probability = rng.random((9, 11)).astype(rng.choice([np.float32, np.float64]))
        truth = rng.random((9, 11)) < probability ** rng.uniform(0.2, 5)
        counted = rng.random((9, 11)) < 0.8
        yield probability if number % 2 else probability.round(1), truth, counted


def test_auroc_and_average_precision_by_hand():
    probability, truth = np.array([0.9, 0.8, 0.8, 0.3]), masks(1, 1, 0, 0)
    # Of 4 pairs of a positive and a negative pixel, 3 are in order, and 1 is a tie.
    assert auroc(probability, truth) == 3.5 / 4
    # At 0.9, recall is 1/2 and precision 1; at 0.8, recall is 1 and precision 2/3.
    assert average_precision(probability, truth) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


@pytest.mark.parametrize(
    ("probability", "area", "precision"),
    [([0.1, 0.2, 0.7, 0.8], 1, 1), ([0.8, 0.7, 0.2, 0.1], 0, (1 / 3 + 2 / 4) / 2)],
)
def test_auroc_of_perfect_and_reversed_order(probability, area, precision):
    truth = masks(0, 0, 1, 1)
    assert auroc(np.array(probability), truth) == area
    assert average_precision(np.array(probability), truth) == pytest.approx(precision)


def test_auroc_of_equal_probabilities_is_one_half():
    probability, truth = np.full((2, 4), 0.5), np.arange(8).reshape(2, 4) < 2
    assert auroc(probability, truth) == 0.5
    assert average_precision(probability, truth) == 2 / 8


def test_auroc_distinguishes_adjacent_floats():
    assert auroc(np.array([0.5, 0.5 + 1e-12]), masks(0, 1)) == 1


@pytest.mark.parametrize("truth", [masks(), masks(0), masks(1), masks(0, 0), masks(1, 1)])
@pytest.mark.parametrize("score", [auroc, average_precision])
def test_auroc_of_a_single_class_is_none(score, truth):
    assert score(np.linspace(0, 1, truth.size), truth) is None


def test_auroc_and_average_precision_agree_with_scikit_learn():
    for probability, truth, counted in random_pairs(200):
        flat = truth[counted], probability[counted]
        assert auroc(probability, truth, counted) == pytest.approx(roc_auc_score(*flat))
        expected = average_precision_score(*flat)
        assert average_precision(probability, truth, counted) == pytest.approx(expected)


def test_measure_reliability_by_hand():
    found = measure_reliability(np.array([[0.0, 0.25], [0.25, 1.0]]), masks([0, 0], [1, 0]))
    # Bins are 1/15 wide: 0 lies in the first, 0.25 in the fourth, 1 in the last.
    assert found.pixels == (1, 0, 0, 2, *[0] * 10, 1)
    assert found.probability_sum == (0, 0, 0, 0.5, *[0] * 10, 1)
    assert found.positives == (0, 0, 0, 1, *[0] * 11)
    # Gaps: none; 2 pixels of 0.25 with truth 0.5; 1 pixel of 1 with truth 0.
    assert found.expected_calibration_error == (2 * 0.25 + 1) / 4
    assert found.brier == (0.25**2 + 0.75**2 + 1) / 4
    assert found.curve == (
        ReliabilityPoint(mean_probability=0, positive_fraction=0, pixels=1),
        ReliabilityPoint(mean_probability=0.25, positive_fraction=0.5, pixels=2),
        ReliabilityPoint(mean_probability=1, positive_fraction=0, pixels=1),
    )


@pytest.mark.parametrize(("truth", "error"), [(masks(1, 0), 0), (masks(0, 1), 1)])
def test_reliability_of_certain_right_and_wrong_predictions(truth, error):
    found = measure_reliability(np.array([1.0, 0.0]), truth)
    assert found.expected_calibration_error == found.brier == error


def test_reliability_without_pixels_is_none():
    found = measure_reliability(np.full((2, 2), 0.5), np.ones((2, 2), bool), np.zeros((2, 2), bool))
    assert (found.expected_calibration_error, found.brier, found.curve) == (None, None, ())
    one = measure_reliability(np.array([0.5]), masks(1))
    assert one + found == one


def test_reliability_of_cases_adds_up_to_the_pool():
    rng = np.random.default_rng(0)
    probability, truth = rng.random((3, 8, 8)), rng.random((3, 8, 8)) < 0.3
    first, *others = map(measure_reliability, probability, truth)
    pooled, whole = sum(others, first), measure_reliability(probability, truth)
    assert (pooled.pixels, pooled.positives) == (whole.pixels, whole.positives)
    assert pooled.probability_sum == pytest.approx(whole.probability_sum)
    assert pooled.brier == pytest.approx(whole.brier)
    assert isinstance(pooled, Reliability)


def test_reliability_agrees_with_a_loop_and_scikit_learn():
    for probability, truth, counted in random_pairs(200):
        found = measure_reliability(probability, truth, counted)
        shares, is_true = probability[counted], truth[counted]
        edges = np.linspace(0, 1, 16)
        gaps = 0.0
        for low, high in pairwise(edges):
            inside = (shares >= low) & ((shares < high) | (high == 1))
            gaps += abs(float(shares[inside].sum()) - is_true[inside].sum())
        assert found.expected_calibration_error == pytest.approx(gaps / is_true.size, rel=1e-5)
        assert found.brier == pytest.approx(brier_score_loss(is_true, shares), rel=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_probability_metrics_ignore_uncounted_pixels(score):
    probability, truth = np.array([[0.9, 0.4], [0.3, np.nan]]), masks([1, 0], [1, 1])
    counted = masks([1, 1], [1, 0])
    assert score(probability, truth, counted) == score(probability[counted], truth[counted])


@pytest.mark.parametrize("score", SCORES)
def test_reliability_sums_float16_in_higher_precision(score):
    half = np.random.default_rng(0).random((64, 64)).astype(np.float16)
    truth = half > 0.3
    assert score(half, truth) == score(half.astype(np.float32), truth)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("probability", "truth", "counted", "message"),
    [
        ([0.5, np.nan], masks(0, 1), None, "range from nan"),
        ([0.5, 1.5], masks(0, 1), None, "from 0.5 to 1.5"),
        ([-0.5, 0.5], masks(0, 1), None, "from -0.5 to 0.5"),
        ([0, 255], masks(0, 1), None, "floats from 0 to 1, not int64"),
        ([0.5, 0.5], np.array([0, 255]), None, r"bool of shape \(2,\), not int64 \(2,\)"),
        ([0.5, 0.5], masks(0, 1, 1), None, r"bool of shape \(2,\), not bool \(3,\)"),
        ([0.5, 0.5], masks(0, 1), masks(1), r"bool \(2,\), bool \(1,\)"),
    ],
)
def test_probability_metrics_refuse_invalid_input(score, probability, truth, counted, message):
    with pytest.raises(ValueError, match=message):
        score(np.array(probability), truth, counted)
