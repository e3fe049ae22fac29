"""Metrics of one class in one case beyond pixel counts: surfaces, objects and probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ushape.instances.label import ObjectConfig, annotated_objects, by_class, label_prediction
from ushape.io.streaming import read_spacing
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.metrics.instance import IOU_THRESHOLDS, ObjectMatches, match_objects
from ushape.metrics.probability import Reliability, auroc, average_precision, measure_reliability
from ushape.metrics.surface import measure_surfaces
from ushape.types import Prediction

CONFIDENT = 0.9
"""Probability from which a prediction that contradicts the mask counts as confident."""

AP_IOUS = {f"object_ap_{round(100 * iou)}": iou for iou in IOU_THRESHOLDS}
"""IoU threshold of each metric that is a point of the curve of average precision against IoU."""

TOLERANCE_PX = 2.0
"""Tolerance of the surface Dice in pixels of the finest axis."""

MICROMETERS_BELOW_MM = 0.01
"""Pixel spacing in mm below which distances are reported in micrometers."""


OnObjects = Callable[[str, np.ndarray, np.ndarray, ObjectMatches], None]
"""Function of the name of a class, its predicted and annotated objects (*S), and their matches."""


@dataclass(frozen=True)
class Unit:
    """Unit of distances."""

    name: Literal["px", "mm", "µm"] = "px"

    @property
    def per_mm(self) -> float:
        """Units in one millimeter."""
        return 1000.0 if self.name == "µm" else 1.0

    def convert(self, spacing_mm: Sequence[float] | None) -> tuple[float, ...] | None:
        """Convert the pixel spacing of an image; None if distances are in pixels."""
        if self.name == "px" or spacing_mm is None:
            return None
        return tuple(self.per_mm * step for step in spacing_mm)


def common_unit(images: Sequence[Path]) -> Unit:
    """Return the unit for distances: pixels unless every image file contains its pixel spacing."""
    smallest = math.inf
    for image in images:
        spacing = read_spacing(image)
        if spacing is None:
            return Unit()
        smallest = min(smallest, *spacing)
    if not images:
        return Unit()
    return Unit("µm" if smallest < MICROMETERS_BELOW_MM else "mm")


@dataclass(frozen=True, kw_only=True)
class CaseTruth:
    """Ground truth of one case."""

    classes: np.ndarray
    """(*S) class indices."""

    objects: np.ndarray | None = None
    """(*S) object labels, 0 for background; None: objects are the connected components."""

    spacing: Sequence[float] | None = None
    """Pixel spacing along each axis of S, in the unit of the distances; None: 1 pixel."""


@dataclass(frozen=True, kw_only=True)
class CaseMetrics:
    """Metrics of one class in one case."""

    values: Mapping[str, float | None]
    """Values by metric name; None where a metric is undefined."""

    reliability: Reliability


def compute_case_metrics(
    prediction: Prediction,
    truth: CaseTruth,
    space: LabelSpace,
    *,
    how: ObjectConfig,
    on_objects: OnObjects = lambda name, predicted, truth, matches: None,
) -> list[CaseMetrics]:
    """Compute the metrics of each class of `space.scored`, in their order.

    - hausdorff95, average_surface_distance: in the unit of the spacing; the image diagonal if
      the class is only annotated or only predicted.
    - surface_dice: fraction of both surfaces that lies within 2 pixels of the other.
    - object_f1, panoptic_quality, segmentation_quality: for objects with an IoU above 0.5.
    - object_ap_50 to object_ap_95: TP / (TP + FP + FN) of objects at each IoU threshold, as in
      StarDist; object_ap_mean is its mean over 0.5 to 0.9. object_average_precision is the score of
      the 2018 Data Science Bowl, the mean over 0.5 to 0.95. All are 0 if only one mask contains
      objects.
    - seg, object_splits, object_merges, object_count_error, object_count_difference: see
      `ObjectCounts`; missed_objects, false_positive_objects: see `ObjectMatches`.
    - auroc, average_precision, brier, calibration_error: for the probability of the class.
    - label_error_score: number of pixels at which the prediction contradicts the mask with a
      probability above 90%, divided by the size of the larger of annotation and prediction. A
      high score indicates a possible annotation error.

    Args:
        how: Definition of the objects of the prediction.
        on_objects: Function that receives the objects of each class.

    Shapes:
        all arrays on the grid of the image file, (*S).

    Source:
        See `ushape.metrics`; label_error_score after Northcutt, Jiang and Chuang 2021 (Confident
        Learning), doi 10.1613/jair.1.12125.
    """
    shares = by_class(prediction.probabilities, space)
    found = label_prediction(prediction, space, how, truth.spacing)
    return [
        _measure_class(
            region,
            prediction.classes,
            np.where(region.of(prediction.classes), found.labels, 0),
            shares[region.classes[0]],
            truth,
            on_objects,
        )
        for region in space.scored
    ]


def _measure_class(
    region: Region,
    predicted: np.ndarray,
    predicted_objects: np.ndarray,
    probability: np.ndarray,
    truth: CaseTruth,
    on_objects: OnObjects,
) -> CaseMetrics:
    counted = truth.classes != IGNORE
    in_truth, in_predicted = region.of(truth.classes), region.of(predicted) & counted
    true_objects = annotated_objects(in_truth, truth.objects)
    surfaces = measure_surfaces(in_predicted, in_truth, truth.spacing, counted=counted)
    matches = match_objects(predicted_objects, true_objects, counted=counted)
    on_objects(region.name, predicted_objects, true_objects, matches)
    objects = matches.counts
    reliability = measure_reliability(probability, in_truth, counted)
    return CaseMetrics(
        values={
            "hausdorff95": surfaces.hausdorff95,
            "average_surface_distance": surfaces.average,
            "surface_dice": surfaces.surface_dice(TOLERANCE_PX * min(truth.spacing or (1.0,))),
            "object_f1": objects.f1(),
            "object_ap_mean": objects.mean_average_precision,
            "object_average_precision": objects.bowl_score,
            "panoptic_quality": objects.panoptic_quality,
            "segmentation_quality": objects.segmentation_quality,
            "seg": objects.seg,
            **{name: objects.average_precision(iou) for name, iou in AP_IOUS.items()},
            "true_objects": float(objects.truth),
            "predicted_objects": float(objects.predicted),
            "missed_objects": float(matches.is_missed.sum()),
            "false_positive_objects": float(matches.is_false_positive.sum()),
            "object_splits": float(objects.splits),
            "object_merges": float(objects.merges),
            "object_count_error": float(objects.count_error),
            "object_count_difference": objects.count_difference,
            "auroc": auroc(probability, in_truth, counted),
            "average_precision": average_precision(probability, in_truth, counted),
            "brier": reliability.brier,
            "calibration_error": reliability.expected_calibration_error,
            "label_error_score": _label_error_score(probability, in_truth, in_predicted, counted),
        },
        reliability=reliability,
    )


def _label_error_score(
    probability: np.ndarray, in_truth: np.ndarray, in_predicted: np.ndarray, counted: np.ndarray
) -> float:
    given = np.where(in_truth, probability, 1 - probability)
    contradicted = int(((given < 1 - CONFIDENT) & counted).sum())
    return contradicted / max(1, int(in_truth.sum()), int(in_predicted.sum()))
