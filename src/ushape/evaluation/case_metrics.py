"""What is measured of one class in one case, beside the counts of its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ushape.instances.label import ObjectConfig, by_class, label_objects
from ushape.io.streaming import open_bands
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.metrics.instance import count_objects
from ushape.metrics.probability import Reliability, auroc, average_precision, measure_reliability
from ushape.metrics.surface import measure_surfaces
from ushape.types import Prediction

CONFIDENT = 0.9
"""Probability from which a network that disagrees with the mask is sure of it."""


TOLERANCE_PX = 2.0
"""Of the surface Dice, in pixels of the finest axis."""

MICROMETERS_BELOW = 0.01
"""Millimeters between pixels, below which distances are told in micrometers."""


@dataclass(frozen=True)
class Unit:
    """What distances are measured in."""

    name: Literal["px", "mm", "µm"] = "px"

    @property
    def per_mm(self) -> float:
        return 1000.0 if self.name == "µm" else 1.0

    def spacing_of(self, image: Path) -> tuple[float, ...] | None:
        """Between the pixels of an image; None where distances are in pixels."""
        spacing = None if self.name == "px" else _spacing_mm(image)
        return None if spacing is None else tuple(self.per_mm * step for step in spacing)


def common_unit(images: Sequence[Path]) -> Unit:
    """Pixels, unless every image says how far its pixels are apart."""
    if not images or _spacing_mm(images[0]) is None:
        return Unit()
    found = [_spacing_mm(image) for image in images]
    known = [spacing for spacing in found if spacing is not None]
    if len(known) < len(found):
        return Unit()
    return Unit("µm" if min(min(spacing) for spacing in known) < MICROMETERS_BELOW else "mm")


def _spacing_mm(image: Path) -> tuple[float, ...] | None:
    with open_bands(image) as bands:
        return bands.spacing_mm


@dataclass(frozen=True, kw_only=True)
class CaseTruth:
    """What the annotator says of one case."""

    classes: np.ndarray
    """(*S) class indices."""

    objects: np.ndarray | None = None
    """(*S) numbers of objects, 0 outside, where the mask numbers them; None: connected parts."""

    spacing: Sequence[float] | None = None
    """Between pixels along each axis of S, in the unit of the distances; None: in pixels."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One class in one case."""

    values: Mapping[str, float | None]
    """By name of the measure; None where it has no value."""

    reliability: Reliability


def measure_case(
    prediction: Prediction,
    truth: CaseTruth,
    space: LabelSpace,
    *,
    how: ObjectConfig,
) -> list[Measured]:
    """All classes of `space.scored`, in their order.

    - hausdorff95, average_surface_distance: in the unit of the spacing; the image's diagonal
      where only one of truth and prediction holds the class.
    - surface_dice: the share of both surfaces that lies within 2 pixels of the other.
    - object_f1, object_average_precision, panoptic_quality: of objects matched at IoU 0.5, the
      second averaged over IoU 0.5 to 0.95. 0 where only one of the two holds any.
    - auroc, average_precision, brier, calibration_error: of the class's probability.
    - mask_doubt: pixels at which the network is 90 % sure of something else than the mask, as a
      share of the larger of truth and prediction; large where the mask may be wrong.

    Args:
        how: What is one object of the prediction.

    Shapes:
        all on the file's grid (*S).

    Source:
        `metrics`; mask_doubt after Northcutt, Jiang, Chuang 2021 (Confident Learning).
    """
    shares = by_class(prediction.probabilities, space)
    found = label_objects(prediction.classes, how, probabilities=shares, spacing_mm=truth.spacing)
    return [
        _measure_class(
            region,
            prediction.classes,
            np.where(region.of(prediction.classes), found.labels, 0),
            shares[region.classes[0]],
            truth,
        )
        for region in space.scored
    ]


def _measure_class(
    region: Region,
    predicted: np.ndarray,
    predicted_objects: np.ndarray,
    probability: np.ndarray,
    truth: CaseTruth,
) -> Measured:
    counted = truth.classes != IGNORE
    in_truth, in_guess = region.of(truth.classes), region.of(predicted) & counted
    if truth.objects is None:
        true_objects = label_objects(in_truth.astype(np.uint8)).labels
    else:
        true_objects = np.where(in_truth, truth.objects, 0)
    surfaces = measure_surfaces(in_guess, in_truth, truth.spacing, counted=counted)
    objects = count_objects(predicted_objects, true_objects, counted=counted)
    reliability = measure_reliability(probability, in_truth, counted)
    return Measured(
        values={
            "hausdorff95": surfaces.hausdorff95,
            "average_surface_distance": surfaces.average,
            "surface_dice": surfaces.surface_dice(TOLERANCE_PX * min(truth.spacing or (1.0,))),
            "object_f1": objects.f1(),
            "object_average_precision": objects.mean_average_precision,
            "panoptic_quality": objects.panoptic_quality,
            "true_objects": float(objects.truth),
            "predicted_objects": float(objects.predicted),
            "auroc": auroc(probability, in_truth, counted),
            "average_precision": average_precision(probability, in_truth, counted),
            "brier": reliability.brier,
            "calibration_error": reliability.expected_calibration_error,
            "mask_doubt": _mask_doubt(probability, in_truth, in_guess, counted),
        },
        reliability=reliability,
    )


def _mask_doubt(
    probability: np.ndarray, in_truth: np.ndarray, in_guess: np.ndarray, counted: np.ndarray
) -> float:
    given = np.where(in_truth, probability, 1 - probability)
    doubted = int(((given < 1 - CONFIDENT) & counted).sum())
    return doubted / max(1, int(in_truth.sum()), int(in_guess.sum()))


@dataclass(frozen=True)
class Title:
    """A measure in words."""

    text: str
    reading: str = "1 is best"
    """How to read it; {unit} is that of the distances."""


METRIC_NAMES: Mapping[str, Title] = {
    "dice": Title("Dice"),
    "iou": Title("IoU"),
    "precision": Title("Precision", "share of the prediction that is right"),
    "recall": Title("Recall", "share of the truth that is found"),
    "volume_difference": Title("Volume difference", "share of the truth; below 0 is too small"),
    "balanced_accuracy": Title("Balanced accuracy", "mean of recall inside and outside"),
    "hausdorff95": Title("Hausdorff distance, 95 %", "{unit}; 0 is best"),
    "average_surface_distance": Title("Average surface distance", "{unit}; 0 is best"),
    "surface_dice": Title("Surface Dice", "share of both surfaces within 2 pixels"),
    "object_f1": Title("Object F1", "objects that meet at IoU 0.5; 1 is best"),
    "object_average_precision": Title("Object AP", "mean over IoU 0.5 to 0.95; 1 is best"),
    "panoptic_quality": Title("Panoptic quality"),
    "true_objects": Title("Objects in the truth", "per case"),
    "predicted_objects": Title("Objects in the prediction", "per case"),
    "rand": Title("V_rand"),
    "information": Title("V_info"),
    "variation": Title("Variation of information", "bits; 0 is best"),
    "warping_error": Title("Warping error", "share of pixels; 0 is best"),
    "auroc": Title("AUROC", "of pixels; 0.5 is chance, 1 is best"),
    "average_precision": Title("Average precision", "of pixels; 1 is best"),
    "brier": Title("Brier score", "0 is best"),
    "calibration_error": Title("Calibration error", "0 is best"),
    "mask_doubt": Title("Doubt about the mask", "large where the mask may be wrong"),
}


def title_of(name: str) -> Title:
    """Of a measure; one that we do not know is called by its name."""
    return METRIC_NAMES.get(name) or Title(name.replace("_", " ").capitalize(), "")


def number_text(value: float | None, like: float | None = None) -> str:
    """Three places below 10, one from there on; '' for no value.

    Args:
        like: Another number, to whose places it is written.
    """
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value if like is None else like) < 10 else f"{value:.1f}"


def count_text(count: int) -> str:
    """With a thin space after each thousand."""
    return f"{count:,}".replace(",", "\u202f")
