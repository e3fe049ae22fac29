"""Losses of single pixels: cross-entropy and focal loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ushape.labels import LabelSpace


class CrossEntropyLoss(nn.Module):
    """Weighted mean of the cross-entropy over all pixels that are not ignored.

    The sum is divided by the number of pixels with a weight above 0, not by the sum of weights, so
    that a border weight map has an effect.

    Args:
        space: Label space; determines sigmoid or softmax.

    Shapes:
        logits: (B, K, *S), raw scores.
        target: (B, K, *S), 0 to 1.
        weight: (B, 1, *S), at least 0; 0 ignores the pixel.
        returns: scalar, at least 0.
    """

    def __init__(self, space: LabelSpace):
        super().__init__()
        self.space = space

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        full = logits.float() if logits.element_size() < 4 else logits
        loss = self.of_pixels(full, target)
        return (weight * loss).sum() / (weight > 0).sum().clamp(min=1)

    def of_pixels(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, K, *S) twice -> (B, 1, *S)."""
        if not self.space.is_exclusive:
            loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            return loss if loss.shape[1] == 1 else loss.mean(dim=1, keepdim=True)
        return -(target * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)


class FocalLoss(CrossEntropyLoss):
    """Cross-entropy times (1 - p)^gamma, which gives well-classified pixels less weight.

    Args:
        gamma: Exponent; 0 gives the cross-entropy, and the paper uses 2.

    Source:
        Lin et al. 2017, arXiv 1708.02002, without the class weights alpha.
    """

    def __init__(self, space: LabelSpace, gamma: float = 2.0):
        super().__init__(space)
        self.gamma = gamma

    def of_pixels(self, logits: Tensor, target: Tensor) -> Tensor:
        if not self.space.is_exclusive:
            # Foreground and background terms, each with its own probability.
            right = target * self._focused(functional.logsigmoid(logits))
            wrong = (1 - target) * self._focused(functional.logsigmoid(-logits))
            return (right + wrong).mean(dim=1, keepdim=True)
        return (target * self._focused(logits.log_softmax(dim=1))).sum(dim=1, keepdim=True)

    def _focused(self, log_probability: Tensor) -> Tensor:
        # For gamma < 1 the power has an infinite slope at 0, which occurs if p is rounded to 1.
        tiny = torch.finfo(log_probability.dtype).tiny
        focus = (-log_probability.expm1()).clamp(min=tiny) ** self.gamma
        return -focus * log_probability
