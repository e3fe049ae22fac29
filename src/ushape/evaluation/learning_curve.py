"""A learning curve: Dice by the number of training groups, and what more of them would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from ushape.errors import DataError, RunError
from ushape.evaluation.scores import CaseScore, pool_groups
from ushape.formatting import group_label, singular
from ushape.metrics.stats import RELIABLE_FROM, Interval, bootstrap_mean, widened_half_width

FACTORS = (2, 4)
"""So many times the groups are asked about."""

TIMES = {2: "Twice", 4: "four times"}

HARDLY = 0.005
"""A gain below it is +0.00 to two digits."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One training on some of the groups."""

    groups: int
    cases: int
    folder: Path
    """The run."""

    dice: float
    """Mean over the test groups."""

    interval: Interval | None
    """None for one test group."""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Trainings on more and more groups, tested on the same others."""

    points: tuple[CurvePoint, ...]
    """By their groups, ascending; the last has them all."""

    law: PowerLaw
    gains: tuple[Gain, ...]
    """Of twice and of four times the groups."""

    test_groups: int
    """Those that hold something to be found."""

    group_noun: str
    """What a group is, in the plural."""

    @property
    def rises(self) -> bool:
        return self.law.scale > 0 and self.points[-1].dice > self.points[0].dice

    @property
    def verdict(self) -> str:
        """The result in a few sentences."""
        first, last, noun = self.points[0], self.points[-1], self.group_noun
        tested = group_label(self.test_groups, f"test {noun}")
        text = (
            f"Mean Dice on {tested}: {first.dice:.2f} after training on {first.groups}, "
            f"{last.dice:.2f} on {last.groups} {noun}. "
        )
        if self.rises:
            gains = (f"{self._times(gain)}: {_gain_text(gain)}" for gain in self.gains)
            text += "; ".join(gains) + "."
        else:
            text += "The curve does not rise: there is nothing to extrapolate."
        if not self.rises or self.gains[0].dice < HARDLY:
            text += (
                f" Before you annotate more {noun}, train longer and look at the masks (ushape"
                " check): that may do more."
            )
        return text + self._doubt()

    def _times(self, gain: Gain) -> str:
        times = TIMES[gain.factor]
        return f"{times} the {self.group_noun}" if gain.factor == FACTORS[0] else times

    def _doubt(self) -> str:
        if self.test_groups < 2:
            return f" One test {singular(self.group_noun)} says nothing about the spread."
        if self.test_groups < RELIABLE_FROM:
            count = f"{self.test_groups} test {self.group_noun}"
            return f" With {count} the intervals are not to be relied on."
        return ""


def make_curve(
    groups: Sequence[int],
    cases: Sequence[int],
    folders: Sequence[Path],
    scores: Sequence[Sequence[CaseScore]],
    *,
    noun: str,
    seed: int,
) -> LearningCurve:
    """Fits and extrapolates.

    Args:
        groups, cases: How many each point was trained on; ascending.
        folders: Each point's run.
        scores: Each point's scores of the same test cases.
        noun: What a group is, in the plural.
        seed: Of the bootstrap.

    Raises:
        DataError: no test group holds anything to be found.
        RunError: the points were not tested on the same groups.
    """
    dice = _dice_table(scores)
    means = dice.mean(axis=1)
    return LearningCurve(
        points=tuple(
            CurvePoint(
                groups=groups[place],
                cases=cases[place],
                folder=folders[place],
                dice=float(means[place]),
                interval=bootstrap_mean(dice[place].tolist(), seed=seed),
            )
            for place in range(len(groups))
        ),
        law=fit_power_law(groups, means.tolist()),
        gains=tuple(predict_gains(groups, dice, FACTORS, seed=seed)),
        test_groups=dice.shape[1],
        group_noun=noun,
    )


def _dice_table(scores: Sequence[Sequence[CaseScore]]) -> np.ndarray:
    """(P, G) Dice of each point in each test group that holds something to be found."""
    by_group = [_dice_by_group(own) for own in scores]
    tested = sorted(by_group[0])
    if not tested:
        raise DataError(
            "No test group holds anything to be found: there is no Dice to draw a curve of.",
            hint="Another --seed splits the groups differently.",
        )
    if any(sorted(own) != tested for own in by_group):
        raise RunError(
            "The points were not tested on the same groups: masks have changed in between.",
            hint="Begin again in another folder.",
        )
    return np.asarray([[own[group] for group in tested] for own in by_group])


def _dice_by_group(scores: Sequence[CaseScore]) -> dict[str, float]:
    """The mean over the classes that a group holds; a missed one counts 0."""
    found: dict[str, list[float]] = {}
    for score in pool_groups(scores):
        if score.counts.truth:
            found.setdefault(score.group, []).append(score.dice or 0.0)
    return {group: float(np.mean(own)) for group, own in found.items()}


def _gain_text(gain: Gain) -> str:
    interval = gain.interval
    text = f"+{gain.dice:.2f}"
    return f"{text} [{interval.low:.2f}, {interval.high:.2f}]" if interval is not None else text


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
