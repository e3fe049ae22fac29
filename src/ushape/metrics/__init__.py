"""Metrics of one case. A new pixel metric is a function of `Counts` and a line in `METRICS`."""

from __future__ import annotations

from collections.abc import Callable

from ushape.metrics.overlap import (
    Counts,
    balanced_accuracy,
    dice,
    iou,
    precision,
    recall,
    volume_difference,
)

METRICS: dict[str, Callable[[Counts], float | None]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "volume_difference": volume_difference,
    "balanced_accuracy": balanced_accuracy,
}
"""Metrics computed from pixel counts, by name."""
