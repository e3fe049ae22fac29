"""Pixel counts and the overlap metrics derived from them. Undefined values are None, never NaN."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ushape.labels import IGNORE, Region

CaseKind = Literal["both present", "missed", "false positive", "both empty"]
"""Whether a class is present in annotation and prediction of a case."""

CASE_KINDS: tuple[CaseKind, ...] = get_args(CaseKind)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pixel counts of one class in one case. Counts of slices add up to those of the volume."""

    overlap: int
    truth: int
    predicted: int
    """Pixels of the class in the prediction, ignored pixels excluded."""

    pixels: int
    """All pixels that are not ignored, of any class."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            overlap=self.overlap + other.overlap,
            truth=self.truth + other.truth,
            predicted=self.predicted + other.predicted,
            pixels=self.pixels + other.pixels,
        )


def count_overlap(predicted: np.ndarray, truth: np.ndarray, region: Region) -> Counts:
    """Count the pixels of one class or region; pixels marked IGNORE in the truth are excluded.

    Shapes:
        predicted, truth: (*S) class indices.
    """
    return count_masks(region.of(predicted), region.of(truth), truth != IGNORE)


def count_classes(
    predicted: np.ndarray, truth: np.ndarray, scored: Sequence[Region]
) -> list[Counts]:
    """Count the pixels of each class or region as `count_overlap` does, in one pass over classes.

    Shapes:
        predicted, truth: (*S) uint8 class indices.
    """
    if any(len(region.classes) > 1 for region in scored):
        return [count_overlap(predicted, truth, region) for region in scored]
    counted = truth != IGNORE
    own, found = truth[counted], predicted[counted]
    overlap, in_truth, in_predicted = (
        np.bincount(classes, minlength=IGNORE + 1).tolist()
        for classes in (own[own == found], own, found)
    )
    return [
        Counts(
            overlap=overlap[index],
            truth=in_truth[index],
            predicted=in_predicted[index],
            pixels=len(own),
        )
        for region in scored
        for index in region.classes
    ]


def count_masks(predicted: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> Counts:
    """Count the pixels of two masks; pixels that are not counted are excluded.

    Shapes:
        predicted: (*S) bool, or one value for all pixels.
        truth, counted: (*S) bool.
    """
    found = np.broadcast_to(predicted, counted.shape) & counted
    return Counts(
        overlap=int((truth & found).sum()),
        truth=int(truth.sum()),
        predicted=int(found.sum()),
        pixels=int(counted.sum()),
    )


def dice(counts: Counts) -> float | None:
    """Return 2 overlap / (truth + predicted); None if both are empty."""
    size = counts.truth + counts.predicted
    return 2 * counts.overlap / size if size else None


def iou(counts: Counts) -> float | None:
    """Return overlap / union; None if both are empty."""
    union = counts.truth + counts.predicted - counts.overlap
    return counts.overlap / union if union else None


def precision(counts: Counts) -> float | None:
    """Return overlap / predicted; 0 if only the prediction is empty, None if both are empty."""
    if counts.predicted:
        return counts.overlap / counts.predicted
    return 0.0 if counts.truth else None


def recall(counts: Counts) -> float | None:
    """Return overlap / truth; None if the truth is empty."""
    return counts.overlap / counts.truth if counts.truth else None


def volume_difference(counts: Counts) -> float | None:
    """Return (predicted - truth) / truth; negative if too small, None if the truth is empty.

    The location is not considered, and positive and negative values cancel in a mean.
    """
    return (counts.predicted - counts.truth) / counts.truth if counts.truth else None


def balanced_accuracy(counts: Counts) -> float | None:
    """Return the mean of recall and specificity; None if the truth is empty or covers all pixels.

    Source:
        Brodersen et al. 2010 (The Balanced Accuracy and Its Posterior Distribution), ICPR.
    """
    others = counts.pixels - counts.truth
    if not counts.truth or not others:
        return None
    false_positives = counts.predicted - counts.overlap
    return (counts.overlap / counts.truth + 1 - false_positives / others) / 2


def mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def case_kind(counts: Counts) -> CaseKind:
    """Return whether the class is present in the truth, the prediction, both or neither.

    A class that is annotated counts as missed if no predicted pixel overlaps it.
    """
    if counts.truth:
        return "both present" if counts.overlap else "missed"
    return "false positive" if counts.predicted else "both empty"


def pixel_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the fraction of pixels with a wrong class; 0 if all pixels are ignored."""
    counted = truth != IGNORE
    return float((predicted != truth)[counted].mean()) if counted.any() else 0.0
