"""Scores of a decision rule on validation groups, images, or quarters of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from ushape.metrics.overlap import Counts, dice

Unit = Literal["group", "image", "quarter"]
"""What a rule is compared on: groups, single images, or quarters of images. The pixels of a unit
are pooled."""

UNITS: tuple[Unit, ...] = get_args(Unit)

UNIT_NOUNS: dict[Unit, str] = {
    "group": "groups",
    "image": "images",
    "quarter": "quarters of images",
}

MIN_GAIN = 0.002
"""Smallest gain of the mean over units for which the rule is changed."""

MIN_BETTER = 2 / 3
"""Share of the units changed by a step that must improve."""

MIN_UNITS = 3
"""Number of units with the class below which nothing is changed: a gain could be chance."""

MAX_FALSE_POSITIVES = 0.02
"""Largest increase of the share of empty cases with a false positive."""

UnitKey = tuple[str, int, int]
"""Group, and number of the case and of its quarter; -1 where several of them are pooled."""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Validation data on which the rule of a class was chosen."""

    unit: Unit
    count: int
    """Number of units that contain the class."""


def is_clear_gain(changes: Sequence[float], units: int) -> bool:
    """Return whether a change of the rule clearly helps.

    Args:
        changes: Gain or loss of each unit that changes.
        units: Number of all units that contain the class.
    """
    return mostly_improve(changes) and sum(changes) / units > MIN_GAIN


def mostly_improve(changes: Sequence[float]) -> bool:
    """Return whether at least MIN_BETTER of the changes, and at least one, are gains."""
    return any(changes) and sum(change > 0 for change in changes) >= MIN_BETTER * len(changes)


def quarters(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Yield the four quarters of the last two axes of an image (*S)."""
    whole = (slice(None),) * (len(shape) - 2)
    for y in (slice(shape[-2] // 2), slice(shape[-2] // 2, None)):
        for x in (slice(shape[-1] // 2), slice(shape[-1] // 2, None)):
            yield (*whole, y, x)


def choose_unit(keys: Sequence[UnitKey]) -> Basis | None:
    """Return the coarsest unit of which there are enough; None if there are too few of each.

    Args:
        keys: The quarters that contain the class.
    """
    for unit in UNITS:
        count = len({pool_key(key, unit) for key in keys})
        if count >= MIN_UNITS:
            return Basis(unit=unit, count=count)
    return None


def pool_key(key: UnitKey, unit: Unit) -> UnitKey:
    """Return the key of the unit that contains a quarter."""
    group, case, quarter = key
    if unit == "group":
        return group, -1, -1
    return (group, case, -1) if unit == "image" else (group, case, quarter)


@dataclass
class RuleScore:
    """Counts of one class under one rule."""

    unit: Unit = "group"
    counts: dict[UnitKey, Counts] = field(default_factory=dict)
    """Counts of each quarter."""

    empty_cases: int = 0
    false_positives: int = 0

    def add(self, group: str, case: int, counts: Sequence[Counts]) -> None:
        """Add the counts of the quarters of a case."""
        self.counts |= {(group, case, place): own for place, own in enumerate(counts)}
        if not any(own.truth for own in counts):
            self.empty_cases += 1
            self.false_positives += any(own.predicted for own in counts)

    @property
    def annotated(self) -> list[UnitKey]:
        """Quarters that contain the class."""
        return [key for key, own in self.counts.items() if own.truth]

    @property
    def dice(self) -> dict[UnitKey, float]:
        """Dice of each unit that contains the class."""
        return self.dice_of(self.unit)

    def dice_of(self, unit: Unit) -> dict[UnitKey, float]:
        """Return the Dice of each group, image or quarter that contains the class."""
        pooled: dict[UnitKey, Counts] = {}
        for key, own in self.counts.items():
            place = pool_key(key, unit)
            pooled[place] = pooled[place] + own if place in pooled else own
        return {key: dice(own) or 0.0 for key, own in pooled.items() if own.truth}

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.dice.values()))) if self.counts and self.dice else 0.0

    def has_more_false_positives(self, other: RuleScore) -> bool:
        return self.false_positives - other.false_positives > MAX_FALSE_POSITIVES * self.empty_cases

    def changes_from(self, other: RuleScore, unit: Unit | None = None) -> list[float]:
        """Return gain or loss of each unit whose Dice changes."""
        now, then = self.dice_of(unit or self.unit), other.dice_of(unit or self.unit)
        return [now[key] - then[key] for key in now if now[key] != then[key]]

    def is_better_than(self, other: RuleScore) -> bool:
        """Return whether the Dice is clearly higher, and no larger unit is worse."""
        larger = UNITS[: UNITS.index(self.unit)]
        return is_clear_gain(self.changes_from(other), len(self.dice)) and not any(
            change < 0 for unit in larger for change in self.changes_from(other, unit)
        )


RuleScores = dict[str, RuleScore]
"""Score by name of class."""
