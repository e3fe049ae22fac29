"""Losses composed of other losses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class WeightedSum(nn.Module):
    """Weighted sum of losses.

    Args:
        terms: Pairs of a factor and a loss.
    """

    def __init__(self, *terms: tuple[float, nn.Module]):
        super().__init__()
        self.factors = [factor for factor, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        parts = zip(self.factors, self.losses, strict=True)
        return sum(
            (factor * loss(logits, target, weight) for factor, loss in parts), logits.new_zeros(())
        )


class DeepSupervision(nn.Module):
    """Apply a loss to every head of a network; each coarser head has half the weight of the finer.

    Args:
        loss: Loss of one head: (logits, target, weight) -> scalar.

    Shapes:
        logits: one (B, K, *S), or a list of them, fine to coarse.
        target, weight: size of the finest head; coarser heads use nearest-neighbor samples.

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
            size = head.shape[2:]
            head_target, head_weight = (
                value if value.shape[2:] == size else functional.interpolate(value, size=size)
                for value in (target, weight)
            )
            total = total + share / sum(shares) * self.loss(head, head_target, head_weight)
        return total
