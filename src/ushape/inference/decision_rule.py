"""Probabilities -> classes: thresholds and cleaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ushape.errors import ConfigError, DataError
from ushape.labels import LabelSpace
from ushape.transforms.morphology import Cleaning, clean_classes


@dataclass(frozen=True, kw_only=True)
class ClassRule:
    """How one class or region is decided."""

    threshold: float = 0.5
    """Probability from which a pixel is of the class, 0 < value < 1. Where one of several
    classes is right (softmax), the odds p / (1 - p) at which it would win against one other:
    each class's probability is multiplied by (1 - threshold) / threshold, and the largest wins."""

    cleaning: Cleaning = field(default_factory=Cleaning)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(
                f"threshold is {self.threshold}, not between 0 and 1.", hint="0.5 is usual."
            )


@dataclass(frozen=True, kw_only=True)
class DecisionRule:
    """How probabilities become classes; by default the likeliest class, as LabelSpace.decode."""

    classes: dict[str, ClassRule] = field(default_factory=dict)
    """By name of class or region; those not named have the default."""

    def of(self, name: str) -> ClassRule:
        return self.classes.get(name, ClassRule())

    def without_cleaning(self) -> DecisionRule:
        """The thresholds alone, which need no whole image."""
        bare = {name: replace(own, cleaning=Cleaning()) for name, own in self.classes.items()}
        return DecisionRule(classes=bare)

    @property
    def cleans(self) -> bool:
        """Some class is cleaned, for which the whole image must be seen."""
        return any(not own.cleaning.is_idle for own in self.classes.values())

    def for_space(self, space: LabelSpace) -> tuple[ClassRule, ...]:
        """One for each of `space.scored`.

        Raises:
            ConfigError: a name that the space does not have.
        """
        known = [region.name for region in space.scored]
        if strange := [name for name in self.classes if name not in known]:
            raise ConfigError(
                f"The decision rule names {strange[0]}, which is no foreground class.",
                hint=f"Known: {', '.join(known)}.",
            )
        return tuple(self.of(name) for name in known)


def apply_rule(rule: DecisionRule, probabilities: np.ndarray, space: LabelSpace) -> np.ndarray:
    """The class of each pixel.

    Shapes:
        probabilities: (K, *S), floats, or uint8 for 0 to 255.
        returns: (*S) uint8 class indices.

    Raises:
        ConfigError: the rule names an unknown class.
        DataError: another number of channels than the space has.
    """
    own = rule.for_space(space)
    if len(probabilities) != space.channels:
        raise DataError(
            f"{len(probabilities)} channels of probabilities for {space.channels}: "
            f"{', '.join(space.channel_names)}.",
            hint="Rule and probabilities must come from runs with the same classes.",
        )
    thresholds = [one.threshold for one in own]
    decide = _largest_odds if space.is_exclusive else _paint
    classes = decide(as_fractions(probabilities), thresholds, space)
    return clean_classes(classes, space.scored, [one.cleaning for one in own])


def _largest_odds(
    probabilities: np.ndarray, thresholds: Sequence[float], space: LabelSpace
) -> np.ndarray:
    """Of classes of which one is right; background counts at 0.5, of equals the first wins."""
    best = probabilities[0].copy()
    classes = np.zeros(best.shape, dtype=np.uint8)
    for index, threshold in enumerate(thresholds, 1):
        odds = probabilities[index] * ((1 - threshold) / threshold)
        classes[odds > best] = index
        np.maximum(best, odds, out=best)
    return classes


def _paint(probabilities: np.ndarray, thresholds: Sequence[float], space: LabelSpace) -> np.ndarray:
    """One foreground, or regions: each that reaches its threshold over those before it."""
    classes = np.zeros(probabilities.shape[1:], dtype=np.uint8)
    for region, probability, threshold in zip(space.scored, probabilities, thresholds, strict=True):
        classes[probability >= threshold] = region.classes[0]
    return classes


def as_fractions(probabilities: np.ndarray) -> np.ndarray:
    """Stored probabilities as float32 (float64 stays) from 0 to 1; uint8 means 0 to 255."""
    if probabilities.dtype == np.uint8:
        return probabilities.astype(np.float32) / 255
    return probabilities.astype(np.result_type(probabilities.dtype, np.float32), copy=False)
