"""Confidence intervals of means and paired significance tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

RELIABLE_FROM = 10
"""Number of groups below which an interval is reported as unreliable."""

MIN_DIFFERENCES = 6
"""Minimum number of nonzero differences for the signed-rank test: with 5, p >= 2 / 2^5 = 0.06."""

EXACT_UP_TO = 50
"""Number of pairs up to which the signed-rank test is exact; above, it uses a normal
approximation."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Confidence interval of a mean over groups."""

    low: float
    high: float
    groups: int

    @property
    def is_reliable(self) -> bool:
        """Whether the interval rests on at least `RELIABLE_FROM` groups."""
        return self.groups >= RELIABLE_FROM


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Paired comparison of two runs on the same groups."""

    mean_difference: float
    """Mean over groups of first minus second."""

    interval: Interval | None
    """Confidence interval of the mean difference; None for a single pair."""

    p_value: float | None
    """Two-sided p-value of the signed-rank test; None if fewer than 6 pairs differ."""

    pairs: int


def bootstrap_mean(
    values: Sequence[float], *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval | None:
    """Compute a BCa bootstrap interval of a mean; None for fewer than two values.

    In 3,000 simulations with normal, exponential and Dice-like values, the 95% interval contained
    the true mean in 94 to 95% of the cases with 30 groups, in 92 to 94% with 10 and in 87 to 92%
    with 5. Coverage drops to 88% when failures are rare (1 in 20) and the sample of 30 groups may
    contain none.

    Args:
        values: One value per group.
        seed: Seed of the resampling.
        resamples: Number of bootstrap samples.
        level: Confidence level, 0 < value < 1.

    Raises:
        ValueError: if a value is NaN or infinite.

    Source:
        Efron 1987 (Better Bootstrap Confidence Intervals), JASA 82. Widened for few groups as in
        Hesterberg 2014, arXiv 1411.5279, so that a symmetric sample yields its t interval.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinite values have no confidence interval.")
    if len(numbers) < 2:
        return None
    if np.ptp(numbers) == 0:
        low = high = numbers[0]
    else:
        means = _resample_means(numbers, resamples, seed)
        low, high = np.quantile(means, _bca_shares(numbers, means, level))
    return Interval(low=float(low), high=float(high), groups=len(numbers))


def compare_paired(a: Sequence[float], b: Sequence[float], *, seed: int) -> PairedComparison:
    """Test whether the scores of one run exceed those of another.

    Args:
        a, b: One score per group, with the groups in the same order.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: if the numbers of scores differ, or scores are missing, NaN or infinite.

    Source:
        Signed-rank test of Wilcoxon 1945, with zeros ranked and then dropped as in Pratt 1959.
        Exact for up to 50 pairs, including ties and zeros (scipy.stats.wilcoxon: up to 13).
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} scores cannot be paired.")
    # Rounded, so that mathematically equal differences tie: 0.3 - 0.2 != 0.2 - 0.1.
    differences = (np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).round(12)
    return PairedComparison(
        mean_difference=float(differences.mean()),
        interval=bootstrap_mean(differences.tolist(), seed=seed),
        p_value=_signed_rank_p(differences),
        pairs=len(differences),
    )


def widened_half_width(groups: int, level: float) -> float:
    """Return the half width of an interval in standard deviations, corrected for few groups.

    It is the half width of the t interval, scaled because bootstrap samples of few groups vary
    too little.

    Source:
        Hesterberg 2014, arXiv 1411.5279.
    """
    return float(np.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, (1 + level) / 2))


def _resample_means(numbers: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, 2_000_000 // len(numbers))  # About 16 MB of indices at a time.
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        draws = rng.integers(len(numbers), size=(size, len(numbers)))
        means[start : start + size] = numbers[draws].mean(axis=1)
    return means


def _bca_shares(numbers: np.ndarray, means: np.ndarray, level: float) -> np.ndarray:
    """Return the (2,) quantiles of the bootstrap means at which the interval ends."""
    groups, spread = len(numbers), np.ptp(numbers)
    deviations = (numbers - numbers.mean()) / spread
    skew = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)

    # Rounded, so that mathematically equal means tie; half of the ties count as below.
    sides = np.sign(((means - numbers.mean()) / spread).round(9))
    below = (1 - sides.mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(means), 1 - 0.5 / len(means)))

    half_width = widened_half_width(groups, level)
    z = bias + np.array([-half_width, half_width])
    return ndtr(bias + z / np.maximum(1 - skew * z, 1e-9))


def _signed_rank_p(differences: np.ndarray) -> float | None:
    """Return the two-sided p-value; None if fewer than `MIN_DIFFERENCES` are nonzero."""
    changed = differences != 0
    if changed.sum() < MIN_DIFFERENCES:
        return None
    _, slot, ties = np.unique(np.abs(differences), return_inverse=True, return_counts=True)
    # Ranks are doubled, because the mean rank of ties may be a half.
    ranks = (2 * np.cumsum(ties) - ties + 1)[slot]
    up, down = int(ranks[differences > 0].sum()), int(ranks[differences < 0].sum())
    if len(differences) > EXACT_UP_TO:
        return float(2 * ndtr(-abs(up - down) / np.sqrt((ranks[changed] ** 2).sum())))
    return min(1.0, 2 * _probability_at_most(min(up, down), ranks[changed].tolist()))


def _probability_at_most(total: int, ranks: Sequence[int]) -> float:
    """Return the probability that a random subset of the ranks sums to at most `total`."""
    chances = np.ones(1)  # Probability of each sum, starting at 0.
    for rank in ranks:
        without, counting = np.pad(chances, (0, rank)), np.pad(chances, (rank, 0))
        chances = (without + counting) / 2
    return float(chances[: total + 1].sum())
