"""Losses that compare areas."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ushape.labels import LabelSpace


class DiceLoss(nn.Module):
    """One minus the mean soft Dice over foreground classes.

    Pixels are pooled over the whole batch first, so a patch without foreground cannot swing
    the loss by itself.

    Args:
        space: Label space; decides sigmoid or softmax, and what is foreground.
        smooth: Pixels added above and below; a class absent from truth and prediction then
            costs nothing.

    Shapes:
        logits: (B, K, *S), raw scores.
        target: (B, K, *S), 0 to 1.
        weight: (B, 1, *S), at least 0; 0 ignores the pixel.
        returns: scalar in [0, 1].

    Source:
        Milletari et al. 2016 (V-Net), arXiv 1606.04797; without their squares.
    """

    def __init__(self, space: LabelSpace, smooth: float = 1.0):
        super().__init__()
        self.space, self.smooth = space, smooth

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        guess = self.space.probabilities(_full_precision(logits))
        all_but_class = [0, *range(2, logits.ndim)]

        overlap = (weight * guess * target).sum(all_but_class)
        size = (weight * (guess + target)).sum(all_but_class)
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        return 1 - dice[self.space.foreground].mean()


def _full_precision(logits: Tensor) -> Tensor:
    """Sums over a batch lose pixels in half precision."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
