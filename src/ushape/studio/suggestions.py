"""Which image to annotate next: one that is uncertain for the model and typical of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

from ushape.inference.predictor import Predictor
from ushape.inference.uncertainty import confidence_of
from ushape.types import Prediction

COMPARED_PX = 128
"""Longest side of the image whose intensities are compared with those of other images."""

PERCENTILES = (2, 10, 25, 50, 75, 90, 98)

SCALES_PX = (0.0, 1.5, 4.0)
"""Standard deviations of the Gaussians after which differences of neighbors are measured."""

MAX_ORDERED = 50
"""Number of suggestions without predictions that are treated as annotated for the next ones."""

MIN_ANNOTATED = 3
"""Number of annotated images from which the uncertainty is used: with fewer, a model is often
certain that an image contains no objects."""

SMOOTH_SHARE = 0.01
"""Share of the pixels that counts as found when the error is expected. Without it, the error would
be 1 where nothing is predicted, however low the probabilities are."""

TINY = 1e-6
"""Distance assigned to images that are identical to an annotated one."""


@dataclass(frozen=True, kw_only=True)
class ImageSummary:
    """Properties of an image that determine when it is suggested."""

    id: str
    features: np.ndarray
    """(D,) float32: appearance of the image, comparable within a project."""

    uncertainty: float
    """Expected error, 0 to 1: one minus the Dice of the prediction if its probabilities are right;
    1 without a prediction."""

    expected_dice: float | None = None
    """Dice of validation images of this confidence; None without a calibration."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """An image to annotate, and why."""

    id: str
    reason: str
    """A sentence for the user."""

    rank: int
    """Place in the order, from 1."""


def describe_image(image: np.ndarray) -> np.ndarray:
    """Return percentiles of the intensities and of their differences, at several scales.

    Shapes:
        image: (C, *S); of a volume the middle plane is used.
        returns: (D,) float32, D depends on C only.
    """
    plane = image if image.ndim == 3 else image[:, image.shape[1] // 2]
    step = max(1, max(plane.shape[1:]) // COMPARED_PX)
    found = []
    for channel in plane[:, ::step, ::step].astype(np.float32):
        values = np.nan_to_num(channel)
        found.append(np.percentile(values, PERCENTILES))
        for sigma in SCALES_PX:
            smooth = ndimage.gaussian_filter(values, sigma) if sigma else values
            steps = [np.abs(np.diff(smooth, axis=axis)).mean() for axis in (0, 1)]
            found.append(np.log([1e-3 + sum(steps)]))
    return np.concatenate(found).astype(np.float32)


def summarize(
    image_id: str,
    image: np.ndarray,
    predictor: Predictor | None = None,
    prediction: Prediction | None = None,
) -> ImageSummary:
    """Summarize an image, with its prediction if there is one.

    Shapes:
        image: (C, *S), as the file stores it.
    """
    features = describe_image(image)
    if predictor is None or prediction is None:
        return ImageSummary(id=image_id, features=features, uncertainty=1.0)
    return ImageSummary(
        id=image_id,
        features=features,
        uncertainty=1
        - confidence_of(
            prediction.probabilities,
            prediction.classes,
            predictor.plan.preprocessing.space,
            smooth=SMOOTH_SHARE * prediction.classes.size,
        ),
        expected_dice=predictor.expected_dice(prediction),
    )


def suggest(
    candidates: Sequence[ImageSummary], annotated: Sequence[ImageSummary]
) -> list[Suggestion]:
    """Order images by how much annotating them is expected to help, the most helpful first.

    Images are ordered by their expected error times their difference in appearance from the nearest
    annotated image. Differences are limited to their median, so that outliers are not preferred.
    An image that is suggested then counts as annotated, so that images that are nearly the same do
    not follow each other. Without predictions, or with fewer than 3 annotated images, the next
    image is the one that covers most of the others, i.e. that is more similar to them than all
    annotated images.

    Args:
        candidates: Images that may be suggested.
        annotated: Annotated images.

    Source:
        Settles 2009 (Active Learning Literature Survey), uncertainty sampling; Wei, Iyer, Bilmes
        2015 (Submodularity in Data Subset Selection), facility location; Hacohen et al. 2022, arXiv
        2202.02794: with few annotations, typical images help more than uncertain ones. The expected
        error is that of Borges, Pacheco, Silva 2024 (Soft Dice Confidence), arXiv 2402.10665.
    """
    if not candidates:
        return []
    features = _standardize([image.features for image in (*candidates, *annotated)])
    count = len(candidates)
    pairwise = cdist(features[:count], features[:count])
    # Distance to the nearest annotated image; without any, all are equally far.
    distance = (
        cdist(features[:count], features[count:]).min(axis=1)
        if annotated
        else np.full(count, 2 * pairwise.max())
    )
    uncertainty = np.array([image.uncertainty for image in candidates])
    median_distance, median_uncertainty = float(np.median(distance)), float(np.median(uncertainty))
    is_predicted = len(annotated) >= MIN_ANNOTATED and np.ptp(uncertainty) > 0
    gains, suggested = np.zeros(count), list[int]()
    suggestions: list[Suggestion] = []
    for rank in range(1, count + 1):
        if is_predicted:
            gains = uncertainty * (np.minimum(distance, median_distance) + TINY)
        elif rank <= MAX_ORDERED:
            gains = np.maximum(0, distance[None] - pairwise).sum(axis=1)
        gains[suggested] = -1
        best = int(gains.argmax())
        reason = _reason(
            candidates[best],
            is_first=not annotated and rank == 1,
            is_unsure=is_predicted and bool(uncertainty[best] > median_uncertainty),
            is_unlike=bool(distance[best] > median_distance),
        )
        suggestions.append(Suggestion(id=candidates[best].id, reason=reason, rank=rank))
        suggested.append(best)
        distance = np.minimum(distance, pairwise[best])
    return suggestions


def _standardize(features: Sequence[np.ndarray]) -> np.ndarray:
    """Return the features (N, D) with the standard deviation 1; constant ones become 0.

    Images without a prediction have fewer features; only those that all have are compared.
    """
    common = min(map(len, features))
    table = np.stack([own[:common] for own in features]).astype(np.float64)
    spread = table.std(axis=0)
    return (table - table.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf)


def _reason(one: ImageSummary, *, is_first: bool, is_unsure: bool, is_unlike: bool) -> str:
    """Return why an image is suggested, in a sentence."""
    if is_first:
        return "Typical of these images."
    dice = one.expected_dice
    known = f"uncertainty {one.uncertainty:.2f}"
    known += "" if dice is None else f", expected Dice {dice:.2f}"
    if is_unsure and is_unlike:
        return f"The model is unsure about this image ({known}), which differs from annotated ones."
    if is_unsure:
        return f"The model is unsure about this image ({known})."
    if is_unlike:
        return "Differs from the images annotated so far."
    return "Typical of the images that are not annotated yet."
