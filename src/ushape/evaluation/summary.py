"""Means and confidence intervals over groups, and the comparison with trivial baselines."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ushape.evaluation.baselines import BaselineName
from ushape.evaluation.class_scores import BaselineScores, ClassScores, Mean
from ushape.evaluation.pixel_counts import Confusion, join_curves
from ushape.evaluation.scores import CaseScore, pool_groups
from ushape.evaluation.verdict import (
    describe_class,
    describe_classes,
    describe_objects,
    describe_objects_of_classes,
)
from ushape.formatting import pluralize
from ushape.metrics import METRICS
from ushape.metrics.overlap import CASE_KINDS
from ushape.metrics.probability import Reliability
from ushape.metrics.stats import RELIABLE_FROM, bootstrap_mean

MAX_DESCRIBED = 12
"""Largest number of classes that the verdict describes one by one."""

DISTANCES = ("hausdorff95", "average_surface_distance")
"""Metrics that have the unit of the summary."""


@dataclass(frozen=True, kw_only=True)
class BestScore:
    """Topology metric at the threshold that is optimal for it on these cases, as in ISBI 2012."""

    value: float
    threshold: float
    at_rule: float
    """Value of the predicted masks, i.e. with the decision rule of the run."""

    images: int
    at_default: float | None = None
    """Value at the threshold 0.5; None in older runs."""


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

    rank_cases: int = 0
    """Number of cases on which the rank correlation is based; 0 in older runs."""

    confusion: Confusion | None = None
    """Confusion matrix over all pixels; None in older runs."""

    baseline_note: str = ""
    """How the baselines were chosen, or why some are missing."""

    topology: dict[str, BestScore] = field(default_factory=dict)
    """Topology metrics by name; empty unless cells fill the images."""

    is_about_objects: bool = False
    """Whether the masks mainly represent objects, so that the scores of objects come first."""

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the annotated classes; None if there are none."""
        found = [summary.mean_dice for summary in self.classes if summary.mean_dice is not None]
        return float(np.mean(found)) if found else None

    def __repr__(self) -> str:
        dice = "None" if self.mean_dice is None else f"{self.mean_dice:.3f}"
        return f"Summary(mean_dice={dice}, cases={self.cases}, groups={self.groups})"

    @property
    def rank_text(self) -> str:
        """Rank correlation in a sentence, with its caveat; '' if there is none."""
        if self.rank_correlation is None:
            return ""
        text = "The Spearman rank correlation between confidence and Dice"
        if self.rank_cases:
            text += f" over {pluralize(self.rank_cases, 'case')}"
        text += f" is {self.rank_correlation:.2f}."
        if 0 < self.rank_cases < RELIABLE_FROM:
            text += " With so few cases, it may be due to chance."
        return text

    def _describe(self, own: ClassScores) -> str:
        label = "" if len(self.classes) == 1 else f"{own.name}: "
        noun, cases, seen = self.group_noun, self.cases, self.seen_cases
        if self.is_about_objects:
            label += describe_objects(own, noun=noun, cases=cases, seen_cases=seen)
        return label + describe_class(own, noun=noun, cases=cases, seen_cases=seen)

    @property
    def verdict(self) -> str:
        """Main results in a few sentences."""
        if len(self.classes) > MAX_DESCRIBED:
            text = describe_classes(
                self.classes,
                noun=self.group_noun,
                cases=self.cases,
                seen_cases=self.seen_cases,
            )
            if self.is_about_objects:
                text = describe_objects_of_classes(self.classes) + text
        else:
            text = " ".join(self._describe(own) for own in self.classes)
        text += f" The pixel error is {self.pixel_error:.4f}."
        if self.topology and all(b.is_exceeded for o in self.classes if (b := o.best_baseline)):
            rand, information = self.topology["rand"], self.topology["information"]
            text += (
                f" V_rand is {rand.value:.4f} and V_info is {information.value:.4f}, each at its "
                f"optimal threshold ({rand.at_rule:.4f} and {information.at_rule:.4f} for the "
                "predicted masks)."
            )
        return text


def summarize(
    scores: Sequence[CaseScore],
    *,
    noun: str,
    seed: int = 0,
    seen_cases: int = 0,
    reliability: Mapping[str, Reliability] | None = None,
    baselines: Mapping[BaselineName, Sequence[CaseScore]] | None = None,
) -> Summary:
    """Compute means, confidence intervals and counts.

    Args:
        noun: Plural noun for the groups, e.g. "patients".
        seen_cases: Number of cases whose image was used in training.
        reliability: Sums for the calibration metrics over all cases, by class name.
        baselines: Scores of trivial baselines for the same cases, by name.
    """
    groups, known = pool_groups(scores), reliability or {}
    trivial = {name: pool_groups(own) for name, own in (baselines or {}).items()}
    names = list(dict.fromkeys(score.class_name for score in scores))
    by_case = {score.case: score.pixel_error for score in scores}
    return Summary(
        classes=tuple(
            replace(
                _summarize_class(name, scores, groups, seed, known.get(name)),
                baselines=_compare_baselines(name, groups, trivial, seed),
            )
            for name in names
        ),
        cases=len(by_case),
        groups=len({score.group for score in groups}),
        group_noun=noun,
        pixel_error=float(np.mean(list(by_case.values()))) if by_case else 0.0,
        seen_cases=seen_cases,
    )


def join_summaries(folds: Sequence[Summary], whole: Summary) -> Summary:
    """Add what only the summaries of single folds contain to the summary of all folds.

    Reliability and confusion matrices are summed. Topology metrics, each at the optimal threshold
    of its fold, and the scores at each threshold are averaged.

    Args:
        folds: Summaries of the folds.
        whole: Result of `summarize` for the scores of all folds.
    """
    fold_scores: dict[str, list[ClassScores]] = {scores.name: [] for scores in whole.classes}
    for scores in (scores for fold in folds for scores in fold.classes):
        fold_scores[scores.name].append(scores)
    classes = [
        replace(
            scores,
            reliability=_pool([fold.reliability for fold in fold_scores[scores.name]]),
            threshold_curve=join_curves(
                [fold.threshold_curve for fold in fold_scores[scores.name]]
            ),
            thresholds=tuple(
                threshold for fold in fold_scores[scores.name] for threshold in fold.thresholds
            ),
        )
        for scores in whole.classes
    ]
    units = {fold.distance_unit for fold in folds}
    if len(units) > 1:  # Distances in mm and pixels cannot be averaged.
        classes = [replace(scores, means=without_distances(scores.means)) for scores in classes]
    metrics = [name for name in folds[0].topology if all(name in fold.topology for fold in folds)]
    return replace(
        whole,
        classes=tuple(classes),
        seen_cases=sum(fold.seen_cases for fold in folds),
        is_about_objects=any(fold.is_about_objects for fold in folds),
        distance_unit=folds[0].distance_unit if len(units) == 1 else "px",
        confusion=_sum_confusion([fold.confusion for fold in folds]),
        baseline_note=" ".join(
            dict.fromkeys(fold.baseline_note for fold in folds if fold.baseline_note)
        ),
        topology={name: _mean_best([fold.topology[name] for fold in folds]) for name in metrics},
    )


def without_distances(means: Mapping[str, Mean]) -> dict[str, Mean]:
    """Return the means of the metrics that have no unit."""
    return {name: mean for name, mean in means.items() if name not in DISTANCES}


def _sum_confusion(parts: Sequence[Confusion | None]) -> Confusion | None:
    known = [part for part in parts if part is not None]
    complete = len(known) == len(parts)
    return functools.reduce(Confusion.__add__, known) if known and complete else None


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
        at_default=None if any(part.at_default is None for part in parts) else mean("at_default"),
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


def _compare_baselines(
    name: str,
    groups: Sequence[CaseScore],
    trivial: Mapping[BaselineName, Sequence[CaseScore]],
    seed: int,
) -> tuple[BaselineScores, ...]:
    """Compare a class with each baseline, over the groups in which it is annotated."""

    def dice_of(scores: Sequence[CaseScore]) -> dict[str, float]:
        own = [score for score in scores if score.class_name == name and score.counts.truth]
        return {score.group: score.dice or 0.0 for score in own}

    ours, found = dice_of(groups), []
    for baseline, scores in trivial.items():
        theirs = dice_of(scores)
        if ours and theirs.keys() == ours.keys():
            # Rounded, so that equal scores differ by exactly 0.
            changes = [round(ours[group] - theirs[group], 12) for group in ours]
            mean = float(np.mean(list(theirs.values())))
            found.append(
                BaselineScores(name=baseline, mean_dice=mean, difference=_mean_of(changes, seed))
            )
    return tuple(found)


def _mean_of(values: Sequence[float | None], seed: int) -> Mean:
    known = [value for value in values if value is not None]
    return Mean(
        value=float(np.mean(known)) if known else None,
        interval=bootstrap_mean(known, seed=seed),
        groups=len(known),
    )
