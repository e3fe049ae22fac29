"""Means and confidence intervals over groups, also by metadata, and their summary in a sentence."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator

from ushape.evaluation.scores import RENAMED_METRICS, CaseScore, pool_groups
from ushape.formatting import TextTable, group_label, number_text, pluralize
from ushape.metrics import METRICS
from ushape.metrics.overlap import CASE_KINDS, CaseKind
from ushape.metrics.probability import Reliability
from ushape.metrics.stats import Interval, bootstrap_mean
from ushape.types import Case

DISTANCES = ("hausdorff95", "average_surface_distance")
"""Metrics that have the unit of the summary."""

MAX_CATEGORIES = 12
"""Maximum number of values of a metadata column that is treated as categorical."""

RENAMED_KINDS = {"false alarm": "false positive"}
"""Current names of case kinds that earlier versions stored under another name."""

StoredMetric = Annotated[str, BeforeValidator(lambda name: RENAMED_METRICS.get(name, name))]
StoredKind = Annotated[CaseKind, BeforeValidator(lambda kind: RENAMED_KINDS.get(kind, kind))]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean of a metric over groups."""

    value: float | None
    interval: Interval | None
    """95% confidence interval; None for fewer than two groups."""

    groups: int


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one foreground class over all cases.

    Means are taken over the groups in which the class is annotated; a group in which it is not
    found has the worst value. Cases without annotation are counted by `case_kinds` and excluded
    from the means.
    """

    name: str
    means: dict[StoredMetric, Mean]
    """Means by metric name, Dice first. For overlap metrics the pixels of each group are pooled;
    for all others, the value of a group is the mean over its cases with the class annotated."""

    mean_case_dice: float | None
    groups_with_truth: int
    missed_groups: int
    """Number of these groups in which no predicted pixel overlaps the annotation."""

    case_kinds: dict[StoredKind, int]
    reliability: Reliability | None = None
    """Sums for the calibration metrics over the pixels of all cases."""

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over groups; None if the class is not annotated in any group."""
        return self.means["dice"].value

    @property
    def interval(self) -> Interval | None:
        """95% confidence interval of the mean Dice."""
        return self.means["dice"].interval

    @property
    def false_positives(self) -> int:
        """Number of cases in which the class is predicted but not annotated."""
        return self.case_kinds["false positive"]

    @property
    def cases_without_truth(self) -> int:
        """Number of cases in which the class is not annotated."""
        return self.false_positives + self.case_kinds["both empty"]


@dataclass(frozen=True, kw_only=True)
class BestScore:
    """Topology metric at the threshold that is optimal for it on these cases, as in ISBI 2012."""

    value: float
    threshold: float
    at_rule: float
    """Value of the predicted masks, i.e. with the decision rule of the run."""

    images: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Scores of all classes and cases."""

    classes: tuple[ClassScores, ...]
    cases: int
    groups: int
    group_noun: str
    """Plural noun for the groups, e.g. "patients"."""

    pixel_error: float
    """Fraction of pixels with a wrong class, mean over cases."""

    seen_cases: int = 0
    """Number of cases whose image was used in training."""

    distance_unit: Literal["px", "mm", "µm"] = "px"
    rank_correlation: float | None = None
    """Spearman correlation between predicted confidence and Dice of the cases."""

    topology: dict[str, BestScore] = field(default_factory=dict)
    """Topology metrics by name; empty unless cells fill the images."""

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the annotated classes; None if there are none."""
        found = [summary.mean_dice for summary in self.classes if summary.mean_dice is not None]
        return float(np.mean(found)) if found else None

    def __repr__(self) -> str:
        dice = "None" if self.mean_dice is None else f"{self.mean_dice:.3f}"
        return f"Summary(mean_dice={dice}, cases={self.cases}, groups={self.groups})"

    @property
    def verdict(self) -> str:
        """Main results in a few sentences."""
        text = " ".join(_class_verdict(own, self) for own in self.classes)
        text += f" The pixel error is {self.pixel_error:.4f}."
        if self.topology:
            rand, information = self.topology["rand"], self.topology["information"]
            text += (
                f" V_rand is {rand.value:.4f} and V_info is {information.value:.4f}, each at its "
                "optimal threshold."
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
    """Compute means, confidence intervals and counts.

    Args:
        noun: Plural noun for the groups, e.g. "patients".
        seen_cases: Number of cases whose image was used in training.
        reliability: Sums for the calibration metrics over all cases, by class name.
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
    """Add to the summary of all folds what only the summaries of the folds contain.

    Reliability is pooled. Topology metrics, each at the optimal threshold of its fold, are
    averaged.

    Args:
        parts: Summaries of the folds.
        whole: Result of `summarize` for the scores of all folds.
    """
    classes = [
        replace(
            own,
            reliability=_pool(
                [one.reliability for part in parts for one in part.classes if one.name == own.name]
            ),
        )
        for own in whole.classes
    ]
    units = {part.distance_unit for part in parts}
    if len(units) > 1:  # Distances in mm and pixels cannot be averaged.
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
    """Return the means of the metrics that have no unit."""
    return {name: mean for name, mean in means.items() if name not in DISTANCES}


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
) -> ClassScores:
    cases = [score for score in scores if score.class_name == name]
    own_groups = [score for score in groups if score.class_name == name]
    with_truth = [score for score in own_groups if score.counts.truth]
    case_dice = [score.dice or 0.0 for score in cases if score.counts.truth]
    kinds = Counter(score.kind for score in cases)
    columns = {
        metric: [compute(score.counts) for score in with_truth]
        for metric, compute in METRICS.items()
    }
    for metric in dict.fromkeys(one for score in own_groups for one in score.metrics):
        columns[metric] = [score.metrics.get(metric) for score in with_truth]
    return ClassScores(
        name=name,
        means={metric: _mean_of(values, seed) for metric, values in columns.items()},
        mean_case_dice=float(np.mean(case_dice)) if case_dice else None,
        groups_with_truth=len(with_truth),
        missed_groups=sum(score.kind == "missed" for score in with_truth),
        case_kinds={kind: kinds[kind] for kind in CASE_KINDS},
        reliability=reliability,
    )


def _mean_of(values: Sequence[float | None], seed: int) -> Mean:
    known = [value for value in values if value is not None]
    return Mean(
        value=float(np.mean(known)) if known else None,
        interval=bootstrap_mean(known, seed=seed),
        groups=len(known),
    )


def _class_verdict(own: ClassScores, whole: Summary) -> str:
    """Return e.g. "The mean Dice on 9 patients not used in training is 0.81 (95% CI ...)."."""
    label = "" if len(whole.classes) == 1 else f"{own.name}: "
    if own.mean_dice is None:
        images = "the only image" if whole.cases == 1 else f"any of the {whole.cases} images"
        text = f"The class {own.name} is not annotated in {images}, so its Dice is undefined."
        return label + text + _false_positive_text(own)
    groups = group_label(own.groups_with_truth, whole.group_noun)
    context = "not used in training"
    if whole.seen_cases:
        context = (
            f"({whole.seen_cases} of {whole.cases} images were used in training or validation)"
        )
    text = f"{label}The mean Dice on {groups} {context} is {own.mean_dice:.3f}"
    if own.interval is None:
        text += f". A confidence interval needs at least two {whole.group_noun}."
    else:
        text += f" (95% CI {own.interval.low:.3f} to {own.interval.high:.3f})."
        if not own.interval.is_reliable:
            text += f" This interval is unreliable: it rests on only {groups}."
    if own.missed_groups:
        text += f" In {own.missed_groups} of {groups}, {own.name} was not found."
    return text + _false_positive_text(own)


def _false_positive_text(own: ClassScores) -> str:
    if not own.cases_without_truth:
        return ""
    images = pluralize(own.cases_without_truth, "image")
    return (
        f" False positives occur in {own.false_positives} of {images} without annotated {own.name}."
    )


def break_down(
    scores: Sequence[CaseScore], cases: Sequence[Case], *, noun: str, seed: int
) -> list[TextTable]:
    """Return a table of scores for each metadata column with 2 to 12 different values.

    Args:
        noun: Plural noun for the groups, e.g. "patients".
    """
    found = []
    for column in dict.fromkeys(key for case in cases for key in case.metadata):
        value_of = {case.id: case.metadata.get(column, "") for case in cases}
        values = sorted(set(value_of.values()))
        if 2 <= len(values) <= MAX_CATEGORIES:
            rows = [
                row
                for value in values
                for row in _breakdown_rows(
                    value, [s for s in scores if value_of[s.case] == value], seed
                )
            ]
            found.append(
                TextTable(
                    title=f"By {column}",
                    columns=[column, "class", "images", noun, "mean Dice", "95% CI", "missed"],
                    rows=rows,
                )
            )
    return found


def _breakdown_rows(value: str, scores: Sequence[CaseScore], seed: int) -> list[list[str]]:
    """Return one row for each class."""
    by_class: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_class.setdefault(score.class_name, []).append(score)
    return [
        [value or "(none)", name, *_breakdown_cells(own, seed)] for name, own in by_class.items()
    ]


def _breakdown_cells(scores: Sequence[CaseScore], seed: int) -> list[str]:
    groups = [score for score in pool_groups(scores) if score.counts.truth]
    dice = [score.dice or 0.0 for score in groups]
    interval = bootstrap_mean(dice, seed=seed)
    return [
        str(len(scores)),
        str(len(groups)),
        number_text(sum(dice) / len(dice) if dice else None),
        f"{interval.low:.3f} to {interval.high:.3f}" if interval else "",
        str(sum(score.kind == "missed" for score in groups)),
    ]
