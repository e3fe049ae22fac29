from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ushape.metrics.stats import Interval, bootstrap_mean, compare_paired

DISTRIBUTIONS = {
    "normal": (lambda rng, n: rng.normal(0.5, 0.2, n), 0.5),
    "exponential": (lambda rng, n: rng.exponential(1, n), 1.0),
    "Dice": (lambda rng, n: rng.beta(8, 1, n), 8 / 9),
    "Dice and a tenth missed": (
        lambda rng, n: rng.beta(8, 1, n) * (rng.random(n) >= 0.1),
        0.9 * 8 / 9,
    ),
}


def coverage(name, groups, level=0.95, simulations=1000):
    """Share of simulations whose interval contains the true mean."""
    draw, truth = DISTRIBUTIONS[name]
    rng = np.random.default_rng(1)
    samples = [draw(rng, groups) for _ in range(simulations)]
    found = [bootstrap_mean(own, seed=0, resamples=1000, level=level) for own in samples]
    return np.mean([interval.low <= truth <= interval.high for interval in found])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_bootstrap_mean_of_30_groups_has_nominal_coverage(name):
    assert 0.92 <= coverage(name, groups=30) <= 0.97


@pytest.mark.parametrize("name", ["normal", "exponential", "Dice"])
def test_bootstrap_mean_of_10_groups_has_nominal_coverage(name):
    # A percentile interval contains it in 90, 87 and 87 %, a widened one in 94, 91 and 92 %.
    assert 0.91 <= coverage(name, groups=10) <= 0.97


def test_bootstrap_mean_coverage_decreases_with_the_level():
    assert 0.77 <= coverage("normal", groups=30, level=0.8) <= 0.83


@pytest.mark.parametrize("groups", [10, 200])
def test_bootstrap_mean_of_a_symmetric_sample_is_its_t_interval(groups):
    values = stats.norm(0.8, 0.1).ppf((np.arange(groups) + 0.5) / groups)
    low, high = stats.t(groups - 1, values.mean(), stats.sem(values)).interval(0.95)
    found = bootstrap_mean(values, seed=0, resamples=50_000)
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))
    assert (found.is_reliable, found.groups) == (True, groups)


@pytest.mark.parametrize("name", ["exponential", "Dice", "Dice and a tenth missed"])
def test_bootstrap_mean_agrees_with_scipy_at_the_widened_level(name):
    rng = np.random.default_rng(3)
    values = DISTRIBUTIONS[name][0](rng, 40)
    wide = np.sqrt(40 / 39) * stats.t(39).ppf(0.975)
    peer = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=50_000,
        confidence_level=1 - 2 * stats.norm.sf(wide),
        method="BCa",
        rng=rng,
    ).confidence_interval
    found = bootstrap_mean(values, seed=0, resamples=50_000)
    tolerance = 0.02 * (peer.high - peer.low)
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=tolerance)


def test_bootstrap_mean_is_reproducible():
    values = np.random.default_rng(0).random(12)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_bootstrap_mean_of_few_and_of_equal_values():
    assert bootstrap_mean([0.5], seed=0) is None
    assert bootstrap_mean([], seed=0) is None
    assert bootstrap_mean([0.1] * 3, seed=0) == Interval(low=0.1, high=0.1, groups=3)
    assert bootstrap_mean([1.0] * 30, seed=0).is_reliable
    assert bootstrap_mean([0.2, 0.6], seed=0) == Interval(low=0.2, high=0.6, groups=2)


@pytest.mark.parametrize("groups", [2, 3, 5, 30])
def test_bootstrap_mean_lies_within_the_values_around_their_mean(groups):
    rng = np.random.default_rng(groups)
    for misses in (0, 1, groups - 1):
        values = np.array([0.0] * misses + [1.0, *rng.random(groups - misses - 1)])
        found = bootstrap_mean(values, seed=0, resamples=500)
        assert values.min() <= found.low <= values.mean() <= found.high <= values.max()


def test_bootstrap_mean_of_resamples_on_one_side_is_finite():
    for seed in range(9):
        found = bootstrap_mean([0.2, 0.4, 0.9], seed=seed, resamples=2)
        assert 0.2 <= found.low <= found.high <= 0.9


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e100])
def test_bootstrap_mean_scales_with_the_values(scale):
    values = np.random.default_rng(0).exponential(size=8)
    one, other = bootstrap_mean(values, seed=0), bootstrap_mean(values * scale, seed=0)
    assert other.low == pytest.approx(one.low * scale, rel=1e-9)
    assert other.high == pytest.approx(one.high * scale, rel=1e-9)


def test_bootstrap_mean_of_values_that_differ_by_rounding():
    found = bootstrap_mean([0.1 + 0.2, 0.3, 0.3], seed=0)
    assert (found.low, found.high) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_bootstrap_mean_refuses_nan_and_infinity(wrong):
    with pytest.raises(ValueError, match="NaN or infinite"):
        bootstrap_mean([0.5, wrong, 0.7], seed=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        compare_paired([0.5, wrong], [0.5, 0.7], seed=0)


def test_compare_paired_by_hand():
    found = compare_paired(np.arange(1, 9) / 10, np.zeros(8), seed=0)
    assert found.mean_difference == pytest.approx(0.45)
    # All 8 differences have one sign: 2 of 2^8 combinations of signs.
    assert (found.p_value, found.pairs) == (2 / 256, 8)


def test_compare_paired_interval_is_that_of_the_differences():
    a, b = np.random.default_rng(0).random((2, 12))
    found = compare_paired(a, b, seed=3).interval
    expected = bootstrap_mean(a - b, seed=3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_compare_paired_of_balanced_differences():
    found = compare_paired([1, 2, 3, -1, -2, -3], [0] * 6, seed=0)
    assert (found.mean_difference, found.p_value) == (0, 1)


def test_compare_paired_ranks_zeros_and_then_drops_them():
    # Ranks 3 to 8 differ, 5 is the wrong way: sums up to 5 are none, 3, 4 and 5, of 2^6 on
    # either side. Without the zeros in the ranking they were 5.
    differences = [0, 0, 1, 2, -3, 4, 5, 6]
    assert compare_paired(differences, [0] * 8, seed=0).p_value == 8 / 64


def test_compare_paired_ties_mathematically_equal_differences():
    # 0.3 - 0.2 and 0.2 - 0.1 tie, so that seven ways up and one down have p = 2 (1 + 8) / 2^8.
    a, b = [0.3] * 4 + [0.2] * 3 + [0.1], [0.2] * 4 + [0.1] * 3 + [0.2]
    assert compare_paired(a, b, seed=0).p_value == 18 / 256


def test_compare_paired_is_antisymmetric():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 20))
    one, other = compare_paired(a, b, seed=0), compare_paired(b, a, seed=0)
    assert other == replace(one, mean_difference=-one.mean_difference, interval=other.interval)
    assert other.interval.low == pytest.approx(-one.interval.high, abs=0.01)


def test_compare_paired_has_no_p_value_for_few_differences():
    same = compare_paired([0.5] * 9, [0.5] * 9, seed=0)
    assert (same.mean_difference, same.p_value) == (0, None)
    assert (same.interval.low, same.interval.high) == (0, 0)
    assert compare_paired([1] * 5 + [0] * 20, [0] * 25, seed=0).p_value is None
    assert compare_paired([1] * 6, [0] * 6, seed=0).p_value == 2 / 64
    one = compare_paired([0.75], [0.5], seed=0)
    assert (one.mean_difference, one.interval, one.p_value, one.pairs) == (0.25, None, None, 1)


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1]), ([], [])])
def test_compare_paired_refuses_unpaired_scores(a, b):
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_paired(a, b, seed=0)


@pytest.mark.parametrize("pairs", [6, 20, 50, 51, 300])
def test_compare_paired_p_value_agrees_with_scipy(pairs):
    rng = np.random.default_rng(pairs)
    for _ in range(5):
        differences = rng.normal(0.2, 1, pairs)
        expected = stats.wilcoxon(differences).pvalue
        found = compare_paired(differences, np.zeros(pairs), seed=0).p_value
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("pairs", [9, 60, 200])
def test_compare_paired_p_value_agrees_with_scipy_for_ties_and_zeros(pairs):
    rng = np.random.default_rng(pairs)
    for _ in range(3):
        differences = np.append(rng.integers(-2, 5, pairs - 6), [1, -1, 2, 3, 3, 3])
        expected = stats.wilcoxon(differences, zero_method="pratt").pvalue
        found = compare_paired(differences, np.zeros(pairs), seed=0).p_value
        assert found == pytest.approx(expected)
