"""How sure a mean is, and whether two differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

RELIABLE_FROM = 10
"""Groups below which an interval is not to be relied on."""

MIN_DIFFERENCES = 6
"""Pairs that differ, below which no signed-rank test reaches 0.05: 5 give 2 / 2^5 at best."""

EXACT_UP_TO = 50
"""Pairs above which the signed ranks are taken for normally distributed."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where the mean would lie, had other groups been drawn."""

    low: float
    high: float
    groups: int

    @property
    def is_reliable(self) -> bool:
        return self.groups >= RELIABLE_FROM


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two runs on the same groups."""

    mean_difference: float
    """Of the first less the second, over groups."""

    interval: Interval | None
    """Of the mean difference; None for one pair."""

    p_value: float | None
    """Two-sided, of differences that lie symmetrically about 0; None where fewer than 6 pairs
    differ."""

    pairs: int


def bootstrap_mean(
    values: Sequence[float], *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval | None:
    """Bootstrap of a mean: BCa, widened for few groups; None for fewer than two values.

    At 95 % it held the true mean of normal, exponential and Dice-like numbers in 94 to 95 % of
    3,000 simulations with 30 groups, in 92 to 94 % with 10 and in 87 to 92 % with 5. It knows
    nothing of what no group shows: misses of 1 in 20 are not among 30 groups one time in five,
    and it held 88 %.

    Args:
        values: One per group: what was drawn together is resampled together.

    Raises:
        ValueError: a value is NaN or infinite.

    Source:
        Efron 1987 (Better Bootstrap Confidence Intervals), JASA 82. Widened as in Hesterberg
        2014, arXiv 1411.5279, so that a symmetric sample has its t interval.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("The mean of values that are NaN or infinite has no interval.")
    if len(numbers) < 2:
        return None
    if np.ptp(numbers) == 0:
        low = high = numbers[0]
    else:
        means = _resample_means(numbers, resamples, seed)
        low, high = np.quantile(means, _bca_shares(numbers, means, level))
    return Interval(low=float(low), high=float(high), groups=len(numbers))


def compare_paired(a: Sequence[float], b: Sequence[float], *, seed: int) -> PairedComparison:
    """By how much the scores of one run exceed those of another, and how sure that is.

    Args:
        a, b: One score per group, the groups in the same order.
        seed: Of the bootstrap.

    Raises:
        ValueError: not as many scores in both, none at all, NaN or infinite ones.

    Source:
        Signed ranks of Wilcoxon 1945, zeros ranked and then left out as in Pratt 1959. Up to 50
        pairs exact over all signs, ties and zeros too, where scipy.stats.wilcoxon is so up to 13.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} scores do not make pairs.")
    # Rounded, so that differences equal on paper tie: 0.3 - 0.2 is not 0.2 - 0.1.
    differences = (np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).round(12)
    return PairedComparison(
        mean_difference=float(differences.mean()),
        interval=bootstrap_mean(differences.tolist(), seed=seed),
        p_value=_signed_rank_p(differences),
        pairs=len(differences),
    )


def widened_half_width(groups: int, level: float) -> float:
    """Standard deviations from the middle of an interval to its ends: those of the t interval, so
    many times wider as a resample of few groups is too narrow.

    Source:
        Hesterberg 2014, arXiv 1411.5279.
    """
    return float(np.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, (1 + level) / 2))


def _resample_means(numbers: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, 2_000_000 // len(numbers))  # Some 16 MB of indices at a time.
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        draws = rng.integers(len(numbers), size=(size, len(numbers)))
        means[start : start + size] = numbers[draws].mean(axis=1)
    return means


def _bca_shares(numbers: np.ndarray, means: np.ndarray, level: float) -> np.ndarray:
    """(2,) shares of the bootstrap means that lie below the ends of the interval."""
    groups, spread = len(numbers), np.ptp(numbers)
    deviations = (numbers - numbers.mean()) / spread
    skew = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)

    # Rounded, so that means equal on paper tie; ties lie half below.
    sides = np.sign(((means - numbers.mean()) / spread).round(9))
    below = (1 - sides.mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(means), 1 - 0.5 / len(means)))

    half_width = widened_half_width(groups, level)
    z = bias + np.array([-half_width, half_width])
    return ndtr(bias + z / np.maximum(1 - skew * z, 1e-9))


def _signed_rank_p(differences: np.ndarray) -> float | None:
    changed = differences != 0
    if changed.sum() < MIN_DIFFERENCES:
        return None
    _, slot, ties = np.unique(np.abs(differences), return_inverse=True, return_counts=True)
    # Ranks are doubled: the mean rank of ties may be a half.
    ranks = (2 * np.cumsum(ties) - ties + 1)[slot]
    up, down = int(ranks[differences > 0].sum()), int(ranks[differences < 0].sum())
    if len(differences) > EXACT_UP_TO:
        return float(2 * ndtr(-abs(up - down) / np.sqrt((ranks[changed] ** 2).sum())))
    return min(1.0, 2 * _chance_of_at_most(min(up, down), ranks[changed].tolist()))


def _chance_of_at_most(total: int, ranks: Sequence[int]) -> float:
    """That ranks which each count or not, as a coin falls, have at most this sum."""
    chances = np.ones(1)  # Of each sum, from 0.
    for rank in ranks:
        without, counting = np.pad(chances, (0, rank)), np.pad(chances, (rank, 0))
        chances = (without + counting) / 2
    return float(chances[: total + 1].sum())
