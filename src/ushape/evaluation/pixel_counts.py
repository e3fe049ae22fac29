"""Pixel counts over all cases: the confusion matrix, and the scores at each threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ushape.inference.decision_rule import as_fractions
from ushape.inference.evidence import counts_on_grid, evidence_of
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics import METRICS
from ushape.metrics.overlap import Counts, mean_known

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 50))
"""Thresholds of the curves."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Confusion matrix over the pixels of all cases."""

    names: tuple[str, ...]
    """Name of each class, background first."""

    counts: tuple[tuple[int, ...], ...]
    """Number of pixels by true class (rows) and predicted class (columns)."""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.names) for row in self.counts):
            raise ValueError("the confusion matrix is not square")
        if len(self.counts) != len(self.names) or min(map(min, self.counts)) < 0:
            raise ValueError("the confusion matrix does not fit its classes")

    def __add__(self, other: Confusion) -> Confusion:
        total = np.add(self.counts, other.counts).tolist()
        return Confusion(names=self.names, counts=tuple(map(tuple, total)))

    @cached_property
    def shares(self) -> list[list[float | None]]:
        """Counts as fractions of the pixels of the true class; None for a class without any."""
        totals = [sum(row) for row in self.counts]  # Once: pages read each of K x K shares.
        return [
            [count / total if total else None for count in row]
            for row, total in zip(self.counts, totals, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class ThresholdPoint:
    """Means over groups at one probability threshold, without postprocessing."""

    threshold: float
    dice: float
    precision: float
    recall: float
    groups: int


class PixelCounts:
    """Sums the pixel counts of cases.

    Args:
        space: Classes of the run.
    """

    def __init__(self, space: LabelSpace):
        self.space = space
        self._confusion = np.zeros((len(space.values),) * 2, np.int64)
        self._curves: dict[str, dict[str, list[Counts]]] = {r.name: {} for r in space.scored}

    def add(
        self, group: str, probabilities: np.ndarray, predicted: np.ndarray, truth: np.ndarray
    ) -> None:
        """Add a case.

        Shapes:
            probabilities: (K, *S); predicted, truth: (*S) class indices.
        """
        counted, classes = truth != IGNORE, len(self.space.values)
        in_truth = truth[counted]
        pairs = in_truth.astype(np.intp) * classes + predicted[counted]
        found = np.bincount(pairs, minlength=classes**2)
        self._confusion += found.reshape(classes, classes)
        shown = evidence_of(as_fractions(probabilities), self.space)
        for region, evidence in zip(self.space.scored, shown, strict=True):
            own = list(counts_on_grid(evidence[counted], region.of(in_truth), THRESHOLDS))
            groups = self._curves[region.name]
            known = groups.get(group)
            groups[group] = [a + b for a, b in zip(known, own, strict=True)] if known else own

    @property
    def confusion(self) -> Confusion:
        """Confusion matrix of the predicted masks."""
        rows = tuple(map(tuple, self._confusion.tolist()))
        return Confusion(names=self.space.names, counts=rows)

    @property
    def curves(self) -> dict[str, tuple[ThresholdPoint, ...]]:
        """Scores of each class at each threshold; empty if it is annotated in no group."""
        return {
            name: tuple(_points([own for own in groups.values() if own[0].truth]))
            for name, groups in self._curves.items()
        }


def join_curves(curves: Sequence[Sequence[ThresholdPoint]]) -> tuple[ThresholdPoint, ...]:
    """Average the curves of folds, whose groups differ, over all groups."""
    found = []
    for points in zip(*(curve for curve in curves if curve), strict=True):
        weights = [point.groups for point in points]
        values = [(point.dice, point.precision, point.recall) for point in points]
        dice, precision, recall = np.average(values, axis=0, weights=weights).tolist()
        found.append(
            ThresholdPoint(
                threshold=points[0].threshold,
                dice=dice,
                precision=precision,
                recall=recall,
                groups=sum(weights),
            )
        )
    return tuple(found)


def _points(groups: Sequence[Sequence[Counts]]) -> Iterator[ThresholdPoint]:
    for threshold, counts in zip(THRESHOLDS, zip(*groups, strict=True), strict=False):
        yield ThresholdPoint(
            threshold=threshold,
            dice=mean_known(METRICS["dice"](own) for own in counts) or 0.0,
            precision=mean_known(METRICS["precision"](own) for own in counts) or 0.0,
            recall=mean_known(METRICS["recall"](own) for own in counts) or 0.0,
            groups=len(counts),
        )
