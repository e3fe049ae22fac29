"""Objects found, missed and invented; `objects.label_objects` makes label images of classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ushape.errors import ConfigError, DataError

MIN_IOU = 0.5
"""Above it an object has at most one partner, for no two can each cover more than half of it."""

HIGHEST_NUMBER = 2**31 - 1
"""Of an object; the code of a pair of numbers then fits in 64 bits."""

THRESHOLDS = tuple(step / 20 for step in range(10, 20))
"""0.5, 0.55 to 0.95, each the nearest double, so that an IoU of 3/5 is not above 0.6."""


@dataclass(frozen=True, kw_only=True)
class ObjectCounts:
    """Objects of one class in one image; the sum over images is the count of the group.

    A pair is matched at a threshold if its IoU is above it. Every score is None where there is
    no object at all, and 0 where only one side has any.
    """

    truth: int
    predicted: int
    ious: tuple[float, ...]
    """IoU of each pair above 0.5; no object is in two of them."""

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            truth=self.truth + other.truth,
            predicted=self.predicted + other.predicted,
            ious=self.ious + other.ious,
        )

    def true_positives(self, threshold: float = MIN_IOU) -> int:
        """Matched pairs.

        Args:
            threshold: 0.5 <= value < 1. Lower ones have no unique matching.

        Raises:
            ConfigError: a threshold outside.
        """
        if not MIN_IOU <= threshold < 1:
            raise ConfigError(
                f"The IoU threshold of objects is {threshold}, outside [{MIN_IOU}, 1).",
                hint="Below 0.5 an object may fit several others, and who fits is a choice.",
            )
        return sum(iou > threshold for iou in self.ious)

    def false_positives(self, threshold: float = MIN_IOU) -> int:
        """Predicted objects without partner."""
        return self.predicted - self.true_positives(threshold)

    def false_negatives(self, threshold: float = MIN_IOU) -> int:
        """True objects without partner."""
        return self.truth - self.true_positives(threshold)

    def f1(self, threshold: float = MIN_IOU) -> float | None:
        """2 TP / (2 TP + FP + FN), as Dice of objects."""
        objects = self.truth + self.predicted
        return 2 * self.true_positives(threshold) / objects if objects else None

    def average_precision(self, threshold: float = MIN_IOU) -> float | None:
        """TP / (TP + FP + FN), as IoU of objects; not the area below a precision-recall curve.

        Source:
            Caicedo et al. 2019 (2018 Data Science Bowl); Schmidt et al. 2018 (StarDist),
            arXiv 1806.03535, whose code also matches an IoU equal to the threshold.
        """
        found = self.true_positives(threshold)
        union = self.truth + self.predicted - found
        return found / union if union else None

    @property
    def mean_average_precision(self) -> float | None:
        """Mean of the average precision over THRESHOLDS."""
        scores = [self.average_precision(threshold) for threshold in THRESHOLDS]
        known = [score for score in scores if score is not None]
        return math.fsum(known) / len(known) if known else None

    @property
    def recognition_quality(self) -> float | None:
        """RQ: F1 at 0.5."""
        return self.f1()

    @property
    def segmentation_quality(self) -> float | None:
        """SQ: mean IoU of the matched pairs; 0 if there are objects and none is matched."""
        if not self.ious:
            return 0.0 if self.truth or self.predicted else None
        return math.fsum(self.ious) / len(self.ious)

    @property
    def panoptic_quality(self) -> float | None:
        """PQ = SQ x RQ, of one class.

        Source:
            Kirillov et al. 2019, arXiv 1801.00868.
        """
        recognized, segmented = self.recognition_quality, self.segmentation_quality
        return None if recognized is None or segmented is None else recognized * segmented


def count_objects(
    predicted: np.ndarray, truth: np.ndarray, *, counted: np.ndarray | None = None
) -> ObjectCounts:
    """Finds the objects that match.

    Args:
        counted: Pixels that count; None: all. IoU is of these alone. A predicted object without
            partner, more than half of which lies on others, is no false positive but left out
            (Kirillov et al. 2019, void labels).

    Shapes:
        predicted, truth: (*S) integer object numbers, 0 outside of all; any order, with gaps.
        counted: (*S) bool.

    Raises:
        DataError: shapes that do not fit; values that are no object numbers.
    """
    _check(predicted, truth, counted)
    predicted_ids, true_ids, overlaps = _overlaps(predicted, truth, counted)
    found, of_predicted = np.unique(predicted_ids, return_inverse=True)
    there, of_true = np.unique(true_ids, return_inverse=True)
    found_sizes, true_sizes = np.bincount(of_predicted, overlaps), np.bincount(of_true, overlaps)
    ious = overlaps / (found_sizes[of_predicted] + true_sizes[of_true] - overlaps)
    is_pair = (predicted_ids > 0) & (true_ids > 0) & (ious > MIN_IOU)
    is_object = found > 0
    if counted is not None:
        has_partner = np.isin(found, predicted_ids[is_pair])
        is_object &= has_partner | (2 * found_sizes >= _sizes(predicted, found))
    return ObjectCounts(
        truth=int((there > 0).sum()),
        predicted=int(is_object.sum()),
        ious=tuple(ious[is_pair].tolist()),
    )


def _overlaps(
    predicted: np.ndarray, truth: np.ndarray, counted: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each predicted number that meets a true one, and in how many pixels; 0 is a number too.

    Shapes:
        (*S) each -> (N,) int64 three times: predicted number, true number, pixels.
    """
    inside = (predicted > 0) | (truth > 0)
    if counted is not None:
        inside &= counted
    predicted_ids, true_ids = predicted[inside].astype(np.int64), truth[inside].astype(np.int64)
    factor = int(true_ids.max(initial=0)) + 1
    codes, pixels = np.unique(predicted_ids * factor + true_ids, return_counts=True)
    return codes // factor, codes % factor, pixels


def _sizes(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Pixels of each of the numbers, which are sorted and all among the labels."""
    found, pixels = np.unique(labels, return_counts=True)
    return np.asarray(pixels[np.searchsorted(found, numbers)])


def _check(predicted: np.ndarray, truth: np.ndarray, counted: np.ndarray | None) -> None:
    for name, other in (("predicted", predicted), ("counted", counted)):
        if other is not None and other.shape != truth.shape:
            raise DataError(
                f"{name} has shape {other.shape}, truth {truth.shape}.",
                hint="All label images lie on the image's grid.",
            )
    for name, labels in (("predicted", predicted), ("truth", truth)):
        least, most = labels.min(initial=0), labels.max(initial=0)
        if labels.dtype.kind not in "iu" or least < 0 or most > HIGHEST_NUMBER:
            raise DataError(
                f"{name} is {labels.dtype} from {least} to {most}, which are no object numbers.",
                hint="Integers from 0, the background; `label_objects` makes them of classes.",
            )
