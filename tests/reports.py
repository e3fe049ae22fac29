"""Reports of made-up cases, for the tests of the page."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ushape.evaluation.case_images import CasePicture, make_picture
from ushape.evaluation.case_metrics import AP_IOUS
from ushape.evaluation.pixel_counts import PixelCounts
from ushape.evaluation.scores import CaseScore, score_case
from ushape.evaluation.storage import Report
from ushape.evaluation.summary import Summary, summarize
from ushape.formatting import TextTable
from ushape.inference.decision_rule import DecisionRule, apply_rule
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.probability import Reliability, measure_reliability
from ushape.types import Prediction

CELL = LabelSpace(values=(0, 255), names=("background", "cell"))


@dataclass(frozen=True)
class MadeCase:
    """A case, predicted and scored."""

    scores: list[CaseScore]
    picture: CasePicture
    reliability: dict[str, Reliability]
    prediction: Prediction
    truth: np.ndarray
    space: LabelSpace = CELL


def make_case(
    name: str,
    size: int = 64,
    seed: int = 0,
    space: LabelSpace = CELL,
    *,
    group: str = "dish",
    noise: float = 0.4,
) -> MadeCase:
    """Blobs of each class, and probabilities that follow them more or less.

    Args:
        noise: How far the prediction strays.
    """
    rng = np.random.default_rng(seed)
    blobs = [_blobs(rng, size) for _ in space.scored]
    truth = np.zeros((size, size), np.uint8)
    for index, field in enumerate(blobs, start=1):
        truth[field > 1] = index
    found = [field + noise * _blobs(rng, size) for field in blobs]
    shares = np.stack([1 / (1 + np.exp(-6 * (field - 1))) for field in found]).astype(np.float32)
    if space.is_exclusive:
        odds = np.concatenate([np.ones_like(shares[:1]), shares / (1.001 - shares)])
        shares = odds / odds.sum(axis=0)
    image = (110 + 45 * blobs[0] + rng.normal(0, 10, (3, size, size))).clip(0, 255)
    prediction = Prediction(probabilities=shares, classes=apply_rule(DecisionRule(), shares, space))
    objects = {"true_objects": 5.0 + seed % 7, "predicted_objects": 6.0}
    precision = {name: 1 - iou for name, iou in AP_IOUS.items()}
    measured = {"hausdorff95": 12.3, "surface_dice": 0.8, "label_error_score": None}
    metrics = [{**measured, **precision, **objects}] * len(blobs)
    found = [measure_reliability(share, truth > 0) for share in shares[space.foreground]]
    names = [region.name for region in space.scored]
    return MadeCase(
        score_case(name, group, prediction.classes, truth, space, metrics),
        make_picture(name, group, image.astype(np.uint8), truth, prediction, space),
        dict(zip(names, found, strict=True)),
        prediction,
        truth,
        space,
    )


def make_cases() -> list[MadeCase]:
    """Cells of four dishes; some pixels are left open, one case is missed and two are empty."""
    made = [make_case(f"cell_{n}", seed=n, group=f"dish{n % 4}", noise=n / 20) for n in range(9)]
    made[2].picture.truth[:8] = IGNORE
    truth = np.zeros((64, 64), np.uint8)
    truth[:5, :5] = 1
    for name, wanted, found in (
        ("missed", truth, 0 * truth),
        ("empty", 0 * truth, 0 * truth),
        ("alarm", 0 * truth, truth),
    ):
        picture = replace(made[0].picture, case=name, group="dish9", truth=wanted)
        scores = score_case(name, "dish9", found, wanted, CELL)
        made.append(replace(made[0], scores=scores, picture=picture))
    return made


def make_report(cases: list[MadeCase], **changes: object) -> Report:
    """A report of these cases in which every section is filled."""
    scores = [score for case in cases for score in case.scores]
    reliability = cases and cases[0].reliability
    summary = summarize(scores, noun="dishes", reliability=reliability)
    values = {
        "title": "cells: test cases, used for nothing else",
        "summary": _with_counts(summary, cases) if cases else summary,
        "scores": scores,
        "epochs": [
            {
                "epoch": str(n),
                "loss": f"{1 / n:.3f}",
                "validation_loss": f"{0.5 / n:.3f}",
                "validation_dice": f"{1 - 0.5 / n:.3f}",
            }
            for n in range(1, 13)
        ],
        "split_lines": ["By dish: 8 for training, 3 for validation, 12 for the test."],
        "leak_lines": ["No image of the test is a copy of one of training."],
        "plan_lines": ["U-Net of 4 levels", "Dice and cross-entropy"],
        "reproduce_lines": ["Seed 0", "ushape train cells"],
        "pictures": [case.picture for case in cases],
        "breakdowns": [
            TextTable(
                title="By microscope",
                columns=["microscope", "cases", "mean Dice"],
                rows=[["A", "3", "0.912"], ["B", "9", "0.874"]],
            )
        ],
    }
    return Report(**{**values, **changes})


def _with_counts(summary: Summary, cases: list[MadeCase]) -> Summary:
    """Add what is measured from pixels: confusion matrix and scores at each threshold."""
    pixels = PixelCounts(cases[0].space)
    for case in cases:
        shares, found = case.prediction.probabilities, case.prediction.classes
        pixels.add(case.scores[0].group, shares, found, case.truth)
    classes = [
        replace(own, threshold_curve=pixels.curves[own.name], thresholds=(0.5,))
        for own in summary.classes
    ]
    return replace(summary, classes=tuple(classes), confusion=pixels.confusion)


def _blobs(rng: np.random.Generator, size: int) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)), size / 28)
    return field / field.std()
