"""Which image to annotate next: one that stands for many of which the model is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

from ushape.inference.predictor import Predictor
from ushape.inference.uncertainty import entropy_map
from ushape.types import Prediction

COMPARED_PX = 128
"""Longest side of the image whose intensities are compared with those of other images."""

PERCENTILES = (2, 10, 25, 50, 75, 90, 98)

SCALES_PX = (0.0, 1.5, 4.0)
"""Standard deviations of the Gaussians after which differences of neighbors are measured."""

MAX_ORDERED = 50
"""Number of suggestions each of which counts as annotated for the next one."""

MIN_UNCERTAINTY = 0.02
"""Uncertainty that every image counts with, since a model can be certain and wrong."""


@dataclass(frozen=True, kw_only=True)
class ImageSummary:
    """What the suggestion of the next image knows about an image."""

    id: str
    features: np.ndarray
    """(D,) float32: appearance of the image, comparable within a project."""

    uncertainty: float
    """Expected 1 - Dice of the prediction, 0 to 1; 1 without a prediction."""

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
    space = predictor.plan.preprocessing.space
    dice = predictor.expected_dice(prediction)
    entropy = entropy_map(prediction.probabilities, space)
    shares = [float(region.of(prediction.classes).mean()) for region in space.scored]
    content = [*np.log(1e-3 + np.array(shares)), np.log(1e-3 + float(entropy.mean()))]
    return ImageSummary(
        id=image_id,
        features=np.concatenate([features, np.asarray(content, dtype=np.float32)]),
        uncertainty=1 - (prediction.confidence if dice is None else dice),
        expected_dice=dice,
    )


def suggest(
    candidates: Sequence[ImageSummary], annotated: Sequence[ImageSummary]
) -> list[Suggestion]:
    """Order images by how much annotating them is expected to help, the most helpful first.

    An image covers another one as far as it is more similar to it than all annotated images are.
    Each next image is the one that covers most, where images count by their uncertainty. Since it
    then counts as annotated, images that are nearly the same do not follow each other.

    Args:
        candidates: Images that may be suggested.
        annotated: Annotated images.

    Source:
        Greedy facility location, as in Wei, Iyer, Bilmes 2015 (Submodularity in Data Subset
        Selection and Active Learning), weighted by the uncertainty.
    """
    if not candidates:
        return []
    points = _standardize([one.features for one in (*candidates, *annotated)])
    own, known = points[: len(candidates)], points[len(candidates) :]
    between = cdist(own, own)
    # Distance to the nearest annotated image; without any, all are equally far.
    left = cdist(own, known).min(axis=1) if len(known) else np.full(len(own), 2 * between.max())
    weights = np.array([MIN_UNCERTAINTY + one.uncertainty for one in candidates])
    usual_distance, usual_weight = float(np.median(left)), float(np.median(weights))
    gains, taken = np.zeros(len(own)), list[int]()
    found: list[Suggestion] = []
    for rank in range(1, len(own) + 1):
        if rank <= MAX_ORDERED:
            # The second term orders images that are all the same.
            gains = np.maximum(0, left[None] - between) @ weights + 1e-6 * weights
        gains[taken] = -1
        place = int(gains.argmax())
        reason = _reason(
            candidates[place],
            is_first=not len(known) and rank == 1,
            is_unsure=weights[place] > usual_weight,
            is_unlike=left[place] > usual_distance,
        )
        found.append(Suggestion(id=candidates[place].id, reason=reason, rank=rank))
        taken.append(place)
        left = np.minimum(left, between[place])
    return found


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
    known = f"an expected Dice of {dice:.2f}" if dice is not None else ""
    known = known or f"a confidence of {1 - one.uncertainty:.2f}"
    if is_unsure and is_unlike:
        return f"The model is unsure here ({known}), and the image is unlike the annotated ones."
    if is_unsure:
        return f"The model is unsure here ({known})."
    if is_unlike:
        return "Unlike the images annotated so far."
    return "Typical of the images that are not annotated yet."
