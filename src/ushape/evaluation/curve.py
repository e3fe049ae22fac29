"""A learning curve: Dice by the number of training groups, and what more of them would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape.errors import DataError, RunError
from ushape.evaluation.extrapolation import Gain, PowerLaw, fit_power_law, predict_gains
from ushape.evaluation.score import CaseScore, pool_groups
from ushape.metrics.stats import RELIABLE_FROM, Interval, bootstrap_mean
from ushape.words import of_noun, singular

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
        tested = of_noun(self.test_groups, f"test {noun}")
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
