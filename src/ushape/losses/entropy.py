"""Losses that judge each pixel by itself."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ushape.labels import LabelSpace


class CrossEntropyLoss(nn.Module):
    """Weighted mean of the cross-entropy over all pixels that count.

    The sum is divided by the number of pixels with a weight above 0, not by the weights: a
    border weight map has an effect.

    Args:
        space: Label space; decides sigmoid or softmax.

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
        logits = logits.float() if logits.element_size() < 4 else logits
        if self.space.is_binary:
            entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            entropy = -(target * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)
        counted = (weight > 0).sum().clamp(min=1)
        return (weight * entropy).sum() / counted
