"""Losses: loss(logits, target, weight) -> scalar. A new one is a class and a line in LOSSES.

A loss with its own parameters also needs a field in `LossConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from ushape.config import is_custom, missing_code
from ushape.errors import ConfigError
from ushape.labels import LabelSpace
from ushape.losses.entropy import CrossEntropyLoss, FocalLoss
from ushape.losses.overlap import DiceLoss, JaccardLoss, TverskyLoss

LossBuilder = Callable[..., nn.Module]
"""Builds a loss: (label space, config) -> module."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Loss that training minimizes."""

    terms: dict[str | LossBuilder, float] = field(
        default_factory=lambda: {"cross_entropy": 1.0, "dice": 1.0}
    )
    """Losses that are summed, each with its factor (at least 0): cross_entropy, focal, dice,
    dice_per_image, jaccard, tversky. A recipe in a Python file can also use a custom class,
    function or module as a key."""

    smooth: float = 1.0
    """Pixels added to numerator and denominator of dice, jaccard and tversky."""

    focal_gamma: float = 2.0
    """Exponent of the focal loss; larger values give well-classified pixels less weight."""

    tversky_alpha: float = 0.3
    """Cost of a false positive pixel in the Tversky loss."""

    tversky_beta: float = 0.7
    """Cost of a false negative pixel in the Tversky loss."""

    def __post_init__(self) -> None:
        for name, factor in self.terms.items():
            if isinstance(name, str) and name not in LOSSES and not is_custom(name):
                raise ConfigError(
                    f"loss.terms contains {name}, which is not a known loss.",
                    code="unknown_loss",
                    hint=f"Known losses: {', '.join(LOSSES)}.",
                )
            if not 0 <= factor < math.inf:
                raise ConfigError(
                    f"loss.terms gives {name} the factor {factor}.",
                    code="value_out_of_range",
                    hint="Use a factor of at least 0; a negative factor would maximize the loss.",
                )
        for name in ("smooth", "focal_gamma", "tversky_alpha", "tversky_beta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"loss.{name} is {getattr(self, name)}.",
                    code="value_out_of_range",
                    hint="Use a number of at least 0.",
                )
        if self.terms.get("tversky") and self.tversky_alpha == self.tversky_beta == 0:
            raise ConfigError(
                "loss.tversky_alpha and loss.tversky_beta are both 0, so errors have no cost.",
                code="settings_conflict",
                hint="Use 0.5 for both (Dice), or 0.3 and 0.7 to give false negatives more weight.",
            )
        if not any(factor > 0 for factor in self.terms.values()):
            raise ConfigError(
                "loss.terms has no loss with a factor above 0.",
                code="value_out_of_range",
                hint="Give at least one loss a factor above 0.",
            )


LOSSES: dict[str, LossBuilder] = {
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
    """Build the weighted sum of the losses, for all heads if the network has several.

    Raises:
        ConfigError: if a loss comes from a Python file that is not loaded.
    """
    terms = []
    for name, factor in config.terms.items():
        assert isinstance(name, str), "load_recipe replaces the objects of a recipe by names"
        if name not in LOSSES:
            raise missing_code("loss.terms", name)
        if factor:
            terms.append((factor, LOSSES[name](space, config)))
    loss: nn.Module = WeightedSum(*terms)
    if space.has_distance:
        loss = WithDistance(loss, space)
    return DeepSupervision(loss) if deep_supervision else loss


class WeightedSum(nn.Module):
    """Weighted sum of losses, passed as pairs of a factor and a loss."""

    def __init__(self, *terms: tuple[float, nn.Module]):
        super().__init__()
        self.factors = [factor for factor, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        full = logits.float() if logits.element_size() < 4 else logits  # Once for all losses.
        parts = zip(self.factors, self.losses, strict=True)
        return sum(
            (factor * loss(full, target, weight) for factor, loss in parts), full.new_zeros(())
        )


DISTANCE_FACTOR = 4.0
"""Factor of the loss of the distance; 1 separates objects worse (benchmarks/objects.md)."""


class WithDistance(nn.Module):
    """Add the cross-entropy of the distance to the border of the object to a loss of the classes.

    Args:
        loss: Loss of the K class channels: (logits, target, weight) -> scalar.

    Shapes:
        logits, target: (B, K + 1, *S), the distance last, 0 to 1 in the target.
        weight: (B, 1, *S); 0 ignores the pixel, other values have no effect on the distance.
    """

    def __init__(self, loss: nn.Module, space: LabelSpace):
        super().__init__()
        self.loss, self.channels = loss, space.channels

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        own: Tensor = self.loss(logits[:, : self.channels], target[:, : self.channels], weight)
        distance = logits[:, self.channels :].float()
        entropy = functional.binary_cross_entropy_with_logits(
            distance, target[:, self.channels :], reduction="none"
        )
        valid = (weight > 0).float()
        return own + DISTANCE_FACTOR * (valid * entropy).sum() / valid.sum().clamp(min=1)


class DeepSupervision(nn.Module):
    """Apply a loss to every head of a network; each coarser head has half the weight of the finer.

    Args:
        loss: Loss of one head: (logits, target, weight) -> scalar.

    Shapes:
        logits: one (B, K, *S), or a list of them, fine to coarse.
        target, weight: size of the finest head; coarser heads use means over blocks.

    Source:
        nnU-Net (Isensee et al. 2021), 10.1038/s41592-020-01008-z.
    """

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor, weight: Tensor) -> Tensor:
        heads = [logits] if isinstance(logits, Tensor) else list(logits)
        shares = [0.5**level for level in range(len(heads))]
        total = heads[0].new_zeros(())
        for share, head in zip(shares, heads, strict=True):
            own = shrink_target(target, weight, head.shape[2:])
            total = total + share / sum(shares) * self.loss(head, *own)
        return total


def shrink_target(target: Tensor, weight: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the means of target and weight over the block of each coarser pixel.

    A single pixel of each block would lie off its center, by half a block for the first one.
    Ignored pixels are excluded from the mean of the target.

    Shapes:
        target: (B, K, *S) -> (B, K, *size); weight: (B, 1, *S) -> (B, 1, *size).
    """
    if tuple(target.shape[2:]) == tuple(size):
        return target, weight
    valid = (weight > 0).to(target.dtype)
    means, share, small_weight = (
        functional.interpolate(value, size=tuple(size), mode="area")
        for value in (target * valid, valid, weight)
    )
    return means / share.clamp(min=torch.finfo(share.dtype).tiny), small_weight
