"""Learning curve: Dice as a function of the number of training groups, and its extrapolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from ushape.errors import DataError, RunError
from ushape.evaluation.scores import CaseScore, pool_groups
from ushape.formatting import group_label
from ushape.metrics.stats import RELIABLE_FROM, Interval, bootstrap_mean, widened_half_width

FACTORS = (2, 4)
"""Multiples of the available training groups for which the gain is predicted."""

TIMES = {2: "twice", 4: "four times"}

MIN_GAIN_DICE = 0.005
"""Gain in Dice below which more training groups are not recommended; smaller ones round to 0."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Result of training on a subset of the groups."""

    groups: int
    cases: int
    folder: Path
    dice: float
    interval: Interval | None
    """95% confidence interval of the mean; None for a single test group."""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Results of training on increasing numbers of groups, evaluated on the same test groups."""

    points: tuple[CurvePoint, ...]
    """Points by increasing number of groups; the last uses all of them."""

    law: PowerLaw
    gains: tuple[Gain, ...]
    test_groups: int
    """Number of test groups with annotated foreground."""

    group_noun: str
    """Plural noun for the groups, e.g. "patients"."""

    def __repr__(self) -> str:
        points = ", ".join(f"{point.groups}: {point.dice:.3f}" for point in self.points)
        return f"LearningCurve(mean Dice by {self.group_noun}: {points})"

    @property
    def rises(self) -> bool:
        """Whether Dice increases with the number of groups."""
        return self.law.scale > 0 and self.points[-1].dice > self.points[0].dice

    @property
    def verdict(self) -> str:
        """Main results in a few sentences."""
        first, last, noun = self.points[0], self.points[-1], self.group_noun
        tested = group_label(self.test_groups, f"test {noun}")
        text = (
            f"The mean Dice on {tested} is {first.dice:.2f} after training on "
            f"{group_label(first.groups, noun)} and {last.dice:.2f} after training on "
            f"{group_label(last.groups, noun)}. "
        )
        if self.rises:
            gains = [f"{_gain_text(gain)} with {TIMES[gain.factor]}" for gain in self.gains]
            text += f"Predicted gain: {' and '.join(gains)} the number of {noun}."
        else:
            text += "Dice does not increase with more training data, so it is not extrapolated."
        if not self.rises or self.gains[0].dice < MIN_GAIN_DICE:
            text += (
                f" Before annotating more {noun}, train longer and check the masks"
                " (`ushape check`)."
            )
        return text + self._reliability_note()

    def _reliability_note(self) -> str:
        if self.test_groups < 2:
            return f" Confidence intervals require at least two test {self.group_noun}."
        if self.test_groups < RELIABLE_FROM:
            count = f"{self.test_groups} test {self.group_noun}"
            return f" These intervals are unreliable: they are based on only {count}."
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
    """Fit a power law to the scores of several runs and extrapolate it.

    Args:
        groups, cases: Number of training groups and cases of each run, ascending.
        scores: Scores of each run on the same test cases.
        noun: Plural noun for the groups, e.g. "patients".

    Raises:
        DataError: if no test group has annotated foreground.
        RunError: if the runs were evaluated on different groups.
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
    """Return the (P, G) Dice of each point in each test group with annotated foreground."""
    by_group = [_dice_by_group(own) for own in scores]
    tested = sorted(by_group[0])
    if not tested:
        raise DataError(
            "No test group has annotated foreground, so there is no Dice for a learning curve.",
            code="no_foreground",
            hint="Choose another --seed to split the groups differently.",
        )
    if any(sorted(own) != tested for own in by_group):
        raise RunError(
            "The runs of the learning curve were evaluated on different groups, because masks were "
            "changed between the runs.",
            code="masks_differ",
            hint="Start a new learning curve in another folder with -o.",
        )
    return np.asarray([[own[group] for group in tested] for own in by_group])


def _dice_by_group(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Return the mean Dice of each group over the classes annotated in it."""
    found: dict[str, list[float]] = {}
    for score in pool_groups(scores):
        if score.counts.truth:
            found.setdefault(score.group, []).append(score.dice or 0.0)
    return {group: float(np.mean(own)) for group, own in found.items()}


def _gain_text(gain: Gain) -> str:
    interval = gain.interval
    text = f"+{gain.dice:.2f}"
    return text if interval is None else f"{text} [{interval.low:.2f}, {interval.high:.2f}]"


EXPONENTS = np.geomspace(0.05, 2.0, 300)
"""Exponents tried in the fit; values beyond them cannot be distinguished with a few points."""

LEVEL = 0.95
"""Confidence level of the predicted gains."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """Power law of the error: 1 - Dice = scale * groups^-exponent + floor."""

    scale: float
    """Error above the floor at one training group."""

    exponent: float
    floor: float
    """Error that remains with any number of groups."""

    def dice(self, groups: np.ndarray) -> np.ndarray:
        """Return the predicted Dice for numbers of training groups."""
        return np.asarray(1 - self.floor - self.scale * groups**-self.exponent)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Predicted gain in mean Dice with a multiple of the training groups."""

    factor: int
    groups: int
    dice: float
    """Gain in mean Dice, at least 0."""

    interval: Interval | None
    """95% confidence interval over test groups; None for a single test group."""


def fit_power_law(groups: Sequence[int], dice: Sequence[float]) -> PowerLaw:
    """Fit a power law by least squares; scale and floor are at least 0, so it never decreases.

    Args:
        groups: Number of training groups of each point, at least 1.
        dice: Mean Dice of each point, 0 to 1.

    Source:
        Cortes et al. 1994 (Learning Curves: Asymptotic Values and Rate of Convergence), NIPS 6;
        Hestness et al. 2017, arXiv 1712.00409.
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
    """Predict the gain with multiples of the training groups of the last point.

    The 95% intervals are a bootstrap over the test groups, with the same resamples for all
    points. They do not include the variation between repeated training runs.

    Args:
        groups: Number of training groups of each point, ascending.
        factors: Multiples of the groups of the last point, at least 1.

    Shapes:
        scores: (P, G) Dice of each test group at each point.

    Source:
        Widened for few groups as in Hesterberg 2014, arXiv 1411.5279.
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
            low, high = np.quantile(_gain(drawn, counts[-1], factor), _quantiles(tested))
            interval = Interval(low=float(low), high=float(high), groups=tested)
        gain = float(_gain(whole, counts[-1], factor)[0])
        after = factor * groups[-1]
        gains.append(Gain(factor=factor, groups=after, dice=gain, interval=interval))
    return gains


def _fit(groups: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit scale and floor in closed form for each exponent and return the best fit.

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


def _quantiles(tested: int) -> np.ndarray:
    """Return the (2,) quantiles of the resamples at which the interval ends."""
    half_width = widened_half_width(tested, LEVEL)
    return np.asarray(ndtr([-half_width, half_width]))
