"""Scores of one class over all cases, and their comparison with trivial baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

from ushape.evaluation.baselines import BaselineName
from ushape.evaluation.pixel_counts import ThresholdPoint
from ushape.evaluation.scores import RENAMED_METRICS
from ushape.metrics.overlap import CaseKind
from ushape.metrics.probability import Reliability
from ushape.metrics.stats import Interval

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
class BaselineScores:
    """Score of a trivial baseline, on the same groups as the network."""

    name: BaselineName
    mean_dice: float
    difference: Mean
    """Dice of the network minus that of the baseline, paired by group."""

    @property
    def is_exceeded(self) -> bool:
        """Whether the network is better; with two or more groups, beyond the 95% interval."""
        interval, value = self.difference.interval, self.difference.value
        return (interval.low if interval is not None else value or 0.0) > 0


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

    baselines: tuple[BaselineScores, ...] = ()
    """Trivial baselines; empty in older runs, or if the class is not annotated in any group."""

    threshold_curve: tuple[ThresholdPoint, ...] = ()
    """Scores at each probability threshold; empty in older runs."""

    thresholds: tuple[float, ...] = ()
    """Threshold of the decision rule, of each fold in a cross-validation."""

    @property
    def best_baseline(self) -> BaselineScores | None:
        """Baseline with the highest mean Dice on these cases; None if none was scored."""
        return max(self.baselines, key=lambda own: own.mean_dice, default=None)

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
