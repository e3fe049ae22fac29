"""Thresholds and cleaning, chosen on validation cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ushape.errors import DataError
from ushape.inference.decision_rule import DecisionRule, apply_rule, as_fractions
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.overlap import Counts, count_overlap, dice

GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds that are tried."""

SIZES_PX = (4, 16, 64, 256, 1024, 4096)
"""Smallest sizes of objects that are tried."""

MIN_GAIN = 0.002
"""Mean Dice that a step must gain."""

MIN_BETTER = 2 / 3
"""Share of the groups that a step changes, that must get better."""

MAX_ALARMS = 0.02
"""By how much the share of empty cases with a false alarm may rise."""

MIN_GROUPS = 3
"""Groups with truth below which nothing is chosen: a gain there may be one image's whim."""

CLEANINGS: tuple[tuple[str, Any], ...] = (
    ("largest_only", True),
    ("largest_hole_px", "all"),
    *(("smallest_px", size) for size in SIZES_PX),
)

Cases = Iterable[tuple[np.ndarray, np.ndarray]]
"""Probabilities (K, *S), floats or uint8 for 0 to 255, and true class indices (*S) of each case."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A rule, and why it is so."""

    rule: DecisionRule
    report: tuple[str, ...]
    """In words, with numbers, a line for each step taken or class left alone."""

    before: dict[str, float]
    """Mean Dice of each class that occurs, with the default rule, on the cases chosen on."""

    after: dict[str, float]
    """The same with this rule. Somewhat too high for other cases: it was chosen for these."""


def choose_rule(cases: Cases, space: LabelSpace, groups: Sequence[str]) -> Chosen:
    """The rule that serves validation cases best, changed only where that clearly helps.

    First a threshold for each class, from counts at all of GRID in one pass; then smallest
    object, largest part and holes, case by case. One step at a time is added, the one that gains
    most, and only if the class's mean Dice over groups (pixels of a group pooled, a miss is 0,
    groups without the class left out) gains more than MIN_GAIN, MIN_BETTER of the groups that
    change get better, the mean over all classes does not fall, and false alarms on cases without
    the class rise by no more than MAX_ALARMS.

    Args:
        cases: Gone through several times, one case in memory at a time: a list, or an object
            that reads or predicts anew whenever it is iterated.
        groups: What each case belongs to, in the same order.

    Raises:
        DataError: shapes that do not fit, or values that are no probabilities.
    """
    assert iter(cases) is not cases, "an iterator can be gone through only once"
    known = ValidationCases(cases, space, groups)
    curves = known.threshold_curves()
    default = {name: curve[GRID.index(0.5)] for name, curve in curves.items()}
    names = [name for name in default if len(default[name].dice) >= MIN_GROUPS]
    best = {name: _best_threshold(curves[name]) for name in names}
    thresholds = [_Step(name, "threshold", value) for name, value in best.items() if value]
    cleanings = [_Step(name, *change) for name in names for change in CLEANINGS]

    rule, now, lines = known.add_steps(DecisionRule(), default, thresholds, default)
    rule, now, more = known.add_steps(rule, now, cleanings, default)
    return Chosen(
        rule=rule,
        report=(*lines, *more, *_what_stays(rule, default)),
        before={name: standing.mean for name, standing in default.items() if standing.dice},
        after={name: standing.mean for name, standing in now.items() if standing.dice},
    )


@dataclass
class Standing:
    """How one class fares under one rule: counts, whatever the size of the images."""

    groups: dict[str, Counts] = field(default_factory=dict)
    empty_cases: int = 0
    false_alarms: int = 0

    def add(self, group: str, counts: Counts) -> None:
        self.groups[group] = self.groups[group] + counts if group in self.groups else counts
        if not counts.truth:
            self.empty_cases += 1
            self.false_alarms += counts.predicted > 0

    @property
    def dice(self) -> dict[str, float]:
        """Of each group that holds the class."""
        return {group: dice(own) or 0.0 for group, own in self.groups.items() if own.truth}

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.dice.values()))) if self.dice else 0.0

    def alarms_more_than(self, other: Standing) -> bool:
        return self.false_alarms - other.false_alarms > MAX_ALARMS * self.empty_cases

    def changes_from(self, other: Standing) -> list[float]:
        """Gain or loss of each group whose Dice is another."""
        now, then = self.dice, other.dice
        return [now[group] - then[group] for group in now if now[group] != then[group]]

    def beats(self, other: Standing) -> bool:
        """By more than noise."""
        changes = self.changes_from(other)
        better = sum(change > 0 for change in changes)
        return self.mean - other.mean > MIN_GAIN and better / len(changes) >= MIN_BETTER


Standings = dict[str, Standing]
"""By name of class."""


@dataclass(frozen=True)
class _Step:
    """One change of one class's rule."""

    name: str
    key: str
    value: Any

    def on(self, rule: DecisionRule) -> DecisionRule:
        own = rule.of(self.name)
        if self.key == "threshold":
            own = replace(own, threshold=self.value)
        else:
            own = replace(own, cleaning=replace(own.cleaning, **{self.key: self.value}))
        return replace(rule, classes={**rule.classes, self.name: own})

    def line(self, before: Standing, after: Standing) -> str:
        """E.g. "lesion: threshold 0.35: mean Dice 0.8102 -> 0.8214 on 9 groups (7 better, ..."."""
        words = {
            "threshold": f"threshold {self.value} instead of 0.5",
            "smallest_px": f"objects under {self.value} pixels removed",
            "largest_only": "only the largest part kept",
            "largest_hole_px": "holes filled",
        }
        changes = after.changes_from(before)
        better = sum(change > 0 for change in changes)
        text = (
            f"{self.name}: {words[self.key]}: mean Dice {before.mean:.4f} -> {after.mean:.4f} on "
            f"{len(after.dice)} groups ({better} better, {len(changes) - better} worse)"
        )
        if after.empty_cases:
            text += (
                f", false alarms {before.false_alarms} -> {after.false_alarms} of "
                f"{after.empty_cases} where there is no {self.name}"
            )
        return text + "."


@dataclass(frozen=True)
class ValidationCases:
    """Validation cases, gone through as often as need be, one in memory at a time."""

    cases: Cases
    space: LabelSpace
    groups: Sequence[str]

    def threshold_curves(self) -> dict[str, list[Standing]]:
        """Each class at each threshold of GRID, the other classes at 0.5."""
        curves = {region.name: [Standing() for _ in GRID] for region in self.space.scored}
        for group, probabilities, truth in self._read():
            counted = truth != IGNORE
            shown = _evidence(probabilities, self.space)
            for region, evidence in zip(self.space.scored, shown, strict=True):
                found = _counts_on_grid(evidence[counted], region.of(truth[counted]))
                for standing, counts in zip(curves[region.name], found, strict=True):
                    standing.add(group, counts)
        return curves

    def add_steps(
        self, rule: DecisionRule, now: Standings, steps: Sequence[_Step], default: Standings
    ) -> tuple[DecisionRule, Standings, list[str]]:
        """The rule with the steps that help, where it then stands, and a line for each."""
        report: list[str] = []
        while steps:
            trials = self.measure([step.on(rule) for step in steps])
            worth = [
                (after[step.name].mean - now[step.name].mean, step, after)
                for step, after in zip(steps, trials, strict=True)
                if _is_worth(step.name, now, after, default)
            ]
            if not worth:
                break
            _, taken, after = max(worth, key=lambda trial: trial[0])
            report.append(taken.line(now[taken.name], after[taken.name]))
            rule, now = taken.on(rule), after
            steps = [s for s in steps if (s.name, s.key) != (taken.name, taken.key)]
        return rule, now, report

    def measure(self, rules: Sequence[DecisionRule]) -> list[Standings]:
        """All classes under each rule, in one pass."""
        names = [region.name for region in self.space.scored]
        found = [{name: Standing() for name in names} for _ in rules]
        for group, probabilities, truth in self._read():
            for rule, standings in zip(rules, found, strict=True):
                classes = apply_rule(rule, probabilities, self.space)
                for region in self.space.scored:
                    standings[region.name].add(group, count_overlap(classes, truth, region))
        return found

    def _read(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        pairs = zip(self.cases, self.groups, strict=True)
        for number, ((probabilities, truth), group) in enumerate(pairs, 1):
            shares = as_fractions(probabilities)
            if shares.shape != (self.space.channels, *truth.shape):
                raise DataError(
                    f"Validation case {number}: probabilities have the shape {shares.shape}, "
                    f"the mask {truth.shape}, with {self.space.channels} channels expected.",
                    hint="Both must lie on the same grid, the image file's.",
                )
            if not (shares.min() >= 0 and shares.max() <= 1):  # NaN fails both.
                raise DataError(
                    f"Validation case {number}: probabilities outside 0 to 1, or not a number.",
                    hint="LabelSpace.probabilities makes them of the network's raw scores.",
                )
            yield group, shares, truth


def _is_worth(name: str, now: Standings, after: Standings, default: Standings) -> bool:
    """Whether a step for one class helps it, and harms nobody."""
    gain = sum(after[other].mean - now[other].mean for other in now)
    alarms = any(after[other].alarms_more_than(default[other]) for other in now)
    return after[name].beats(now[name]) and gain > 0 and not alarms


def _best_threshold(curve: Sequence[Standing]) -> float | None:
    """The threshold of the highest mean Dice that beats 0.5; of equals the nearest to it."""
    default = curve[GRID.index(0.5)]
    worth = [
        (standing.mean, -abs(threshold - 0.5), threshold)
        for threshold, standing in zip(GRID, curve, strict=True)
        if standing.beats(default) and not standing.alarms_more_than(default)
    ]
    return max(worth)[-1] if worth else None


def _what_stays(rule: DecisionRule, default: Standings) -> Iterator[str]:
    """A line for each class that nothing was changed for, and how far to trust the numbers."""
    for name, standing in default.items():
        if len(standing.dice) < MIN_GROUPS:
            yield (
                f"{name}: left at threshold 0.5 without cleaning; validation groups with it: "
                f"{len(standing.dice)}, fewer than the {MIN_GROUPS} it takes to choose."
            )
        elif name not in rule.classes:
            yield (
                f"{name}: left at threshold 0.5 without cleaning; nothing else gains more than "
                f"{MIN_GAIN} mean Dice on {standing.mean:.4f} and helps most groups."
            )
    if rule.classes:
        yield "Measured on the cases that it was chosen for: others gain somewhat less."


def _counts_on_grid(evidence: np.ndarray, in_truth: np.ndarray) -> Iterator[Counts]:
    """Counts of one class in one case at each threshold of GRID.

    Shapes:
        evidence, in_truth: (N,), the pixels that count.
    """
    # Thresholds rounded as the probabilities are: 0.35 in float32 reaches 0.35.
    reached = np.searchsorted(np.asarray(GRID, evidence.dtype), evidence, side="right")
    everywhere = np.bincount(reached, minlength=len(GRID) + 1)
    inside = np.bincount(reached[in_truth], minlength=len(GRID) + 1)
    for place in range(1, len(GRID) + 1):
        yield Counts(
            overlap=int(inside[place:].sum()),
            truth=int(inside.sum()),
            predicted=int(everywhere[place:].sum()),
            pixels=len(evidence),
        )


def _evidence(probabilities: np.ndarray, space: LabelSpace) -> Iterator[np.ndarray]:
    """For each class (*S) the number whose reaching a threshold makes a pixel the class's.

    The other classes' thresholds are at 0.5. Exact at 0.5; elsewhere, of several exclusive
    classes, up to rounding.
    """
    scored, likeliest = space.scored, space.decode(probabilities)
    for place, region in enumerate(scored, 1):
        if space.is_exclusive:
            own, rival = probabilities[place], np.delete(probabilities, place, axis=0).max(axis=0)
            odds = np.divide(own, own + rival, out=np.zeros_like(own), where=own + rival > 0)
            below = np.nextafter(own.dtype.type(0.5), own.dtype.type(0))
            yield np.where(region.of(likeliest), odds, np.minimum(odds, below))
            continue
        evidence = probabilities[place - 1].copy()
        # Later ones are painted over it, each with a class that is in this region or is not.
        for other, probability in zip(scored[place:], probabilities[place:], strict=True):
            evidence[probability >= 0.5] = 1 if other.classes[0] in region.classes else -1
        yield evidence
