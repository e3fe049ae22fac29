"""Scores, epochs and pictures -> what the page's plots are drawn from, as JSON takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ushape.evaluation.figures import HIT_COLOUR, PREDICTION_COLOUR, TRUTH_COLOUR
from ushape.evaluation.gallery import Gallery
from ushape.evaluation.score import CaseScore
from ushape.evaluation.summary import ClassSummary, Summary

MOST_DOTS = 4000
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
        "colours": {
            "truth": as_css(TRUTH_COLOUR),
            "prediction": as_css(PREDICTION_COLOUR),
            "hit": as_css(HIT_COLOUR),
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


def as_css(colour: tuple[int, int, int]) -> str:
    return f"rgb({colour[0]}, {colour[1]}, {colour[2]})"


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
    shown = scores[:: max(1, math.ceil(len(scores) / MOST_DOTS))]
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
