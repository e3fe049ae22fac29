"""Object-level metrics; `ushape.instances.label_objects` turns class maps into label maps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ushape.errors import ConfigError, DataError

MIN_IOU = 0.5
"""IoU above which an object matches at most one other object."""

MAX_LABEL = 2**31 - 1
"""Largest object label, so that a pair of labels can be encoded in 64 bits."""

IOU_THRESHOLDS = tuple(step / 20 for step in range(10, 20))
"""0.5, 0.55, ..., 0.95, each the nearest double, so that an IoU of 3/5 is not above 0.6."""

MIN_PART = 0.1
"""Minimum share of a split object that each of its fragments has; smaller ones are specks."""

MANY_OBJECTS = 10
"""Mean number of objects of a case above which there are many."""

MAX_OBJECT_PX = 2_000_000
"""Maximum number of pixels on which objects are compared at all thresholds (about 10 s); if there
are more, evenly spaced cases are left out."""

MAX_SEPARATED_PX = 1_000_000
"""Maximum number of pixels on which methods to separate objects are compared; if there are more,
evenly spaced cases are left out."""


@dataclass(frozen=True, kw_only=True)
class ObjectCounts:
    """Object counts of one class in one image. Counts of images add up to those of their group.

    Scores are None if there is no object at all, and 0 if only truth or only prediction contains
    objects; SEG and the count difference are None if nothing is annotated.
    """

    truth: int
    predicted: int
    ious: tuple[float, ...]
    """IoU of each matched pair (at least 0.5); an object is in at most one pair."""

    covered_iou: float = 0.0
    """Sum over the annotated objects of the IoU with the predicted object that covers more than
    half of it; 0 for an object that none covers."""

    splits: int = 0
    """Number of annotated objects in which at least two predicted objects have more than half of
    their pixels, each of which covers at least a tenth of it (`MIN_PART`)."""

    merges: int = 0
    """Number of predicted objects in which at least two annotated objects have more than half of
    their pixels."""

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            truth=self.truth + other.truth,
            predicted=self.predicted + other.predicted,
            ious=self.ious + other.ious,
            covered_iou=self.covered_iou + other.covered_iou,
            splits=self.splits + other.splits,
            merges=self.merges + other.merges,
        )

    def true_positives(self, threshold: float = MIN_IOU) -> int:
        """Return the number of pairs with an IoU above a threshold.

        Args:
            threshold: IoU threshold, 0.5 <= value < 1. The matching is not unique below 0.5.

        Raises:
            ConfigError: if the threshold is outside this range.
        """
        _check_threshold(threshold)
        return sum(iou > threshold for iou in self.ious)

    def f1(self, threshold: float = MIN_IOU) -> float | None:
        """Return 2 TP / (2 TP + FP + FN)."""
        objects = self.truth + self.predicted
        return 2 * self.true_positives(threshold) / objects if objects else None

    def average_precision(self, threshold: float = MIN_IOU) -> float | None:
        """Return TP / (TP + FP + FN) as StarDist: pairs with an IoU equal to the threshold match.

        This is not the area under a precision-recall curve.

        Raises:
            ConfigError: if the threshold is outside 0.5 <= value < 1.

        Source:
            Schmidt et al. 2018 (StarDist), arXiv 1806.03535; `stardist.matching`.
        """
        _check_threshold(threshold)
        return self._precision(sum(iou >= threshold for iou in self.ious))

    @property
    def mean_average_precision(self) -> float | None:
        """Mean of the average precision over the IoU thresholds 0.5, 0.55, ..., 0.9."""
        return _mean(self.average_precision(iou) for iou in IOU_THRESHOLDS[:-1])

    @property
    def bowl_score(self) -> float | None:
        """Score of the 2018 Data Science Bowl.

        The mean of TP / (TP + FP + FN) over the IoU thresholds 0.5, 0.55, ..., 0.95; an IoU equal
        to the threshold is not a match.

        Source:
            Caicedo et al. 2019, doi 10.1038/s41592-019-0612-7.
        """
        return _mean(self._precision(self.true_positives(iou)) for iou in IOU_THRESHOLDS)

    def _precision(self, found: int) -> float | None:
        union = self.truth + self.predicted - found
        return found / union if union else None

    @property
    def recognition_quality(self) -> float | None:
        """Recognition quality (RQ): F1 at an IoU threshold of 0.5."""
        return self.f1()

    @property
    def segmentation_quality(self) -> float | None:
        """Segmentation quality (SQ): mean IoU of the pairs above 0.5; 0 if there is none."""
        known = [iou for iou in self.ious if iou > MIN_IOU]
        if not known:
            return 0.0 if self.truth or self.predicted else None
        return math.fsum(known) / len(known)

    @property
    def panoptic_quality(self) -> float | None:
        """Panoptic quality (PQ = SQ x RQ) of one class.

        Source:
            Kirillov et al. 2019, arXiv 1801.00868.
        """
        recognized, segmented = self.recognition_quality, self.segmentation_quality
        return None if recognized is None or segmented is None else recognized * segmented

    @property
    def seg(self) -> float | None:
        """SEG of the Cell Tracking Challenge: mean of `covered_iou`; None if nothing is annotated.

        False positives do not lower it, and a predicted object may cover several annotated ones.

        Source:
            Maška et al. 2014, doi 10.1093/bioinformatics/btu080.
        """
        return self.covered_iou / self.truth if self.truth else None

    @property
    def count_error(self) -> int:
        """Absolute difference of the numbers of predicted and annotated objects."""
        return abs(self.predicted - self.truth)

    @property
    def count_difference(self) -> float | None:
        """(predicted - annotated) / annotated objects; None if nothing is annotated."""
        return (self.predicted - self.truth) / self.truth if self.truth else None


@dataclass(frozen=True, kw_only=True)
class ObjectMatches:
    """Comparison of N predicted and M annotated objects of one image, by object."""

    predicted: np.ndarray
    """(N,) labels in increasing order, without those that are left out."""

    truth: np.ndarray
    """(M,) labels in increasing order."""

    ious: np.ndarray
    """IoU of each matched pair (at least 0.5)."""

    covered_iou: np.ndarray
    """(M,) IoU with the predicted object that covers more than half; 0 without one."""

    is_found: np.ndarray
    """(M,) bool: whether the IoU with a predicted object is above 0.5."""

    is_correct: np.ndarray
    """(N,) bool: whether the IoU with an annotated object is above 0.5."""

    is_split: np.ndarray
    """(M,) bool: whether the object is split, as in `ObjectCounts.splits`."""

    is_merger: np.ndarray
    """(N,) bool: whether more than half of each of at least two annotated objects is inside."""

    is_merged: np.ndarray
    """(M,) bool: whether more than half of the object is inside such a merger."""

    is_part: np.ndarray
    """(N,) bool: whether the object is one of the parts of a split object."""

    @property
    def is_missed(self) -> np.ndarray:
        """(M,) bool: whether the object is neither detected nor split nor merged."""
        return ~(self.is_found | self.is_split | self.is_merged)

    @property
    def is_false_positive(self) -> np.ndarray:
        """(N,) bool: whether the object is neither correct nor a merger nor part of a split."""
        return ~(self.is_correct | self.is_part | self.is_merger)

    @property
    def counts(self) -> ObjectCounts:
        """Counts of the image."""
        return ObjectCounts(
            truth=len(self.truth),
            predicted=len(self.predicted),
            ious=tuple(self.ious.tolist()),
            covered_iou=math.fsum(self.covered_iou.tolist()),
            splits=int(self.is_split.sum()),
            merges=int(self.is_merger.sum()),
        )


def count_objects(
    predicted: np.ndarray, truth: np.ndarray, *, counted: np.ndarray | None = None
) -> ObjectCounts:
    """Match predicted and annotated objects and count them, as `match_objects`."""
    return match_objects(predicted, truth, counted=counted).counts


def match_objects(
    predicted: np.ndarray, truth: np.ndarray, *, counted: np.ndarray | None = None
) -> ObjectMatches:
    """Match predicted and annotated objects.

    Only pairs that overlap are stored, so that time and memory grow with the number of pixels and
    not with the product of the numbers of objects. If the IoU of an object with two others is
    exactly 0.5, it is matched with one of them.

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
    # From here on only pairs of objects, without the background.
    is_pair = (predicted_ids > 0) & (true_ids > 0)
    ours, theirs, overlaps = of_predicted[is_pair], of_true[is_pair], overlaps[is_pair]
    ious = overlaps / (found_sizes[ours] + true_sizes[theirs] - overlaps)
    keep = found > 0
    if counted is not None:
        has_partner = _mark(ours[ious > MIN_IOU], len(found))
        keep &= has_partner | (2 * found_sizes >= _sizes(predicted, found))
        ours, theirs, overlaps, ious = (one[keep[ours]] for one in (ours, theirs, overlaps, ious))
    is_match = ious > MIN_IOU
    is_covered = 2 * overlaps > true_sizes[theirs]
    is_part = (2 * overlaps > found_sizes[ours]) & (overlaps >= MIN_PART * true_sizes[theirs])
    is_split = np.bincount(theirs[is_part], minlength=len(there)) > 1
    is_merger = np.bincount(ours[is_covered], minlength=len(found)) > 1
    return ObjectMatches(
        predicted=found[keep],
        truth=there[there > 0],
        ious=ious[is_match | _first_of_ties(ious == MIN_IOU, ours, theirs)],
        covered_iou=np.bincount(theirs[is_covered], ious[is_covered], len(there))[there > 0],
        is_found=_mark(theirs[is_match], len(there))[there > 0],
        is_correct=_mark(ours[is_match], len(found))[keep],
        is_split=is_split[there > 0],
        is_merger=is_merger[keep],
        is_merged=_mark(theirs[is_covered & is_merger[ours]], len(there))[there > 0],
        is_part=_mark(ours[is_part & is_split[theirs]], len(found))[keep],
    )


def _first_of_ties(is_tie: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return which pairs with an IoU of exactly 0.5 match: the first one of each object.

    Objects with two such pairs consist of the other objects of these pairs, which therefore have no
    other pair; and an object with such a pair has none above 0.5.
    """
    is_first = np.zeros(len(is_tie), dtype=bool)
    ties = np.flatnonzero(is_tie)
    ties = ties[np.unique(ours[ties], return_index=True)[1]]
    is_first[ties[np.unique(theirs[ties], return_index=True)[1]]] = True
    return is_first


def _mark(places: np.ndarray, length: int) -> np.ndarray:
    """Return a bool array of this length that is True at these indices."""
    marked = np.zeros(length, dtype=bool)
    marked[places] = True
    return marked


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None


def _check_threshold(threshold: float) -> None:
    if not MIN_IOU <= threshold < 1:
        raise ConfigError(
            f"The IoU threshold for matching objects is {threshold}, outside [{MIN_IOU}, 1).",
            code="value_out_of_range",
            hint="Choose at least 0.5: below it, one object can match several others.",
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
