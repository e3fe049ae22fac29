"""Search of thresholds and cleaning on validation cases."""

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
"""Thresholds that are compared."""

SIZES_PX = (4, 16, 64, 256, 1024, 4096)
"""Smallest object sizes that are compared."""

MIN_GAIN = 0.002
"""Smallest gain of mean Dice for which the rule is changed."""

MIN_BETTER = 2 / 3
"""Share of the groups changed by a step that must improve."""

MAX_FALSE_POSITIVES = 0.02
"""Largest increase of the share of empty cases with a false positive."""

MIN_GROUPS = 3
"""Number of groups with the class below which nothing is changed: a gain could be chance."""

CLEANINGS: tuple[tuple[str, Any], ...] = (
    ("largest_only", True),
    ("largest_hole_px", "all"),
    *(("smallest_px", size) for size in SIZES_PX),
)
"""Cleaning settings that are compared, each with its value."""

PredictedCases = Iterable[tuple[np.ndarray, np.ndarray]]
"""Probabilities (K, *S), floats or uint8 for 0 to 255, and true class indices (*S), by case."""


@dataclass(frozen=True, kw_only=True)
class RuleChoice:
    """A chosen rule, and the reasons."""

    rule: DecisionRule
    report: tuple[str, ...]
    """Explanation with numbers, a line for each change and each class that was not changed."""

    before: dict[str, float]
    """Mean Dice of each class that occurs, with the default rule, on the given cases."""

    after: dict[str, float]
    """The same with the chosen rule; biased upwards, because it was chosen on these cases."""


def choose_rule(cases: PredictedCases, space: LabelSpace, groups: Sequence[str]) -> RuleChoice:
    """Choose the rule that is best on validation cases; it is changed only if that clearly helps.

    First a threshold is chosen for each class, from counts at all thresholds of GRID in one pass;
    then smallest object, largest part and holes. Changes are added one at a time, the one with the
    largest gain first. A change is accepted if the mean Dice of its class over groups (pixels of a
    group pooled, a miss is 0, groups without the class left out) gains more than MIN_GAIN, at
    least MIN_BETTER of the changed groups improve, the mean over all classes does not fall, and
    the share of false positives in cases without the class rises by at most MAX_FALSE_POSITIVES.

    Args:
        cases: Iterated several times with one case in memory at a time: a list, or an object that
            reads or predicts again whenever it is iterated.
        groups: Group of each case, in the same order.

    Raises:
        DataError: if shapes do not fit, or values are not probabilities.
    """
    assert iter(cases) is not cases, "cases must be iterable several times"
    known = ValidationCases(cases, space, groups)
    curves = known.threshold_curves()
    default = {name: curve[GRID.index(0.5)] for name, curve in curves.items()}
    names = [name for name in default if len(default[name].dice) >= MIN_GROUPS]
    best = {name: _best_threshold(curves[name]) for name in names}
    thresholds = [_Step(name, "threshold", value) for name, value in best.items() if value]
    cleanings = [_Step(name, *change) for name in names for change in CLEANINGS]

    rule, now, lines = known.add_steps(DecisionRule(), default, thresholds, default)
    rule, now, more = known.add_steps(rule, now, cleanings, default)
    return RuleChoice(
        rule=rule,
        report=(*lines, *more, *_unchanged_lines(rule, default)),
        before={name: score.mean for name, score in default.items() if score.dice},
        after={name: score.mean for name, score in now.items() if score.dice},
    )


@dataclass
class RuleScore:
    """Counts of one class under one rule."""

    groups: dict[str, Counts] = field(default_factory=dict)
    empty_cases: int = 0
    false_positives: int = 0

    def add(self, group: str, counts: Counts) -> None:
        self.groups[group] = self.groups[group] + counts if group in self.groups else counts
        if not counts.truth:
            self.empty_cases += 1
            self.false_positives += counts.predicted > 0

    @property
    def dice(self) -> dict[str, float]:
        """Dice of each group that contains the class."""
        return {group: dice(own) or 0.0 for group, own in self.groups.items() if own.truth}

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.dice.values()))) if self.dice else 0.0

    def has_more_false_positives(self, other: RuleScore) -> bool:
        return self.false_positives - other.false_positives > MAX_FALSE_POSITIVES * self.empty_cases

    def changes_from(self, other: RuleScore) -> list[float]:
        """Return gain or loss of each group whose Dice changes."""
        now, then = self.dice, other.dice
        return [now[group] - then[group] for group in now if now[group] != then[group]]

    def is_better_than(self, other: RuleScore) -> bool:
        """Return whether the Dice is clearly higher."""
        changes = self.changes_from(other)
        better = sum(change > 0 for change in changes)
        return self.mean - other.mean > MIN_GAIN and better / len(changes) >= MIN_BETTER


RuleScores = dict[str, RuleScore]
"""Score by name of class."""


@dataclass(frozen=True)
class _Step:
    """One change of the rule of one class."""

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

    def line(self, before: RuleScore, after: RuleScore) -> str:
        """Describe the change and its effect on the Dice."""
        words = {
            "threshold": f"threshold {self.value} instead of 0.5",
            "smallest_px": f"objects below {self.value} pixels removed",
            "largest_only": "only the largest component kept",
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
                f", false positives in {before.false_positives} -> {after.false_positives} of "
                f"{after.empty_cases} cases without {self.name}"
            )
        return text + "."


@dataclass(frozen=True)
class ValidationCases:
    """Validation cases, iterated as often as needed, one in memory at a time."""

    cases: PredictedCases
    space: LabelSpace
    groups: Sequence[str]

    def threshold_curves(self) -> dict[str, list[RuleScore]]:
        """Score each class at each threshold of GRID, the other classes at 0.5."""
        curves = {region.name: [RuleScore() for _ in GRID] for region in self.space.scored}
        for group, probabilities, truth in self._read():
            counted = truth != IGNORE
            shown = evidence_of(probabilities, self.space)
            for region, evidence in zip(self.space.scored, shown, strict=True):
                found = counts_on_grid(evidence[counted], region.of(truth[counted]))
                for score, counts in zip(curves[region.name], found, strict=True):
                    score.add(group, counts)
        return curves

    def add_steps(
        self, rule: DecisionRule, now: RuleScores, steps: Sequence[_Step], default: RuleScores
    ) -> tuple[DecisionRule, RuleScores, list[str]]:
        """Return the rule with the steps that help, its scores, and a line for each step."""
        report: list[str] = []
        while steps:
            trials = self.measure([step.on(rule) for step in steps])
            accepted = [
                (after[step.name].mean - now[step.name].mean, step, after)
                for step, after in zip(steps, trials, strict=True)
                if _is_accepted(step.name, now, after, default)
            ]
            if not accepted:
                break
            _, taken, after = max(accepted, key=lambda trial: trial[0])
            report.append(taken.line(now[taken.name], after[taken.name]))
            rule, now = taken.on(rule), after
            steps = [s for s in steps if (s.name, s.key) != (taken.name, taken.key)]
        return rule, now, report

    def measure(self, rules: Sequence[DecisionRule]) -> list[RuleScores]:
        """Score all classes under each rule, in one pass."""
        names = [region.name for region in self.space.scored]
        found = [{name: RuleScore() for name in names} for _ in rules]
        for group, probabilities, truth in self._read():
            for rule, scores in zip(rules, found, strict=True):
                classes = apply_rule(rule, probabilities, self.space)
                for region in self.space.scored:
                    scores[region.name].add(group, count_overlap(classes, truth, region))
        return found

    def _read(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        pairs = zip(self.cases, self.groups, strict=True)
        for number, ((probabilities, truth), group) in enumerate(pairs, 1):
            shares = as_fractions(probabilities)
            if shares.shape != (self.space.channels, *truth.shape):
                raise DataError(
                    f"Validation case {number}: the shape of the probabilities is {shares.shape}, "
                    f"that of the mask {truth.shape}; {self.space.channels} channels are expected.",
                    code="probability_shape_mismatch",
                    hint="Both must lie on the grid of the image file.",
                )
            if not (shares.min() >= 0 and shares.max() <= 1):  # NaN fails both.
                raise DataError(
                    f"Validation case {number}: probabilities are not between 0 and 1.",
                    code="invalid_probabilities",
                    hint="LabelSpace.probabilities computes them from the logits of the network.",
                )
            yield group, shares, truth


def _is_accepted(name: str, now: RuleScores, after: RuleScores, default: RuleScores) -> bool:
    """Return whether a step for one class improves it and no other class becomes worse."""
    gain = sum(after[other].mean - now[other].mean for other in now)
    worse = any(after[other].has_more_false_positives(default[other]) for other in now)
    return after[name].is_better_than(now[name]) and gain > 0 and not worse


def _best_threshold(curve: Sequence[RuleScore]) -> float | None:
    """Return the threshold with the highest mean Dice if better than 0.5; if equal, the nearest."""
    default = curve[GRID.index(0.5)]
    accepted = [
        (score.mean, -abs(threshold - 0.5), threshold)
        for threshold, score in zip(GRID, curve, strict=True)
        if score.is_better_than(default) and not score.has_more_false_positives(default)
    ]
    return max(accepted)[-1] if accepted else None


def _unchanged_lines(rule: DecisionRule, default: RuleScores) -> Iterator[str]:
    """Yield a line for each class that was not changed, and one on the bias of the numbers."""
    for name, score in default.items():
        if len(score.dice) < MIN_GROUPS:
            yield (
                f"{name}: threshold 0.5 without postprocessing; a choice requires {MIN_GROUPS} "
                f"validation groups that contain the class, and {len(score.dice)} "
                f"{'does' if len(score.dice) == 1 else 'do'}."
            )
        elif name not in rule.classes:
            yield (
                f"{name}: threshold 0.5 without postprocessing (mean Dice {score.mean:.4f}); no "
                f"change gains more than {MIN_GAIN} and improves most groups."
            )
    if rule.classes:
        yield "These gains were measured on the cases used to choose; expect less on other cases."


def counts_on_grid(
    evidence: np.ndarray, in_truth: np.ndarray, grid: Sequence[float] = GRID
) -> Iterator[Counts]:
    """Yield the counts of one class in one case at each threshold of the grid.

    Args:
        evidence: Result of `evidence_of` for the class.
        grid: Increasing thresholds.

    Shapes:
        evidence, in_truth: (N,), the pixels that are counted.
    """
    # Thresholds have the type of the probabilities: 0.35 in float32 reaches 0.35.
    reached = np.searchsorted(np.asarray(grid, evidence.dtype), evidence, side="right")
    everywhere = np.bincount(reached, minlength=len(grid) + 1)
    inside = np.bincount(reached[in_truth], minlength=len(grid) + 1)
    for place in range(1, len(grid) + 1):
        yield Counts(
            overlap=int(inside[place:].sum()),
            truth=int(inside.sum()),
            predicted=int(everywhere[place:].sum()),
            pixels=len(evidence),
        )


def evidence_of(probabilities: np.ndarray, space: LabelSpace) -> Iterator[np.ndarray]:
    """Yield for each class (*S) the number that a pixel of the class has at least at its threshold.

    The thresholds of the other classes are 0.5. Exact at 0.5; at other thresholds of exclusive
    classes, exact up to rounding.
    """
    scored, likeliest = space.scored, space.decode(probabilities)
    if space.is_exclusive:
        most = probabilities.max(axis=0)
        second = _second_largest(probabilities, likeliest)
        below = np.nextafter(most.dtype.type(0.5), most.dtype.type(0))
    for place, region in enumerate(scored, 1):
        if space.is_exclusive:
            own, is_likeliest = probabilities[place], likeliest == place
            whole = own + np.where(is_likeliest, second, most)
            odds = np.divide(own, whole, out=np.zeros_like(own), where=whole > 0)
            yield np.where(is_likeliest, odds, np.minimum(odds, below))
            continue
        evidence = probabilities[place - 1].copy()
        # Later regions cover it, each with a class that belongs to this region or does not.
        for other, probability in zip(scored[place:], probabilities[place:], strict=True):
            evidence[probability >= 0.5] = 1 if other.classes[0] in region.classes else -1
        yield evidence


def _second_largest(probabilities: np.ndarray, likeliest: np.ndarray) -> np.ndarray:
    """Return the largest probability of all classes but the likeliest.

    Shapes:
        probabilities: (K, *S); likeliest: (*S) class indices -> (*S).
    """
    found = np.zeros(likeliest.shape, probabilities.dtype)
    for index, own in enumerate(probabilities):
        np.maximum(found, own, out=found, where=likeliest != index)
    return found
