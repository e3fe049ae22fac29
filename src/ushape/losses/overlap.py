"""Overlap losses: soft Dice, Jaccard and Tversky."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ushape.labels import LabelSpace


@dataclass(frozen=True)
class Areas:
    """Soft pixel counts of each foreground class: (K',) per batch or (B, K') per image."""

    both: Tensor
    truth: Tensor
    predicted: Tensor


def measure_areas(
    space: LabelSpace, logits: Tensor, target: Tensor, weight: Tensor, *, per_image: bool
) -> Areas:
    """Measure soft areas; a weight of 0 ignores the pixel, and other weights have no effect.

    Shapes:
        logits, target: (B, K, *S); weight: (B, 1, *S), 0 ignores the pixel.
    """
    # Sums in half precision lose single pixels.
    full = logits.float() if logits.element_size() < 4 else logits
    valid = (weight > 0).to(full.dtype)
    predicted = space.probabilities(full)[:, space.foreground] * valid
    truth = target[:, space.foreground] * valid
    axes = [*([] if per_image else [0]), *range(2, logits.ndim)]
    return Areas(
        both=(predicted * truth).sum(axes), truth=truth.sum(axes), predicted=predicted.sum(axes)
    )


class OverlapLoss(nn.Module):
    """One minus a soft overlap, averaged over foreground classes (and images).

    With two foreground classes or more, those that are not annotated in the batch (or the image)
    are left out of the mean: a batch of patches contains only a few classes, so the others would
    mostly be suppressed. A single class always counts, which reduces false positives.

    Args:
        space: Label space; determines sigmoid or softmax, and which classes are foreground.
        smooth: Pixels added to numerator and denominator, so that a single class which is absent
            from annotation and prediction costs nothing. With 0 it costs 1 and has no gradient.
        per_image: Compute the overlap of each image separately. Otherwise pixels are pooled over
            the batch first, so that an image without foreground cannot dominate the loss.

    Shapes:
        logits: (B, K, *S), raw scores.
        target: (B, K, *S), 0 to 1.
        weight: (B, 1, *S); 0 ignores the pixel, all other values have the same effect.
        returns: scalar in [0, 1].
    """

    def __init__(self, space: LabelSpace, smooth: float = 1.0, *, per_image: bool = False):
        super().__init__()
        self.space, self.smooth, self.per_image = space, smooth, per_image

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        areas = measure_areas(self.space, logits, target, weight, per_image=self.per_image)
        above, below = self.fraction(areas)
        # Without smoothing, 0 / 0 must not become NaN.
        tiny = torch.finfo(below.dtype).tiny
        losses = 1 - (above + self.smooth) / (below + self.smooth).clamp(min=tiny)
        if len(self.space.scored) == 1:
            return losses.mean()
        is_annotated = areas.truth > 0
        return (losses * is_annotated).sum() / is_annotated.sum().clamp(min=1)

    def fraction(self, areas: Areas) -> tuple[Tensor, Tensor]:
        """Return numerator and denominator of the overlap without smoothing."""
        raise NotImplementedError


class DiceLoss(OverlapLoss):
    """Dice loss: one minus 2 |A B| / (|A| + |B|).

    Source:
        Milletari et al. 2016 (V-Net), arXiv 1606.04797, without the squares in the denominator.
    """

    def fraction(self, areas: Areas) -> tuple[Tensor, Tensor]:
        return 2 * areas.both, areas.truth + areas.predicted


class JaccardLoss(OverlapLoss):
    """Jaccard loss: one minus |A B| / |A or B|, the intersection over union.

    Source:
        Rahman and Wang 2016, 10.1007/978-3-319-50835-1_22.
    """

    def fraction(self, areas: Areas) -> tuple[Tensor, Tensor]:
        return areas.both, areas.truth + areas.predicted - areas.both


class TverskyLoss(OverlapLoss):
    """Tversky loss: one minus TP / (TP + alpha FP + beta FN); 0.5 for both is Dice.

    Args:
        alpha: Cost of a false positive pixel.
        beta: Cost of a false negative pixel.

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
        false_positive, false_negative = areas.predicted - areas.both, areas.truth - areas.both
        below = areas.both + self.alpha * false_positive + self.beta * false_negative
        return areas.both, below
