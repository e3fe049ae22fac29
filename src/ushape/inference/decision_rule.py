"""Decide classes from probabilities with thresholds and cleaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ushape.errors import ConfigError, DataError
from ushape.labels import LabelSpace
from ushape.transforms.morphology import Cleaning, clean_classes


@dataclass(frozen=True, kw_only=True)
class ClassRule:
    """Threshold and cleaning of one class or region."""

    threshold: float = 0.5
    """Probability from which a pixel belongs to the class, 0 < value < 1. If classes exclude each
    other (softmax), each probability is multiplied by (1 - threshold) / threshold, and the largest
    product wins."""

    cleaning: Cleaning = field(default_factory=Cleaning)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(
                f"threshold is {self.threshold}, not between 0 and 1.",
                code="threshold_out_of_range",
                hint="0.5 is the usual value.",
            )


@dataclass(frozen=True, kw_only=True)
class DecisionRule:
    """Rules of all classes; by default the most probable class wins, as in LabelSpace.decode."""

    classes: dict[str, ClassRule] = field(default_factory=dict)
    """Rule by name of class or region; those not named have the default rule."""

    def of(self, name: str) -> ClassRule:
        """Return the rule of a class or region."""
        return self.classes.get(name, ClassRule())

    def without_cleaning(self) -> DecisionRule:
        """Return the thresholds alone, which can be applied to parts of an image."""
        classes = {name: replace(own, cleaning=Cleaning()) for name, own in self.classes.items()}
        return DecisionRule(classes=classes)

    @property
    def cleans(self) -> bool:
        """Whether a class is cleaned, which needs the whole image."""
        return any(not own.cleaning.is_idle for own in self.classes.values())

    def for_space(self, space: LabelSpace) -> tuple[ClassRule, ...]:
        """Return the rule of each of `space.scored`.

        Raises:
            ConfigError: if a rule names a class that the space does not have.
        """
        known = [region.name for region in space.scored]
        if unknown := [name for name in self.classes if name not in known]:
            raise ConfigError(
                f"The decision rule names {unknown[0]}, which is not a foreground class.",
                code="unknown_class",
                hint=f"Known classes: {', '.join(known)}.",
            )
        return tuple(self.of(name) for name in known)


def apply_rule(rule: DecisionRule, probabilities: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Decide the class of each pixel.

    Shapes:
        probabilities: (K, *S), floats, or uint8 for 0 to 255.
        returns: (*S) uint8 class indices.

    Raises:
        ConfigError: if the rule names an unknown class.
        DataError: if the number of channels is not that of the space.
    """
    own = rule.for_space(space)
    if len(probabilities) != space.channels:
        raise DataError(
            f"There are {len(probabilities)} channels of probabilities, but {space.channels} "
            f"classes: {', '.join(space.channel_names)}.",
            code="probability_shape_mismatch",
            hint="Rule and probabilities must come from runs with the same classes.",
        )
    thresholds = [one.threshold for one in own]
    decide = _largest_odds if space.is_exclusive else _apply_thresholds
    classes = decide(as_fractions(probabilities), thresholds, space)
    return clean_classes(classes, space.scored, [one.cleaning for one in own])


def _largest_odds(
    probabilities: np.ndarray, thresholds: Sequence[float], space: LabelSpace
) -> np.ndarray:
    """Decide among classes that exclude each other; of equal ones, the first is chosen."""
    best = probabilities[0].copy()
    classes = np.zeros(best.shape, dtype=np.uint8)
    for index, threshold in enumerate(thresholds, 1):
        odds = probabilities[index] * ((1 - threshold) / threshold)
        classes[odds > best] = index
        np.maximum(best, odds, out=best)
    return classes


def _apply_thresholds(
    probabilities: np.ndarray, thresholds: Sequence[float], space: LabelSpace
) -> np.ndarray:
    """Decide one class, or regions, each of which covers those before it."""
    classes = np.zeros(probabilities.shape[1:], dtype=np.uint8)
    for region, probability, threshold in zip(space.scored, probabilities, thresholds, strict=True):
        classes[probability >= threshold] = region.classes[0]
    return classes


def as_fractions(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities from 0 to 1 as float32 (or float64); uint8 is divided by 255."""
    if probabilities.dtype == np.uint8:
        return probabilities.astype(np.float32) / 255
    return probabilities.astype(np.result_type(probabilities.dtype, np.float32), copy=False)
