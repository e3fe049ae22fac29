"""Losses: loss(logits, target, weight) -> scalar. A new one is a class and a line in LOSSES."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from ushape.errors import ConfigError
from ushape.labels import LabelSpace
from ushape.losses.compose import DeepSupervision, WeightedSum
from ushape.losses.entropy import CrossEntropyLoss
from ushape.losses.overlap import DiceLoss

LOSSES: dict[str, Callable[[LabelSpace], nn.Module]] = {
    "cross_entropy": CrossEntropyLoss,
    "dice": DiceLoss,
}


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training makes small."""

    terms: dict[str, float] = field(default_factory=lambda: {"cross_entropy": 1.0, "dice": 1.0})
    """Factor of each loss in the sum, at least 0."""

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
        if not any(factor > 0 for factor in self.terms.values()):
            raise ConfigError(
                "loss.terms leaves nothing to make small.", hint="Give one loss a factor above 0."
            )


def build_loss(config: LossConfig, space: LabelSpace, *, deep_supervision: bool) -> nn.Module:
    """The weighted sum, on every head where the network has several."""
    terms = [(factor, LOSSES[name](space)) for name, factor in config.terms.items() if factor]
    loss = WeightedSum(*terms)
    return DeepSupervision(loss) if deep_supervision else loss
