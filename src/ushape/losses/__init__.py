"""Losses: loss(logits, target, weight) -> scalar. A new one is a class and a line in LOSSES."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from ushape.errors import ConfigError
from ushape.labels import LabelSpace
from ushape.losses.compose import DeepSupervision, WeightedSum
from ushape.losses.entropy import CrossEntropyLoss, FocalLoss
from ushape.losses.overlap import DiceLoss, JaccardLoss, TverskyLoss


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training makes small."""

    terms: dict[str, float] = field(default_factory=lambda: {"cross_entropy": 1.0, "dice": 1.0})
    """Factor of each loss in the sum, at least 0. Losses: cross_entropy, focal, dice,
    dice_per_image, jaccard, tversky."""

    smooth: float = 1.0
    """Pixels added above and below in dice, jaccard and tversky."""

    focal_gamma: float = 2.0
    """How much less well classified pixels count."""

    tversky_alpha: float = 0.3
    """Cost of a pixel found by mistake."""

    tversky_beta: float = 0.7
    """Cost of a pixel missed."""

    def __post_init__(self) -> None:
        for name, factor in self.terms.items():
            if name not in LOSSES:
                raise ConfigError(
                    f"loss.terms names {name}, which is no loss.",
                    hint=f"Known names: {', '.join(LOSSES)}.",
                )
            if not 0 <= factor < math.inf:
                raise ConfigError(
                    f"loss.terms gives {name} the factor {factor}.",
                    hint="At least 0; a loss below 0 would be made large.",
                )
        for name in ("smooth", "focal_gamma", "tversky_alpha", "tversky_beta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"loss.{name} is {getattr(self, name)}.", hint="A number of at least 0."
                )
        if self.terms.get("tversky") and self.tversky_alpha == self.tversky_beta == 0:
            raise ConfigError(
                "loss.tversky_alpha and loss.tversky_beta are both 0: no mistake costs anything.",
                hint="Both 0.5 is Dice; 0.3 and 0.7 count a missed pixel more.",
            )
        if not any(factor > 0 for factor in self.terms.values()):
            raise ConfigError(
                "loss.terms leaves nothing to make small.", hint="Give one loss a factor above 0."
            )


LOSSES: dict[str, Callable[[LabelSpace, LossConfig], nn.Module]] = {
    "cross_entropy": lambda space, config: CrossEntropyLoss(space),
    "focal": lambda space, config: FocalLoss(space, config.focal_gamma),
    "dice": lambda space, config: DiceLoss(space, config.smooth),
    "dice_per_image": lambda space, config: DiceLoss(space, config.smooth, per_image=True),
    "jaccard": lambda space, config: JaccardLoss(space, config.smooth),
    "tversky": lambda space, config: TverskyLoss(
        space, config.smooth, alpha=config.tversky_alpha, beta=config.tversky_beta
    ),
}


def build_loss(config: LossConfig, space: LabelSpace, *, deep_supervision: bool) -> nn.Module:
    """The weighted sum, on every head where the network has several."""
    terms = [
        (factor, LOSSES[name](space, config)) for name, factor in config.terms.items() if factor
    ]
    loss = WeightedSum(*terms)
    return DeepSupervision(loss) if deep_supervision else loss
