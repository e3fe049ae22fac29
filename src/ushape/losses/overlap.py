"""Losses that compare areas: soft Dice, Jaccard and Tversky."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ushape.labels import LabelSpace


@dataclass(frozen=True)
class Areas:
    """Pixels of each foreground class, (K',) over the batch or (B, K') image by image."""

    both: Tensor
    truth: Tensor
    guess: Tensor


def measure_areas(
    space: LabelSpace, logits: Tensor, target: Tensor, weight: Tensor, *, per_image: bool
) -> Areas:
    """Soft areas. A pixel counts or is ignored: a border weight map is for the cross-entropy.

    Shapes:
        logits, target: (B, K, *S); weight: (B, 1, *S), 0 ignores the pixel.
    """
    full = logits.float() if logits.element_size() < 4 else logits  # Half loses single pixels.
    counted = (weight > 0).to(full.dtype)
    guess = space.probabilities(full)[:, space.foreground] * counted
    truth = target[:, space.foreground] * counted
    axes = [*([] if per_image else [0]), *range(2, logits.ndim)]
    return Areas(both=(guess * truth).sum(axes), truth=truth.sum(axes), guess=guess.sum(axes))


class OverlapLoss(nn.Module):
    """One minus a soft overlap, averaged over foreground classes (and images).

    Args:
        space: Label space; decides sigmoid or softmax, and what is foreground.
        smooth: Pixels added above and below; a class absent from truth and prediction then
            costs nothing. With 0 it costs 1, and has no gradient.
        per_image: Each image by itself; otherwise pixels are pooled over the batch first, so that
            an image without foreground cannot swing the loss by itself.

    Shapes:
        logits: (B, K, *S), raw scores.
        target: (B, K, *S), 0 to 1.
        weight: (B, 1, *S); 0 ignores the pixel, all else counts alike.
        returns: scalar in [0, 1].
    """

    def __init__(self, space: LabelSpace, smooth: float = 1.0, *, per_image: bool = False):
        super().__init__()
        self.space, self.smooth, self.per_image = space, smooth, per_image

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        areas = measure_areas(self.space, logits, target, weight, per_image=self.per_image)
        above, below = self.fraction(areas)
        # Without smoothing, 0 / 0 must not become a NaN.
        tiny = torch.finfo(below.dtype).tiny
        return 1 - ((above + self.smooth) / (below + self.smooth).clamp(min=tiny)).mean()

    def fraction(self, areas: Areas) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of the overlap, without smoothing."""
        raise NotImplementedError


class DiceLoss(OverlapLoss):
    """2 |A B| / (|A| + |B|).

    Source:
        Milletari et al. 2016 (V-Net), arXiv 1606.04797; without their squares.
    """

    def fraction(self, areas: Areas) -> tuple[Tensor, Tensor]:
        return 2 * areas.both, areas.truth + areas.guess


class JaccardLoss(OverlapLoss):
    """|A B| / |A or B|, intersection over union.

    Source:
        Rahman and Wang 2016, 10.1007/978-3-319-50835-1_22.
    """

    def fraction(self, areas: Areas) -> tuple[Tensor, Tensor]:
        return areas.both, areas.truth + areas.guess - areas.both


class TverskyLoss(OverlapLoss):
    """|A B| / (|A B| + alpha |false alarms| + beta |missed|); both 0.5 is Dice.

    Args:
        alpha: Cost of a pixel found by mistake.
        beta: Cost of a pixel missed.

    Source:
        Salehi et al. 2017, arXiv 1706.05721.
    """

    def __init__(
        self,
        space: LabelSpace,
        smooth: float = 1.0,
        *,
        per_image: bool = False,
        alpha: float = 0.3,
        beta: float = 0.7,
    ):
        super().__init__(space, smooth, per_image=per_image)
        self.alpha, self.beta = alpha, beta

    def fraction(self, areas: Areas) -> tuple[Tensor, Tensor]:
        false_alarm, missed = areas.guess - areas.both, areas.truth - areas.both
        return areas.both, areas.both + self.alpha * false_alarm + self.beta * missed
