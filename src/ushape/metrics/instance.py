"""Object-level metrics; `ushape.instances.label_objects` turns class maps into label maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ushape.errors import ConfigError, DataError

MIN_IOU = 0.5
"""IoU above which an object matches at most one other object."""

MAX_LABEL = 2**31 - 1
"""Largest object label, so that a pair of labels can be encoded in 64 bits."""

IOU_THRESHOLDS = tuple(step / 20 for step in range(10, 20))
"""0.5, 0.55, ..., 0.95, each the nearest double, so that an IoU of 3/5 is not above 0.6."""

MANY_OBJECTS = 10
"""Mean number of objects of a case above which there are many."""

MAX_OBJECT_PX = 2_000_000
"""Largest number of pixels on which objects are compared at all thresholds (about 10 s); if there
are more, cases are left out evenly."""


@dataclass(frozen=True, kw_only=True)
class ObjectCounts:
    """Object counts of one class in one image. Counts of images add up to those of their group.

    Two objects match at a threshold if their IoU is above it. Every metric is None if there is
    no object at all, and 0 if only truth or only prediction contains objects.
    """

    truth: int
    predicted: int
    ious: tuple[float, ...]
    """IoU of each matched pair (above 0.5); an object is in at most one pair."""

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            truth=self.truth + other.truth,
            predicted=self.predicted + other.predicted,
            ious=self.ious + other.ious,
        )

    def true_positives(self, threshold: float = MIN_IOU) -> int:
        """Return the number of matched pairs.

        Args:
            threshold: IoU threshold, 0.5 <= value < 1. The matching is not unique below 0.5.

        Raises:
            ConfigError: if the threshold is outside this range.
        """
        if not MIN_IOU <= threshold < 1:
            raise ConfigError(
                f"The IoU threshold for matching objects is {threshold}, outside [{MIN_IOU}, 1).",
                code="value_out_of_range",
                hint="Choose at least 0.5: below it, one object can match several others.",
            )
        return sum(iou > threshold for iou in self.ious)

    def f1(self, threshold: float = MIN_IOU) -> float | None:
        """Return 2 TP / (2 TP + FP + FN)."""
        objects = self.truth + self.predicted
        return 2 * self.true_positives(threshold) / objects if objects else None

    def average_precision(self, threshold: float = MIN_IOU) -> float | None:
        """Return TP / (TP + FP + FN), which is not the area under a precision-recall curve.

        Source:
            Caicedo et al. 2019 (2018 Data Science Bowl); Schmidt et al. 2018 (StarDist),
            arXiv 1806.03535, whose code also matches pairs with an IoU equal to the threshold.
        """
        found = self.true_positives(threshold)
        union = self.truth + self.predicted - found
        return found / union if union else None

    @property
    def mean_average_precision(self) -> float | None:
        """Mean of the average precision over `IOU_THRESHOLDS`."""
        scores = [self.average_precision(threshold) for threshold in IOU_THRESHOLDS]
        known = [score for score in scores if score is not None]
        return math.fsum(known) / len(known) if known else None

    @property
    def recognition_quality(self) -> float | None:
        """Recognition quality (RQ): F1 at an IoU threshold of 0.5."""
        return self.f1()

    @property
    def segmentation_quality(self) -> float | None:
        """Segmentation quality (SQ): mean IoU of the matched pairs; 0 if no object is matched."""
        if not self.ious:
            return 0.0 if self.truth or self.predicted else None
        return math.fsum(self.ious) / len(self.ious)

    @property
    def panoptic_quality(self) -> float | None:
        """Panoptic quality (PQ = SQ x RQ) of one class.

        Source:
            Kirillov et al. 2019, arXiv 1801.00868.
        """
        recognized, segmented = self.recognition_quality, self.segmentation_quality
        return None if recognized is None or segmented is None else recognized * segmented


def count_objects(
    predicted: np.ndarray, truth: np.ndarray, *, counted: np.ndarray | None = None
) -> ObjectCounts:
    """Match predicted and annotated objects.

    Args:
        counted: Pixels to evaluate; None: all pixels. An unmatched predicted object of which more
            than half lies outside is not a false positive; it is left out (Kirillov et al. 2019,
            void labels).

    Shapes:
        predicted, truth: (*S) integer label maps, 0 for background; labels may have gaps.
        counted: (*S) bool.

    Raises:
        DataError: if the shapes differ or the values are not object labels.
    """
    _check_label_maps(predicted, truth, counted)
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
    """Return the overlap in pixels of each pair of predicted and true labels, 0 included.

    Shapes:
        (*S) each -> three (N,) int64 arrays: predicted label, true label, pixels.
    """
    inside = (predicted > 0) | (truth > 0)
    if counted is not None:
        inside &= counted
    predicted_ids, true_ids = predicted[inside].astype(np.int64), truth[inside].astype(np.int64)
    factor = int(true_ids.max(initial=0)) + 1
    codes, pixels = np.unique(predicted_ids * factor + true_ids, return_counts=True)
    return codes // factor, codes % factor, pixels


def _sizes(label_map: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the pixels of each of the sorted labels, all of which occur in the label map."""
    found, pixels = np.unique(label_map, return_counts=True)
    return np.asarray(pixels[np.searchsorted(found, labels)])


def _check_label_maps(predicted: np.ndarray, truth: np.ndarray, counted: np.ndarray | None) -> None:
    for name, other in (("predicted", predicted), ("counted", counted)):
        if other is not None and other.shape != truth.shape:
            raise DataError(
                f"{name} has shape {other.shape}, but truth has shape {truth.shape}.",
                code="mask_size_mismatch",
                hint="All label maps must have the shape of the image.",
            )
    for name, labels in (("predicted", predicted), ("truth", truth)):
        least, most = labels.min(initial=0), labels.max(initial=0)
        if labels.dtype.kind not in "iu" or least < 0 or most > MAX_LABEL:
            raise DataError(
                f"{name} has {labels.dtype} values from {least} to {most}, which are not object "
                "labels.",
                code="invalid_object_labels",
                hint="Use integers, 0 for background; `label_objects` makes a label map of a mask.",
            )
