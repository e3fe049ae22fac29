"""Uncertainty of predictions: maps of pixels, confidence of an image, and the expected Dice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from ushape.errors import ConfigError, DataError
from ushape.inference.decision_rule import as_fractions
from ushape.labels import LabelSpace

MIN_CALIBRATION_CASES = 3
"""Smallest number of cases for a calibration or a rank correlation."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean of the members of an ensemble and their differences, on the grid of the image."""

    probabilities: np.ndarray
    """(K, *S), mean over members: the prediction of the ensemble."""

    disagreement: np.ndarray
    """(*S), mutual information of prediction and member, 0 to 1: the entropy of the mean minus the
    mean entropy, high where members are certain of different classes."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Map from confidence to expected Dice, fitted on validation cases."""

    confidence: tuple[float, ...]
    """Increasing values; the Dice is interpolated between them and constant outside."""

    dice: tuple[float, ...]
    """Expected Dice at each confidence, never decreasing."""

    cases: int
    rank_correlation: float | None
    """Spearman's correlation of confidence and Dice on the cases it was fitted on."""

    def __post_init__(self) -> None:
        if not 0 < len(self.confidence) == len(self.dice):
            raise ConfigError(
                f"The calibration has {len(self.confidence)} confidences and {len(self.dice)} "
                "values of Dice.",
                code="invalid_calibration",
                hint="Train again, or delete the calibration from the run.",
            )


def entropy_map(probabilities: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Return the entropy of each pixel as a share of the largest possible one.

    It is 0 where one class is certain and 1 where all are equally likely. For regions, the mean of
    their binary entropies.

    Shapes:
        probabilities: (K, *S).
        returns: (*S) float32, 0 to 1.
    """
    shares = np.clip(as_fractions(probabilities), 0, 1)
    if space.is_exclusive:
        entropy = entr(shares).sum(axis=0) / math.log(space.channels)
    else:
        entropy = (entr(shares) + entr(1 - shares)).mean(axis=0) / math.log(2)
    return np.clip(entropy, 0, 1).astype(np.float32)


def spread_over(members: Iterable[np.ndarray], space: LabelSpace) -> Spread:
    """Return mean and disagreement of several predictions, with one of them in memory at a time.

    Shapes:
        members: (K, *S) probabilities each, or all outputs of the network.

    Raises:
        DataError: if there is no member, or members differ in shape.

    Source:
        Depeweg et al. 2018 (arXiv 1710.07283): entropy of the mean minus mean of the entropies;
        members as in Lakshminarayanan et al. 2017 (arXiv 1612.01474).
    """
    count, mean, within = 0, np.zeros(0), np.zeros(0)
    for count, member in enumerate(members, 1):
        shares = as_fractions(member)
        own, _ = space.split_outputs(shares)
        if count == 1:
            mean = np.zeros_like(shares)
            within = np.zeros(shares.shape[1:], dtype=np.float32)
        elif shares.shape != mean.shape:
            raise DataError(
                f"The probabilities of member {count} have the shape {shares.shape}, but those "
                f"of the first one {mean.shape}.",
                code="probability_shape_mismatch",
                hint="All members must predict the same image with the same classes.",
            )
        mean += (shares - mean) / count
        within += entropy_map(own, space)
    if not count:
        raise DataError(
            "There is no prediction to compare.",
            code="no_predictions",
            hint="Specify the runs or folds to compare.",
        )
    return Spread(
        probabilities=mean,
        disagreement=(entropy_map(mean[: space.channels], space) - within / count).clip(0, 1),
    )


def confidence_of(
    probabilities: np.ndarray, classes: np.ndarray, space: LabelSpace, *, smooth: float = 1.0
) -> float:
    """Return the soft Dice of a prediction with itself, which ranks images by the expected Dice.

    For each class it is 2 sum(p m) / (sum(p) + sum(m)) with its predicted mask m, close to the mean
    Dice if each pixel were drawn with its probability. It is averaged over the predicted classes;
    if none is predicted, over all: near 1 if every probability is low, near 0 if some are almost
    at the threshold.

    Args:
        smooth: Pixels added to numerator and denominator, as in the Dice loss.

    Shapes:
        probabilities: (K, *S).
        classes: (*S) class indices, decided from them.

    Returns:
        0 to 1. It is too high for an overconfident network; `Calibration` maps it to a Dice.

    Source:
        Borges, Pacheco, Silva 2024 (Soft Dice Confidence), arXiv 2402.10665; for one class and
        without smoothing.
    """
    found: list[float] = []
    absent: list[float] = []
    channels = probabilities[space.foreground]
    for region, channel in zip(space.scored, channels, strict=True):
        share, mask = as_fractions(channel), region.of(classes)
        overlap = float(share[mask].sum(dtype=np.float64))
        size = float(share.sum(dtype=np.float64)) + int(mask.sum())
        value = (2 * overlap + smooth) / (size + smooth)
        (found if mask.any() else absent).append(value)
    return min(1.0, float(np.mean(found or absent)))


def fit_calibration(
    confidence: Sequence[float], dice: Sequence[float | None]
) -> Calibration | None:
    """Fit the non-decreasing map from confidence to Dice that is nearest to the cases.

    Args:
        confidence: Confidence of each validation case.
        dice: Its true Dice; 0 for a miss, None for a case without objects, which is left out.

    Returns:
        The calibration; None for fewer than 3 cases.

    Source:
        Isotonic regression (Zadrozny, Elkan 2002), linear between the centers of its steps.
    """
    x, y = _pairs(confidence, dice)
    if len(x) < MIN_CALIBRATION_CASES:
        return None
    # Imported here: SciPy's optimizers slow down the start of predictions, which do not use them.
    from scipy.optimize import isotonic_regression

    places, slot, counts = np.unique(x, return_inverse=True, return_counts=True)
    fit = isotonic_regression(np.bincount(slot, weights=y) / counts, weights=counts)
    steps = [slice(a, b) for a, b in zip(fit.blocks, fit.blocks[1:], strict=False)]
    return Calibration(
        confidence=tuple(float(np.average(places[s], weights=counts[s])) for s in steps),
        dice=tuple(float(fit.x[s][0]) for s in steps),
        cases=len(x),
        rank_correlation=rank_correlation(confidence, dice),
    )


def expected_dice(confidence: float, calibration: Calibration) -> float:
    """Return the Dice, 0 to 1, of validation cases of this confidence with an object."""
    return float(np.interp(confidence, calibration.confidence, calibration.dice))


def rank_correlation(confidence: Sequence[float], dice: Sequence[float | None]) -> float | None:
    """Return Spearman's rank correlation, -1 to 1; cases without a Dice are left out.

    Returns:
        The correlation; None for fewer than 3 cases, or if one of the two is constant.
    """
    x, y = _pairs(confidence, dice)
    if len(x) < MIN_CALIBRATION_CASES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    # Imported here: SciPy's statistics slow down the start of predictions.
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


def _pairs(
    confidence: Sequence[float], dice: Sequence[float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays, without the cases that have no Dice."""
    pairs = [(x, y) for x, y in zip(confidence, dice, strict=True) if y is not None]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return x, y
