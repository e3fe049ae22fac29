"""Scores of cases -> means, intervals and a verdict that one can stand behind."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ushape.evaluation.scores import CaseScore, pool_groups
from ushape.formatting import group_label
from ushape.metrics import METRICS
from ushape.metrics.overlap import KINDS, Kind
from ushape.metrics.probability import Reliability
from ushape.metrics.stats import Interval, bootstrap_mean

DISTANCES = ("hausdorff95", "average_surface_distance")
"""Measures in the unit of the summary."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of a measure over groups."""

    value: float | None
    """None where no group has the measure."""

    interval: Interval | None
    groups: int


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """The scores of one foreground class.

    Means are over groups that hold the class in truth; a missed one scores the worst value. False
    alarms and pairs of empty masks are counted, never averaged in.
    """

    name: str
    means: dict[str, Mean]
    """By name of the measure, Dice first. Of pixel counts, the pixels of a group are pooled (3D);
    of every other measure, a group has the mean over its cases that hold the class."""

    mean_case_dice: float | None
    groups_with_truth: int
    missed_groups: int
    case_kinds: dict[Kind, int]
    reliability: Reliability | None = None
    """Of all cases' pixels together."""

    @property
    def mean_dice(self) -> float | None:
        """Over groups; None where no group holds the class."""
        return self.means["dice"].value

    @property
    def interval(self) -> Interval | None:
        """Of the mean Dice."""
        return self.means["dice"].interval


@dataclass(frozen=True, kw_only=True)
class BestScore:
    """A score of topology at the threshold that is best for it on these cases, as in ISBI 2012."""

    value: float
    threshold: float
    at_rule: float
    """The same score of the masks as they are predicted."""

    images: int
    """That were scored."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The scores of all cases."""

    classes: tuple[ClassSummary, ...]
    cases: int
    groups: int
    group_noun: str
    pixel_error: float
    """Mean over cases."""

    seen_cases: int = 0
    """Cases whose image was there in training; their scores say nothing about new ones."""

    distance_unit: Literal["px", "mm", "µm"] = "px"

    rank_correlation: float | None = None
    """Spearman's, of the networks' confidence in a case and its true Dice."""

    topology: dict[str, BestScore] = field(default_factory=dict)
    """Where cells fill the image: Rand, information, variation, warping error."""

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes that occur."""
        found = [summary.mean_dice for summary in self.classes if summary.mean_dice is not None]
        return float(np.mean(found)) if found else None

    @property
    def verdict(self) -> str:
        """The result in a sentence or two."""
        text = " ".join(_judge_class(summary, self) for summary in self.classes)
        text += f" Pixel error {self.pixel_error:.4f}."
        if self.topology:
            rand, information = self.topology["rand"], self.topology["information"]
            text += (
                f" V_rand {rand.value:.4f} and V_info {information.value:.4f}, each at its best "
                "threshold."
            )
        return text


def summarize(
    scores: Sequence[CaseScore],
    *,
    noun: str,
    seed: int = 0,
    seen_cases: int = 0,
    reliability: Mapping[str, Reliability] | None = None,
) -> Summary:
    """Means, intervals and counts.

    Args:
        noun: What a group is, in the plural.
        seen_cases: Cases whose image was there in training.
        seed: Of the bootstrap.
        reliability: By class name, of all cases.
    """
    groups, known = pool_groups(scores), reliability or {}
    names = list(dict.fromkeys(score.class_name for score in scores))
    by_case = {score.case: score.pixel_error for score in scores}
    return Summary(
        classes=tuple(
            _summarize_class(name, scores, groups, seed, known.get(name)) for name in names
        ),
        cases=len(by_case),
        groups=len({score.group for score in groups}),
        group_noun=noun,
        pixel_error=float(np.mean(list(by_case.values()))) if by_case else 0.0,
        seen_cases=seen_cases,
    )


def join_summaries(parts: Sequence[Summary], whole: Summary) -> Summary:
    """What the scores of all folds do not tell, from the summaries of each.

    Reliability is pooled; scores of topology, each at its fold's best threshold, are averaged.

    Args:
        whole: `summarize` of all scores.
    """
    classes = [
        replace(own, reliability=_pool([_class_of(part, own.name).reliability for part in parts]))
        for own in whole.classes
    ]
    units = {part.distance_unit for part in parts}
    if len(units) > 1:  # Millimeters and pixels have no mean.
        classes = [replace(own, means=without_distances(own.means)) for own in classes]
    names = [name for name in parts[0].topology if all(name in part.topology for part in parts)]
    return replace(
        whole,
        classes=tuple(classes),
        seen_cases=sum(part.seen_cases for part in parts),
        distance_unit=parts[0].distance_unit if len(units) == 1 else "px",
        topology={name: _mean_best([part.topology[name] for part in parts]) for name in names},
    )


def without_distances(means: Mapping[str, Mean]) -> dict[str, Mean]:
    """The means that can be told without a unit."""
    return {name: mean for name, mean in means.items() if name not in DISTANCES}


def _class_of(part: Summary, name: str) -> ClassSummary:
    return next(own for own in part.classes if own.name == name)


def _pool(parts: Sequence[Reliability | None]) -> Reliability | None:
    known = [part for part in parts if part is not None]
    return functools.reduce(Reliability.__add__, known) if known else None


def _mean_best(parts: Sequence[BestScore]) -> BestScore:
    def mean(name: str) -> float:
        return float(np.mean([getattr(part, name) for part in parts]))

    return BestScore(
        value=mean("value"),
        threshold=mean("threshold"),
        at_rule=mean("at_rule"),
        images=sum(part.images for part in parts),
    )


def _summarize_class(
    name: str,
    scores: Sequence[CaseScore],
    groups: Sequence[CaseScore],
    seed: int,
    reliability: Reliability | None,
) -> ClassSummary:
    cases = [score for score in scores if score.class_name == name]
    own_groups = [score for score in groups if score.class_name == name]
    with_truth = [score for score in own_groups if score.counts.truth]
    case_dice = [score.dice or 0.0 for score in cases if score.counts.truth]
    kinds = Counter(score.kind for score in cases)
    columns = {
        measure: [metric(score.counts) for score in with_truth]
        for measure, metric in METRICS.items()
    }
    for measure in dict.fromkeys(one for score in own_groups for one in score.measures):
        columns[measure] = [score.measures.get(measure) for score in with_truth]
    return ClassSummary(
        name=name,
        means={measure: _mean_of(values, seed) for measure, values in columns.items()},
        mean_case_dice=float(np.mean(case_dice)) if case_dice else None,
        groups_with_truth=len(with_truth),
        missed_groups=sum(score.kind == "missed" for score in with_truth),
        case_kinds={kind: kinds[kind] for kind in KINDS},
        reliability=reliability,
    )


def _mean_of(values: Sequence[float | None], seed: int) -> Mean:
    known = [value for value in values if value is not None]
    return Mean(
        value=float(np.mean(known)) if known else None,
        interval=bootstrap_mean(known, seed=seed),
        groups=len(known),
    )


def _judge_class(own: ClassSummary, whole: Summary) -> str:
    """E.g. "On 9 groups never seen in training the mean Dice is 0.81 [0.74, 0.87]"."""
    label = "" if len(whole.classes) == 1 else f"{own.name}: "
    if own.mean_dice is None:
        return f"{label}None of the {whole.cases} cases holds any {own.name} to be found." + (
            _alarm_text(own)
        )
    among = group_label(own.groups_with_truth, whole.group_noun)
    known = "never seen in training"
    if whole.seen_cases:
        known = f"({whole.seen_cases} of {whole.cases} images were there in training)"
    text = f"{label}On {among} {known} the mean Dice is {own.mean_dice:.3f}"
    if own.interval is not None:
        text += f" [{own.interval.low:.3f}, {own.interval.high:.3f}]"
    text += "."
    if own.interval is not None and not own.interval.is_reliable:
        text += (
            f" With {own.groups_with_truth} {whole.group_noun} the interval is not to be relied on."
        )
    elif own.interval is None:
        text += " One alone says nothing about the spread."
    if own.missed_groups:
        text += f" {own.missed_groups} of them missed."
    return text + _alarm_text(own)


def _alarm_text(own: ClassSummary) -> str:
    alarms = own.case_kinds["false alarm"]
    empty = alarms + own.case_kinds["both empty"]
    return f" False alarms on {alarms} of {empty} images without {own.name}." if empty else ""
