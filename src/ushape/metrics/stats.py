"""How sure a mean is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RELIABLE_FROM = 10
"""Groups below which an interval is not to be relied on."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where the mean would lie, had other groups been drawn."""

    low: float
    high: float
    groups: int

    @property
    def is_reliable(self) -> bool:
        return self.groups >= RELIABLE_FROM


def bootstrap_mean(
    values: Sequence[float], *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval | None:
    """Percentile bootstrap of a mean; None for fewer than two values.

    Args:
        values: One per group: what was drawn together is resampled together.

    Source:
        Efron 1979; percentile method.
    """
    if len(values) < 2:
        return None
    numbers = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, 2_000_000 // len(numbers))  # Some 16 MB of indices at a time.
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        draws = rng.integers(len(numbers), size=(size, len(numbers)))
        means[start : start + size] = numbers[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), groups=len(numbers))
