"""Which pictures a page shows, and how small they must be to fit into it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ushape.evaluation.case_images import CasePicture, encode_picture, reduce_picture
from ushape.evaluation.scores import CaseScore
from ushape.evaluation.summary import ClassSummary, Summary
from ushape.reports import as_data
from ushape.transforms.overlay import HIT_COLOR, PREDICTION_COLOR, TRUTH_COLOR, outline

BYTES = 3_600_000
"""All pictures of a page together, as text."""

LEVELS = ((512, 80), (384, 75), (320, 70), (256, 60), (192, 50))
"""Longest side in pixels and quality of the image, from the best to the least."""

PLACES = ("Worst", "Median", "Best")


@dataclass(frozen=True, kw_only=True)
class Highlight:
    """A picture that every reader is shown."""

    place: str
    """Worst, Median or Best."""

    case: str
    group: str
    dice: float
    picture: int
    """Its place among the gallery's pictures."""

    still: str
    """Data URI: truth and prediction outlined, for where no script runs."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures as a page takes them."""

    pictures: Sequence[Mapping[str, Any]]
    """As `pictures.encode_picture` makes them."""

    highlights: Sequence[Highlight]


def make_gallery(
    pictures: Sequence[CasePicture], dice: Mapping[str, float], most_bytes: int = BYTES
) -> Gallery:
    """All pictures as large as they fit; where they do not fit, the worst, median, best first.

    Args:
        dice: Of all cases by their id, with a picture or without. Pictures of cases that have
            no Dice come last and are no highlights.
    """
    by_case = {picture.case: picture for picture in pictures}
    ranked = sorted((case for case in by_case if case in dice), key=lambda case: (dice[case], case))
    chosen = _spread(ranked, dice)
    order = [*chosen.values(), *ranked, *(case for case in by_case if case not in dice)]
    ordered = [by_case[case] for case in dict.fromkeys(order)]
    encoded = _encode_within(ordered, most_bytes)
    place_of = {picture["case"]: number for number, picture in enumerate(encoded)}
    return Gallery(
        pictures=encoded,
        highlights=[
            Highlight(
                place=place,
                case=case,
                group=by_case[case].group,
                dice=dice[case],
                picture=place_of[case],
                still=draw_still(by_case[case]),
            )
            for place, case in chosen.items()
            if case in place_of
        ],
    )


def _spread(ranked: Sequence[str], dice: Mapping[str, float]) -> dict[str, str]:
    """Worst, nearest to the median of all, and best; fewer of fewer cases.

    Args:
        ranked: Cases with a picture, by their Dice.
    """
    if not ranked:
        return {}
    middle = statistics.median_low(dice.values())
    nearest = min(ranked, key=lambda case: abs(dice[case] - middle))
    found: dict[str, str] = {}
    for place, case in zip(PLACES, (ranked[0], nearest, ranked[-1]), strict=True):
        if case not in found.values():
            found[place] = case
    return found


def _encode_within(pictures: Sequence[CasePicture], most_bytes: int) -> list[dict[str, Any]]:
    """At the best level at which all fit; as many as fit at the least."""
    found: list[dict[str, Any]] = []
    for longest_px, quality in LEVELS:
        if _exceeds(pictures, longest_px, quality, most_bytes):
            continue
        found = list(_fill(pictures, longest_px, quality, most_bytes))
        if len(found) == len(pictures):
            return found
    return found or list(_fill(pictures, *LEVELS[-1], most_bytes))


def _exceeds(
    pictures: Sequence[CasePicture], longest_px: int, quality: int, most_bytes: int
) -> bool:
    """Some of them tell that all would need far more."""
    sample = pictures[:: max(1, len(pictures) // 8)]
    size = sum(_size(_encode(picture, longest_px, quality)) for picture in sample)
    return size * len(pictures) > 1.2 * most_bytes * len(sample)


def _fill(
    pictures: Sequence[CasePicture], longest_px: int, quality: int, most_bytes: int
) -> Iterator[dict[str, Any]]:
    for picture in pictures:
        encoded = _encode(picture, longest_px, quality)
        most_bytes -= _size(encoded)
        if most_bytes < 0:
            return
        yield encoded


def _encode(picture: CasePicture, longest_px: int, quality: int) -> dict[str, Any]:
    return encode_picture(reduce_picture(picture, longest_px), quality)


def _size(encoded: Mapping[str, Any]) -> int:
    return len(json.dumps(encoded))


def draw_still(picture: CasePicture) -> str:
    """All classes at once."""
    small = reduce_picture(picture, 320)
    predicted = np.zeros_like(small.truth)
    for own in small.classes:
        predicted[own.percent >= own.threshold] = own.region.classes[0]
    image = np.moveaxis(small.image, -1, 0)
    return as_data(outline(image, small.truth, predicted), kind="webp")


MAX_DOTS = 4000
"""Of more cases, evenly spread ones are drawn."""


def plot_data(
    scores: Sequence[CaseScore],
    summary: Summary,
    epochs: Sequence[Mapping[str, str]],
    gallery: Gallery,
) -> dict[str, Any]:
    """Cases are named by their place in `cases`, classes by theirs in `classes`."""
    ids = list(dict.fromkeys(score.case for score in scores))
    group_of = {score.case: score.group for score in scores}
    picture_of = {picture["case"]: place for place, picture in enumerate(gallery.pictures)}
    return {
        "colors": {
            "truth": as_css(TRUTH_COLOR),
            "prediction": as_css(PREDICTION_COLOR),
            "hit": as_css(HIT_COLOR),
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
    """Loss and Dice by epoch; None for what is no number."""
    return [
        {
            "epoch": _finite(row.get("epoch")),
            "loss": _finite(row.get("loss")),
            "dice": _finite(row.get("validation_dice")),
        }
        for row in epochs
    ]


def as_css(color: tuple[int, int, int]) -> str:
    return f"rgb({color[0]}, {color[1]}, {color[2]})"


def _class_data(own: ClassSummary) -> dict[str, Any]:
    interval, reliability = own.interval, own.reliability
    return {
        "name": own.name,
        "mean": own.mean_dice,
        "interval": [interval.low, interval.high] if interval is not None else None,
        "reliability": [
            {
                "probability": point.mean_probability,
                "share": point.truth_share,
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
        }
        for score in shown
    ]


def _finite(text: str | None) -> float | None:
    """A number that JSON has."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
