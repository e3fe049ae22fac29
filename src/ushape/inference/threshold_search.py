"""Search of thresholds and cleaning on validation cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, takewhile
from typing import Any

import numpy as np

from ushape.errors import DataError
from ushape.formatting import pluralize
from ushape.inference.decision_rule import ClassRule, DecisionRule, apply_rule, as_fractions
from ushape.inference.evidence import counts_on_grid, evidence_of
from ushape.inference.object_search import ObjectCurve
from ushape.inference.rule_scores import (
    MIN_GAIN,
    MIN_UNITS,
    UNIT_NOUNS,
    Basis,
    RuleScore,
    RuleScores,
    Unit,
    choose_unit,
    quarters,
)
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.overlap import count_classes, count_overlap, dice
from ushape.transforms.morphology import clean_classes

GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds that are compared."""

SIZES_PX = (4, 16, 64, 256, 1024, 4096)
"""Smallest object sizes that are compared."""

MAX_THRESHOLDS = 10
"""Largest number of classes whose threshold is changed, those with the largest gain."""

MAX_DICE_ERROR = 1.1
"""Largest ratio of 1 - Dice, against that at 0.5, at a threshold that separates objects better."""

MAX_LINES = 5
"""Largest number of classes for each reason that are listed as not changed."""

MAX_CLEANED = 20
"""Largest number of foreground classes for which cleaning is tried: each setting of each class is
applied to all cases."""

MIN_KEPT_DICE = 0.998
"""Smallest mean Dice between annotated masks and the same masks after cleaning: a setting that
changes them more would remove or fill what is right."""

CLEANINGS: tuple[tuple[str, Any], ...] = (
    ("largest_only", True),
    ("max_hole_size_px", "all"),
    *(("min_size_px", size) for size in SIZES_PX),
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

    basis: dict[str, Basis] = field(default_factory=dict)
    """Units on which each class was compared; classes in too few of them are missing."""


def choose_rule(
    cases: PredictedCases,
    space: LabelSpace,
    groups: Sequence[str],
    objects: Mapping[str, ObjectCurve] | None = None,
    smallest: Mapping[str, int] | None = None,
    annotated: Iterable[np.ndarray] = (),
) -> RuleChoice:
    """Choose the rule that is best on validation cases; it is changed only if that clearly helps.

    First a threshold is chosen for each class, from counts at all thresholds of GRID in one pass;
    then smallest object, largest part and holes. Changes are added one at a time, the one with the
    largest gain first. A change is accepted if the mean Dice of its class over groups (pixels of a
    group pooled, a miss is 0, groups without the class left out) gains more than MIN_GAIN, at
    least MIN_BETTER of the changed groups improve, the mean over all classes does not fall, and
    the share of false positives in cases without the class rises by at most MAX_FALSE_POSITIVES.
    Cleaning must also leave the annotated masks nearly as they are (MIN_KEPT_DICE).

    If fewer than MIN_UNITS groups contain a class, images are compared instead of groups; if there
    are too few of them, quarters of images. Then no group and no image may become worse.

    The threshold of a class in `objects` is chosen for its metric instead of the Dice, which may
    fall by at most MAX_DICE_LOSS.

    Args:
        cases: Iterated several times with one case in memory at a time: a list, or an object that
            reads or predicts again whenever it is iterated.
        groups: Group of each case, in the same order.
        objects: Values of a metric of objects at each threshold, by class name.
        smallest: Number of pixels of the smallest objects of classes whose objects count. No
            cleaning that removes such objects is tried, even if the Dice would rise.
        annotated: More annotated label maps (*S), such as those of the training cases; iterated
            again for each cleaning setting that would be selected.

    Raises:
        DataError: if shapes do not fit, or values are not probabilities.
    """
    assert iter(cases) is not cases, "cases must be iterable several times"
    known = ValidationCases(cases, space, groups)
    curves = known.threshold_curves()
    default = {name: curve[GRID.index(0.5)] for name, curve in curves.items()}
    basis = known.choose_units(curves)
    best = {name: _best_threshold(curves[name]) for name in basis}
    gains = {
        name: curves[name][GRID.index(value)].mean - default[name].mean
        for name, value in best.items()
        if value and name not in (objects or {})
    }
    changed = sorted(gains, key=lambda name: -gains[name])[:MAX_THRESHOLDS]
    thresholds = [_Step(name, "threshold", best[name]) for name in best if name in changed]
    cleaned = basis if len(space.scored) <= MAX_CLEANED else ()
    cleanings = [
        _Step(name, key, value)
        for name in cleaned
        for key, value in CLEANINGS
        if name not in (smallest or {}) or _keeps_objects(key, value, (smallest or {})[name])
    ]

    rule, now, object_lines = known.start(curves, objects or {})
    rule, now, lines = known.add_steps(rule, now, thresholds, default)
    keeps_masks = partial(known.keeps_masks, annotated)
    rule, now, more = known.add_steps(rule, now, cleanings, default, keeps_masks)
    return RuleChoice(
        rule=rule,
        report=(*object_lines, *lines, *more, *_unchanged_lines(rule, default, basis)),
        before={name: score.mean for name, score in default.items() if score.annotated},
        after={name: score.mean for name, score in now.items() if score.annotated},
        basis=basis | {name: found.basis for name, found in (objects or {}).items()},
    )


def _keeps_objects(key: str, value: Any, min_size_px: int) -> bool:
    """Return whether a cleaning setting keeps all objects of at least this size."""
    if key == "min_size_px":
        return bool(value <= min_size_px)
    return key != "largest_only"


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

    @property
    def words(self) -> str:
        """The change as a part of a sentence."""
        return {
            "threshold": f"threshold {self.value} instead of 0.5",
            "min_size_px": f"objects below {self.value} pixels removed",
            "largest_only": "only the largest component kept",
            "max_hole_size_px": "holes filled",
        }[self.key]

    def refusal(self, before: RuleScore, after: RuleScore) -> str:
        """Describe why the change is not made although the Dice is higher."""
        return (
            f"{self.name}: not chosen, because it would also change annotated masks: {self.words} "
            f"(mean Dice {before.mean:.4f} -> {after.mean:.4f})."
        )

    def line(self, before: RuleScore, after: RuleScore) -> str:
        """Describe the change and its effect on the Dice."""
        changes = after.changes_from(before)
        better = sum(change > 0 for change in changes)
        text = (
            f"{self.name}: {self.words}: mean Dice {before.mean:.4f} -> {after.mean:.4f} on "
            f"{len(after.dice)} {UNIT_NOUNS[after.unit]} ({better} better, "
            f"{len(changes) - better} worse)"
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
    units: dict[str, Unit] = field(default_factory=dict)
    """Unit on which each class is compared; groups if it is not listed."""

    def choose_units(self, curves: Mapping[str, Sequence[RuleScore]]) -> dict[str, Basis]:
        """Choose the unit of each class, note it in the scores, and return where there are enough.

        Args:
            curves: Result of `threshold_curves`.
        """
        found = {}
        for name, scores in curves.items():
            if (basis := choose_unit(scores[0].annotated)) is not None:
                found[name] = basis
                self.units[name] = basis.unit
                for score in scores:
                    score.unit = basis.unit
        return found

    def threshold_curves(self) -> dict[str, list[RuleScore]]:
        """Score each class at each threshold of GRID, the other classes at 0.5."""
        curves = {region.name: [RuleScore() for _ in GRID] for region in self.space.scored}
        for number, (group, probabilities, truth) in enumerate(self._read()):
            counted = truth != IGNORE
            parts = list(quarters(truth.shape))
            shown = evidence_of(probabilities, self.space)
            for region, evidence in zip(self.space.scored, shown, strict=True):
                in_truth = region.of(truth)
                found = [
                    counts_on_grid(evidence[where][valid], in_truth[where][valid], GRID)
                    for where in parts
                    for valid in [counted[where]]
                ]
                for score, counts in zip(
                    curves[region.name], zip(*found, strict=True), strict=True
                ):
                    score.add(group, number, counts)
        return curves

    def start(
        self, curves: Mapping[str, Sequence[RuleScore]], objects: Mapping[str, ObjectCurve]
    ) -> tuple[DecisionRule, RuleScores, list[str]]:
        """Return the rule with the thresholds chosen for objects, its scores, and their lines."""
        default = {name: curve[GRID.index(0.5)] for name, curve in curves.items()}
        classes, lines = {}, []
        for name, found in objects.items():
            scores = dict(zip(GRID, curves[name], strict=True))
            largest = MAX_DICE_ERROR * (1 - default[name].mean)
            allowed = [
                threshold
                for threshold in found.clear_gains()
                if 1 - scores[threshold].mean <= largest
                and not scores[threshold].has_more_false_positives(default[name])
            ]
            chosen = max(allowed, key=found.mean, default=0.5)
            line = found.line(name, chosen)
            if chosen != 0.5:
                classes[name] = ClassRule(threshold=chosen)
                line += f" Mean Dice {default[name].mean:.4f} -> {scores[chosen].mean:.4f}."
            lines.append(line)
        rule = DecisionRule(classes=classes)
        return rule, self.measure([rule])[0] if classes else default, lines

    def add_steps(
        self,
        rule: DecisionRule,
        now: RuleScores,
        steps: Sequence[_Step],
        default: RuleScores,
        is_allowed: Callable[[_Step], bool] = lambda step: True,
    ) -> tuple[DecisionRule, RuleScores, list[str]]:
        """Return the rule with the steps that help, its scores, and a line for each step."""
        report: list[str] = []
        named: set[tuple[str, str]] = set()  # Class and key of the steps that were refused.
        while steps:
            trials = self.measure([step.on(rule) for step in steps])
            accepted = [
                (step, after)
                for step, after in zip(steps, trials, strict=True)
                if _is_accepted(step.name, now, after, default)
            ]
            accepted.sort(key=lambda trial: now[trial[0].name].mean - trial[1][trial[0].name].mean)
            refused = list(takewhile(lambda trial: not is_allowed(trial[0]), accepted))
            for step, after in refused:
                if (step.name, step.key) not in named:
                    named.add((step.name, step.key))
                    report.append(step.refusal(now[step.name], after[step.name]))
            steps = [step for step in steps if step not in [one for one, _ in refused]]
            if len(refused) == len(accepted):
                break
            taken, after = accepted[len(refused)]
            report.append(taken.line(now[taken.name], after[taken.name]))
            rule, now = taken.on(rule), after
            steps = [s for s in steps if (s.name, s.key) != (taken.name, taken.key)]
        return rule, now, report

    def keeps_masks(self, annotated: Iterable[np.ndarray], step: _Step) -> bool:
        """Return whether a cleaning setting of a class leaves its annotated masks as they are.

        Masks with ignored pixels do not count: their strokes are smaller than the objects.

        Args:
            annotated: Label maps (*S) in addition to those of the validation cases.
        """
        scored = self.space.scored
        region = next(region for region in scored if region.name == step.name)
        cleanings = [one.cleaning for one in step.on(DecisionRule()).for_space(self.space)]
        kept = [
            dice(count_overlap(clean_classes(truth, scored, cleanings), truth, region)) or 0.0
            for truth in chain((truth for _, truth in self.cases), annotated)
            if region.of(truth).any() and not (truth == IGNORE).any()
        ]
        return not kept or float(np.mean(kept)) >= MIN_KEPT_DICE

    def measure(self, rules: Sequence[DecisionRule]) -> list[RuleScores]:
        """Score all classes under each rule, in one pass."""
        scored = self.space.scored
        names = [region.name for region in scored]
        found = [{name: RuleScore(self.units.get(name, "group")) for name in names} for _ in rules]
        for number, (group, probabilities, truth) in enumerate(self._read()):
            parts = list(quarters(truth.shape))
            decided: dict[tuple[float, ...], np.ndarray] = {}
            for rule, scores in zip(rules, found, strict=True):
                bare = rule.without_cleaning()
                key = tuple(one.threshold for one in bare.for_space(self.space))
                if key not in decided:
                    decided[key] = apply_rule(bare, probabilities, self.space)
                cleanings = [one.cleaning for one in rule.for_space(self.space)]
                classes = clean_classes(decided[key], scored, cleanings)
                counts = [count_classes(classes[part], truth[part], scored) for part in parts]
                for name, own in zip(names, zip(*counts, strict=True), strict=True):
                    scores[name].add(group, number, own)
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


def _unchanged_lines(
    rule: DecisionRule, default: RuleScores, basis: Mapping[str, Basis]
) -> Iterator[str]:
    """Yield a line for each class that was not changed, and caveats on the numbers."""
    unknown = [name for name in default if name not in basis]
    unchanged = [name for name in basis if name not in rule.classes]
    for name in unknown[:MAX_LINES]:
        yield (
            f"{name}: threshold 0.5 without postprocessing; another choice requires {MIN_UNITS} "
            "validation groups, images or quarters of images that contain the class."
        )
    for name in unchanged[:MAX_LINES]:
        score = default[name]
        yield (
            f"{name}: threshold 0.5 without postprocessing (mean Dice {score.mean:.4f}); no "
            f"change gains more than {MIN_GAIN} and improves most {UNIT_NOUNS[score.unit]}."
        )
    more = len(unknown[MAX_LINES:]) + len(unchanged[MAX_LINES:])
    if more:
        yield f"The same applies to {pluralize(more, 'other class')}."
    for name, score in default.items():
        if name in rule.classes and score.unit != "group":
            groups = pluralize(len(score.dice_of("group")), "validation group")
            yield (
                f"{name}: occurs in only {groups}, so the rule was selected on "
                f"{basis[name].count} {UNIT_NOUNS[score.unit]}. It may not suit other groups; "
                "--set predict.tune=false trains with threshold 0.5."
            )
    if rule.classes:
        yield "These gains were measured on the cases used to choose; expect less on other cases."
