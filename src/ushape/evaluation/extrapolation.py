"""What more training groups would bring: an inverse power law through a learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from ushape.metrics.stats import Interval, widened_half_width

EXPONENTS = np.geomspace(0.05, 2.0, 300)
"""Tried one by one: a slower fall than the lowest, or a steeper one than the highest, cannot be
told from them between a few points."""

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """error(groups) = scale * groups^-exponent + floor."""

    scale: float
    exponent: float
    floor: float
    """What no number of groups takes away."""

    def dice(self, groups: np.ndarray) -> np.ndarray:
        return np.asarray(1 - self.floor - self.scale * groups**-self.exponent)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What so many times the training groups would add to the mean Dice."""

    factor: int
    groups: int
    """Training groups after that."""

    dice: float
    """Added, at least 0."""

    interval: Interval | None
    """Had other test groups been drawn; None for one test group."""


def fit_power_law(groups: Sequence[int], dice: Sequence[float]) -> PowerLaw:
    """The law with the least squared distance to the points. It never falls with more groups.

    Args:
        groups: Training groups of each point, at least 1.
        dice: Mean Dice of each point, 0 to 1.

    Source:
        Cortes et al. 1994 (Learning Curves: Asymptotic Values and Rate of Convergence), NIPS 6;
        Hestness et al. 2017, arXiv 1712.00409. Scale and floor are at least 0.
    """
    errors = 1 - np.asarray(dice, dtype=np.float64)
    scale, exponent, floor = _fit(np.asarray(groups, dtype=np.float64), errors[None])
    return PowerLaw(scale=float(scale[0]), exponent=float(exponent[0]), floor=float(floor[0]))


def predict_gains(
    groups: Sequence[int],
    scores: np.ndarray,
    factors: Sequence[int],
    *,
    seed: int,
    resamples: int = 4000,
) -> list[Gain]:
    """What so many times the last point's groups would bring, with 95 % intervals.

    Bootstrap over the test groups, the same ones for all points, widened for few groups as in
    Hesterberg 2014, arXiv 1411.5279. It knows nothing of what another training would give.

    Args:
        groups: Training groups of each point, ascending.
        factors: At least 1.

    Shapes:
        scores: (P, G) Dice of each test group at each point.
    """
    counts, (_, tested) = np.asarray(groups, dtype=np.float64), scores.shape
    draws = np.random.default_rng(seed).multinomial(
        tested, np.full(tested, 1 / tested), size=resamples
    )
    drawn = _fit(counts, 1 - draws @ scores.T / tested)
    whole = _fit(counts, 1 - scores.mean(axis=1)[None])
    gains = []
    for factor in factors:
        interval = None
        if tested > 1:
            low, high = np.quantile(_gain(drawn, counts[-1], factor), _shares(tested))
            interval = Interval(low=float(low), high=float(high), groups=tested)
        gain = float(_gain(whole, counts[-1], factor)[0])
        after = factor * groups[-1]
        gains.append(Gain(factor=factor, groups=after, dice=gain, interval=interval))
    return gains


def _fit(groups: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each exponent the best scale and floor in closed form; of these the best.

    Shapes:
        groups: (P,); errors: (R, P).
        returns: scale, exponent, floor, each (R,).
    """
    falls = groups[None] ** -EXPONENTS[:, None]  # (E, P)
    mean_fall, mean_error = falls.mean(axis=1), errors.mean(axis=1)
    steep = falls - mean_fall[:, None]
    scale = (errors @ steep.T / (steep**2).sum(axis=1)).clip(min=0)  # (R, E)
    floor = mean_error[:, None] - scale * mean_fall
    without = errors @ falls.T / (falls**2).sum(axis=1)
    scale, floor = np.where(floor < 0, without, scale), floor.clip(min=0)

    missed = np.zeros_like(scale)
    for place in range(len(groups)):
        missed += (scale * falls[:, place] + floor - errors[:, place, None]) ** 2
    best = missed.argmin(axis=1)
    rows = np.arange(len(errors))
    return scale[rows, best], EXPONENTS[best], floor[rows, best]


def _gain(law: tuple[np.ndarray, np.ndarray, np.ndarray], groups: float, factor: int) -> np.ndarray:
    scale, exponent, _ = law
    return np.asarray(scale * groups**-exponent * (1 - float(factor) ** -exponent))


def _shares(tested: int) -> np.ndarray:
    """(2,) shares of the resamples below the ends of the interval."""
    half_width = widened_half_width(tested, LEVEL)
    return np.asarray(ndtr([-half_width, half_width]))
