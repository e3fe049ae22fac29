"""Decide on validation cases whether mirrored versions of an image are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.inference.decision_rule import DecisionRule
from ushape.inference.object_search import ValidatedCase, thin_out
from ushape.inference.rule_scores import (
    MAX_FALSE_POSITIVES,
    UNIT_NOUNS,
    UNITS,
    RuleScores,
    Unit,
    UnitKey,
    choose_unit,
    mostly_improve,
)
from ushape.inference.separation import choose_comparable, object_precision
from ushape.inference.threshold_search import ValidationCases
from ushape.instances.label import ObjectConfig
from ushape.labels import LabelSpace
from ushape.metrics.instance import MAX_SEPARATED_PX

MIN_ERROR_REDUCTION = 0.03
"""Smallest reduction of 1 - score, as a share of it, that is worth the slower prediction. Smaller
ones are less than the difference between two training runs with different seeds."""


@dataclass(frozen=True)
class MirrorChoice:
    """Whether mirrored versions are averaged, and why."""

    is_accepted: bool
    line: str


@dataclass(frozen=True)
class _Scores:
    """Scores of one way to predict."""

    by_unit: Mapping[Unit, Mapping[UnitKey, float]]
    """Scores from those of the largest unit to those of the unit on which is decided."""

    dice: RuleScores | None = None

    @property
    def unit(self) -> Unit:
        """The unit of comparison."""
        return list(self.by_unit)[-1]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.by_unit[self.unit].values())))

    def changes_from(self, other: _Scores, unit: Unit) -> list[float]:
        """Return gain or loss of each unit that changes."""
        now, then = self.by_unit[unit], other.by_unit[unit]
        return [now[key] - then[key] for key in now if now[key] != then[key]]


def choose_mirroring(
    plain: Sequence[ValidatedCase],
    mirrored: Sequence[ValidatedCase],
    space: LabelSpace,
    *,
    versions: int,
    objects: ObjectConfig | None = None,
) -> MirrorChoice:
    """Decide whether the average over mirrored versions is clearly better, at threshold 0.5.

    The score is the mean Dice over classes, or the average precision of the objects. 1 - score must
    fall by MIN_ERROR_REDUCTION, and at least two thirds of the groups that change must improve. If
    images or quarters of images are compared, no group or image may become worse. The share of
    cases without a class in which it is found may rise by at most MAX_FALSE_POSITIVES.

    Args:
        plain, mirrored: The same cases, predicted without and with mirrored versions.
        versions: Number of versions that are averaged.
        objects: Definition of the objects whose average precision is compared, each way with
            the settings that suit it; None: the Dice.
    """
    what = "mean Dice" if objects is None else "average precision of the objects"
    if objects is None:
        before, after = (_measure_dice(cases, space) for cases in (plain, mirrored))
    else:
        before, after = (_measure_objects(cases, space, objects) for cases in (plain, mirrored))
    if before is None or after is None:
        line = (
            "Mirrored versions of the images are not averaged: there is too little validation data"
        )
        return MirrorChoice(is_accepted=False, line=f"{line} with annotations for a decision.")
    changes = after.changes_from(before, after.unit)
    better = sum(change > 0 for change in changes)
    numbers = (
        f"{what} {before.mean:.4f} -> {after.mean:.4f} on {len(after.by_unit[after.unit])} "
        f"{UNIT_NOUNS[after.unit]} ({better} better, {len(changes) - better} worse)"
    )
    missing = _find_missing(before, after)
    if missing is None:
        line = (
            f"Prediction: {versions} mirrored versions of each image are averaged: {numbers}. This "
            f"takes about {versions} times as long. To predict faster: --set predict.tta=none."
        )
        return MirrorChoice(is_accepted=True, line=line)
    line = (
        f"Prediction: mirrored versions of the images are not averaged: {numbers}. {missing} To "
        "average them anyway: --set predict.tta=mirrored."
    )
    return MirrorChoice(is_accepted=False, line=line)


def _find_missing(before: _Scores, after: _Scores) -> str | None:
    """Return the first condition of mirrored prediction that is not met, as a sentence."""
    *larger, unit = after.by_unit
    if before.mean == 1 or 1 - after.mean > (1 - MIN_ERROR_REDUCTION) * (1 - before.mean):
        least = f"{MIN_ERROR_REDUCTION:.0%}"
        return f"The difference between the score and 1 must decrease by at least {least}."
    if not mostly_improve(after.changes_from(before, unit)):
        return f"At least two thirds of the {UNIT_NOUNS[unit]} that change must improve."
    for larger_unit in larger:
        if any(change < 0 for change in after.changes_from(before, larger_unit)):
            return f"None of the {UNIT_NOUNS[larger_unit]} may become worse."
    for name, score in (after.dice or {}).items():
        if score.has_more_false_positives((before.dice or {})[name]):
            return (
                f"The share of images without {name} in which it is predicted may rise by at most "
                f"{MAX_FALSE_POSITIVES:.0%}."
            )
    return None


def _measure_dice(cases: Sequence[ValidatedCase], space: LabelSpace) -> _Scores | None:
    """Return the mean Dice over classes by unit; None if there are too few units."""
    pairs = [(case.probabilities, case.truth) for case in cases]
    known = ValidationCases(pairs, space, [case.group for case in cases])
    scores = known.measure([DecisionRule()])[0]
    annotated = {key for score in scores.values() for key in score.annotated}
    basis = choose_unit(sorted(annotated))
    if basis is None:
        return None
    by_unit: dict[Unit, dict[UnitKey, float]] = {}
    for unit in UNITS[: UNITS.index(basis.unit) + 1]:
        found: dict[UnitKey, list[float]] = {}
        for score in scores.values():
            for key, value in score.dice_of(unit).items():
                found.setdefault(key, []).append(value)
        by_unit[unit] = {key: float(np.mean(values)) for key, values in found.items()}
    return _Scores(by_unit, scores)


def _measure_objects(
    cases: Sequence[ValidatedCase], space: LabelSpace, how: ObjectConfig
) -> _Scores | None:
    """Return the average precision by group, or by image if there are too few groups."""
    cases = thin_out(cases, MAX_SEPARATED_PX)
    how = choose_comparable(cases, space, how)
    by_unit: dict[Unit, dict[UnitKey, float]] = {}
    for unit in UNITS[:2]:
        pooled: dict[UnitKey, list[ValidatedCase]] = {}
        for number, case in enumerate(cases):
            key = (case.group, -1 if unit == "group" else number, -1)
            pooled.setdefault(key, []).append(case)
        scores = {key: object_precision(own, space, how) for key, own in pooled.items()}
        by_unit[unit] = {key: value for key, value in scores.items() if value is not None}
        if choose_unit([(*key[:2], 0) for key in by_unit[unit]]) is not None:
            return _Scores(by_unit)
    return None
