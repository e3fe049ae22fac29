"""How measures and numbers are written for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Title:
    """A measure in words."""

    text: str
    reading: str = "1 is best"
    """How to read it; {unit} is that of the distances."""


TITLES: Mapping[str, Title] = {
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
    return TITLES.get(name) or Title(name.replace("_", " ").capitalize(), "")


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
