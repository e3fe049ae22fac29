"""Muon for the kernels of hidden convolutions, with AdamW for all other parameters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

MIN_CHANNELS = 8
"""Number of input and of output channels below which a kernel is left to AdamW."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration."""

ITERATIONS = 5


def hidden_kernels(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return the kernels of the hidden convolutions, which are larger than one pixel.

    The first kernel of the network, 1 x 1 convolutions such as the head, and kernels of few
    channels are left out.

    Args:
        parameters: All parameters of the network, in its order.
    """
    kernels = [one for one in parameters if one.ndim > 2]
    return [
        one for one in kernels[1:] if one[0, 0].numel() > 1 and min(one.shape[:2]) >= MIN_CHANNELS
    ]


class Muon(torch.optim.AdamW):
    """Muon for hidden convolutions, AdamW for the other parameters, with one learning rate.

    The momentum of each kernel, as a matrix (out, in * pixels), is replaced by a matrix of nearly
    orthonormal rows or columns, scaled so that its root mean square is that of an update of AdamW.
    The learning rate and the weight decay are therefore those of AdamW.

    Args:
        parameters: All parameters of the network, in its order.
        dtype: Number format of the orthogonalization; None: that of the parameters.

    Source:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, with the scale of Liu et
        al. 2025, arXiv 2502.16982. As `torch.optim.Muon`, which accepts only matrices.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float,
        weight_decay: float,
        fused: bool,
        dtype: torch.dtype | None = None,
    ):
        hidden = {id(one) for one in hidden_kernels(parameters)}
        groups: list[dict[str, Any]] = [
            {"params": [one for one in parameters if id(one) not in hidden], "momentum": None},
            {"params": [one for one in parameters if id(one) in hidden], "momentum": momentum},
        ]
        filled = [group for group in groups if group["params"]]
        super().__init__(filled, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)
        self.dtype = dtype

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters; the closure computes loss and gradients."""
        groups = self.param_groups
        # AdamW computes the gradients and updates its own group.
        self.param_groups = [group for group in groups if group["momentum"] is None]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["momentum"] is not None:
                self._update_kernels(group)
        return loss

    def _update_kernels(self, group: dict[str, Any]) -> None:
        updates = defaultdict[tuple[int, ...], list[tuple[Tensor, Tensor]]](list)
        for kernel in group["params"]:
            if kernel.grad is not None:
                update = self._follow(kernel, group["momentum"]).flatten(1)
                updates[tuple(update.shape)].append((kernel, update))
        for (rows, columns), pairs in updates.items():
            kernels, matrices = zip(*pairs, strict=True)
            stack = orthogonalize(torch.stack(matrices).to(self.dtype))
            scale = 0.2 * math.sqrt(max(rows, columns))
            for kernel, matrix in zip(kernels, stack, strict=True):
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.add_(matrix.view(kernel.shape), alpha=-group["lr"] * scale)

    def _follow(self, kernel: Tensor, momentum: float) -> Tensor:
        """Return the gradient with Nesterov momentum, and update the state."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if not state:
            state["step"] = torch.zeros(())  # AdamW expects it in each state that it restores.
            state["momentum_buffer"] = torch.zeros_like(kernel.grad)
        state["step"] += 1
        velocity: Tensor = state["momentum_buffer"]
        velocity.lerp_(kernel.grad, 1 - momentum)
        return kernel.grad.lerp(velocity, momentum)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices of the same singular vectors whose singular values are near 1.

    Shapes:
        matrices: (B, rows, columns); returns the same. Zeros stay zeros.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
