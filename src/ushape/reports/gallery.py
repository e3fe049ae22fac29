"""Pictures and plot data that are embedded in the report page."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ushape.evaluation.case_images import CasePicture, encode_picture, reduce_picture
from ushape.evaluation.case_metrics import AP_IOUS
from ushape.evaluation.class_scores import ClassScores
from ushape.evaluation.object_pictures import OUTCOME_COLORS, ObjectPicture
from ushape.evaluation.scores import CaseScore
from ushape.evaluation.summary import Summary
from ushape.formatting import count_text, pluralize
from ushape.reports import as_data
from ushape.transforms.overlay import HIT_COLOR, PREDICTION_COLOR, TRUTH_COLOR, outline

MAX_GALLERY_BYTES = 3_600_000
"""Maximum size of all pictures of a page as text."""

MAX_VIEWS_BYTES = 4_000_000
"""Maximum size of all views of volumes of a page as text, besides its pictures."""

QUALITY_LEVELS = ((512, 80), (384, 75), (320, 70), (256, 60), (192, 50))
"""Longest side in pixels and WebP quality, from the highest to the lowest."""

HIGHLIGHTS = ("Lowest Dice", "Median Dice", "Highest Dice")

FALSE_POSITIVE = "Largest false positive"

MAX_CLASS_STILLS = 12
"""Maximum number of classes of which static pictures are shown."""

MAX_DOTS = 4000
"""Maximum number of cases in a plot; from more, an evenly spaced subset is drawn."""


@dataclass(frozen=True, kw_only=True)
class Highlight:
    """Picture that is always shown."""

    label: str
    """One of `HIGHLIGHTS`, or `FALSE_POSITIVE`."""

    case: str
    group: str
    result: str
    """Dice of the case, or a false positive in words."""

    picture: int
    """Index in the pictures of the gallery."""

    still: str
    """Data URI of a static picture with outlines, for readers without JavaScript."""

    planes: Sequence[tuple[str, str]]
    """Title and data URI of a projection and two planes of a volume; empty for an image."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures of a page."""

    pictures: Sequence[Mapping[str, Any]]
    """Results of `encode_picture`."""

    highlights: Sequence[Highlight]


def make_gallery(
    pictures: Sequence[CasePicture],
    dice: Mapping[str, float],
    false_positives: Mapping[str, int] | None = None,
    max_bytes: int = MAX_GALLERY_BYTES,
) -> Gallery:
    """Encode as many pictures as fit, at the highest quality at which they fit.

    The pictures with the lowest, median and highest Dice, and the largest false positive, come
    first.

    Args:
        pictures: Pictures of some or all cases.
        dice: Dice by case identifier, including cases without a picture. Pictures of cases
            without a Dice come last.
        false_positives: Predicted pixels of cases in which nothing is annotated, by identifier.
        max_bytes: Maximum size of all pictures as text.
    """
    false_positives = false_positives or {}
    by_case = {picture.case: picture for picture in pictures}
    ranked = sorted((case for case in by_case if case in dice), key=lambda case: (dice[case], case))
    chosen = _choose_highlights(ranked, dice)
    if wrong := [case for case in by_case if false_positives.get(case)]:
        chosen[FALSE_POSITIVE] = max(wrong, key=lambda case: false_positives[case])
    order = [*chosen.values(), *ranked, *(case for case in by_case if case not in dice)]
    ordered = [by_case[case] for case in dict.fromkeys(order)]
    encoded = _encode_within([replace(one, views=None) for one in ordered], max_bytes)
    _add_views(encoded, ordered)
    place_of = {picture["case"]: number for number, picture in enumerate(encoded)}
    return Gallery(
        pictures=encoded,
        highlights=[
            Highlight(
                label=label,
                case=case,
                group=by_case[case].group,
                result=f"Dice {dice[case]:.3f}"
                if case in dice
                else f"{count_text(false_positives[case])} pixels predicted, none annotated",
                picture=place_of[case],
                still=draw_still(by_case[case]),
                planes=views.planes if (views := by_case[case].views) is not None else (),
            )
            for label, case in chosen.items()
            if case in place_of
        ],
    )


def _add_views(encoded: Sequence[dict[str, Any]], pictures: Sequence[CasePicture]) -> None:
    """Add the views of volumes to the first encoded pictures, as many as fit."""
    max_bytes = MAX_VIEWS_BYTES
    for target, picture in zip(encoded, pictures, strict=False):
        if picture.views is None:
            continue
        views = picture.views.as_json()
        max_bytes -= len(json.dumps(views))
        if max_bytes < 0:
            return
        target["views"] = views


def _choose_highlights(ranked: Sequence[str], dice: Mapping[str, float]) -> dict[str, str]:
    """Return the cases with the lowest, median and highest Dice by label, each case once.

    Args:
        ranked: Cases with a picture, by increasing Dice.
        dice: Dice of all cases; the median is that of all, not only of those with a picture.
    """
    if not ranked:
        return {}
    middle = statistics.median_low(dice.values())
    nearest = min(ranked, key=lambda case: abs(dice[case] - middle))
    found: dict[str, str] = {}
    for label, case in zip(HIGHLIGHTS, (ranked[0], nearest, ranked[-1]), strict=True):
        if case not in found.values():
            found[label] = case
    return found


def _encode_within(pictures: Sequence[CasePicture], max_bytes: int) -> list[dict[str, Any]]:
    """Encode at the highest level at which all fit, or else as many as fit at the lowest."""
    found: list[dict[str, Any]] = []
    for max_side_px, quality in QUALITY_LEVELS:
        if _exceeds(pictures, max_side_px, quality, max_bytes):
            continue
        found = list(_fill(pictures, max_side_px, quality, max_bytes))
        if len(found) == len(pictures):
            return found
    return found or list(_fill(pictures, *QUALITY_LEVELS[-1], max_bytes))


def _exceeds(
    pictures: Sequence[CasePicture], max_side_px: int, quality: int, max_bytes: int
) -> bool:
    """Estimate from a sample whether all pictures are far too large."""
    sample = [reduce_picture(one, max_side_px) for one in pictures[:: max(1, len(pictures) // 8)]]
    size = sum(len(json.dumps(encode_picture(picture, quality))) for picture in sample)
    return size * len(pictures) > 1.2 * max_bytes * len(sample)


def _fill(
    pictures: Sequence[CasePicture], max_side_px: int, quality: int, max_bytes: int
) -> Iterator[dict[str, Any]]:
    """Encode pictures until the next one does not fit."""
    for picture in pictures:
        encoded = encode_picture(reduce_picture(picture, max_side_px), quality)
        max_bytes -= len(json.dumps(encoded))
        if max_bytes < 0:
            return
        yield encoded


def draw_still(picture: CasePicture, class_name: str | None = None) -> str:
    """Draw the outlines of all classes, or of one, and return the picture as a data URI."""
    return as_data(draw_outlines(reduce_picture(picture, 320), class_name), kind="webp")


def draw_outlines(picture: CasePicture, class_name: str | None = None) -> np.ndarray:
    """Draw the outlines of all classes, or of one, on the picture (h, w, 3) uint8."""
    truth, predicted = picture.truth, np.zeros_like(picture.truth)
    for own in picture.classes:
        if class_name in (None, own.region.name):
            predicted[own.percent >= own.threshold] = own.region.classes[0]
        if class_name == own.region.name:
            truth = np.where(own.region.of(truth), own.region.classes[0], 0).astype(np.uint8)
    return outline(np.moveaxis(picture.image, -1, 0), truth, predicted)


@dataclass(frozen=True, kw_only=True)
class ClassStill:
    """Static picture of one class of a case."""

    label: str
    """One of `HIGHLIGHTS`."""

    case: str
    dice: float
    data: str
    """Data URI of the image with the outlines of this class alone."""


def class_stills(
    pictures: Sequence[CasePicture], scores: Sequence[CaseScore]
) -> dict[str, list[ClassStill]]:
    """Return the pictures with the lowest, median and highest Dice of each class.

    Returns:
        Pictures by class name; empty for a single class, whose pictures the gallery shows, and for
        classes without an annotated case that has a picture.
    """
    by_case = {picture.case: picture for picture in pictures}
    dice_of: dict[str, dict[str, float]] = {score.class_name: {} for score in scores}
    for score in scores:
        if score.counts.truth:
            dice_of[score.class_name][score.case] = score.dice or 0.0
    if not 1 < len(dice_of) <= MAX_CLASS_STILLS:
        return {}
    found = {}
    for name, dice in dice_of.items():
        ranked = sorted((case for case in dice if case in by_case), key=lambda case: dice[case])
        chosen = _choose_highlights(ranked, dice)
        found[name] = [
            ClassStill(
                label=label, case=case, dice=dice[case], data=draw_still(by_case[case], name)
            )
            for label, case in chosen.items()
        ]
    return {name: own for name, own in found.items() if own}


@dataclass(frozen=True, kw_only=True)
class ObjectStill:
    """Pictures of the annotated and the predicted objects of a part of a case."""

    case: str
    title: str
    """Case, class and part."""

    errors: str
    """Numbers of the errors in words."""

    annotated: str
    """Data URI."""

    predicted: str


def draw_object_stills(pictures: Sequence[ObjectPicture]) -> list[ObjectStill]:
    """Return the pictures of missed, merged and split objects as data URIs."""
    return [
        ObjectStill(
            case=one.case,
            title=", ".join(filter(None, (one.case, one.class_name, one.part))),
            errors=f"In the whole image: {one.missed} missed, {one.merged} merged, {one.split} "
            f"split, {pluralize(one.false_positives, 'false positive')}",
            annotated=as_data(one.annotated, kind="webp"),
            predicted=as_data(one.predicted, kind="webp"),
        )
        for one in pictures
    ]


def plot_data(
    scores: Sequence[CaseScore],
    summary: Summary,
    epochs: Sequence[Mapping[str, str]],
    gallery: Gallery,
) -> dict[str, Any]:
    """Return the data for the JavaScript of the report page.

    Cases and classes are referenced by their index in `cases` and `classes`.
    """
    ids = list(dict.fromkeys(score.case for score in scores))
    group_of = {score.case: score.group for score in scores}
    picture_of = {picture["case"]: place for place, picture in enumerate(gallery.pictures)}
    return {
        "colors": {
            "truth": f"rgb{TRUTH_COLOR}",
            "prediction": f"rgb{PREDICTION_COLOR}",
            "hit": f"rgb{HIT_COLOR}",
            "outcomes": [f"rgb{color}" for color in OUTCOME_COLORS],
        },
        "cases": [
            {"id": case, "group": group_of[case], "picture": picture_of.get(case)} for case in ids
        ],
        "classes": [_class_data(own) for own in summary.classes],
        "scores": _score_data(scores, ids, [own.name for own in summary.classes]),
        "epochs": epoch_data(epochs),
        "pictures": gallery.pictures,
    }


def epoch_data(epochs: Sequence[Mapping[str, str]]) -> list[dict[str, float | None]]:
    """Return losses and Dice of each epoch; None for values that are not finite numbers."""
    return [
        {
            "epoch": _finite(row.get("epoch")),
            "loss": _finite(row.get("loss")),
            "validationLoss": _finite(row.get("validation_loss")),
            "dice": _finite(row.get("validation_dice")),
        }
        for row in epochs
    ]


def _class_data(own: ClassScores) -> dict[str, Any]:
    interval, reliability = own.interval, own.reliability
    return {
        "name": own.name,
        "mean": own.mean_dice,
        "interval": [interval.low, interval.high] if interval is not None else None,
        "curve": [
            {
                "threshold": point.threshold,
                "Dice": point.dice,
                "precision": point.precision,
                "recall": point.recall,
            }
            for point in own.threshold_curve
        ],
        "thresholds": sorted(set(own.thresholds)),
        "objectPrecision": [
            {"iou": iou, "precision": own.means[name].value}
            for name, iou in AP_IOUS.items()
            if name in own.means and own.means[name].value is not None
        ],
        "reliability": [
            {
                "probability": point.mean_probability,
                "fraction": point.positive_fraction,
                "pixels": point.pixels,
            }
            for point in (reliability.curve if reliability is not None else ())
        ],
    }


def _score_data(
    scores: Sequence[CaseScore], ids: Sequence[str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    place_of = {case: place for place, case in enumerate(ids)}
    shown = scores[:: max(1, math.ceil(len(scores) / MAX_DOTS))]
    return [
        {
            "case": place_of[score.case],
            "class": classes.index(score.class_name),
            "dice": None if score.dice is None else round(score.dice, 6),
            "kind": score.kind,
            "truth": score.counts.truth,
            "objects": _object_counts(score),
        }
        for score in shown
    ]


def _object_counts(score: CaseScore) -> list[float] | None:
    """Return the numbers of annotated and predicted objects; None in older runs."""
    counts = [score.metrics.get(name) for name in ("true_objects", "predicted_objects")]
    known = [count for count in counts if count is not None]
    return known if len(known) == 2 else None


def _finite(text: str | None) -> float | None:
    """Return a finite number, or None for any other text."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
