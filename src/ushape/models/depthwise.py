"""Depthwise convolution whose gradients are fast on a CPU."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PIECE = 3
"""Side of the pieces of a 5 x 5 kernel."""


def depthwise_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """Convolve each channel with its own kernel.

    The gradients are those of the built-in operation. On a CPU, in PyTorch 2.13, two of these take
    20 to 100 times as long as the convolution: that of a 5 x 5 kernel, and in bf16 that of the
    input of a strided convolution. They are computed in another way.

    Shapes:
        x: (B, C, H, W); weight: (C, 1, k, k), k is odd; bias: (C,), or None.
        returns: (B, C, (H + 2 padding - k) // stride + 1, (W + 2 padding - k) // stride + 1).
    """
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if x.device.type != "cpu" or not needs_gradient:
        return functional.conv2d(x, weight, bias, stride, padding, groups=len(weight))
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    result: Tensor = _Depthwise.apply(x, weight, bias, stride, padding)
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0]
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _gradient_of_input(gradient, x, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_kernel(gradient, x, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_x, of_weight, of_bias, None, None


def _gradient_of_input(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    dtype = x.dtype if stride == 1 else torch.promote_types(x.dtype, torch.float32)
    of_x = (True, False, False)
    return _built_in(gradient.to(dtype), x.to(dtype), weight.to(dtype), stride, padding, of_x)[
        0
    ].to(x.dtype)


def _gradient_of_kernel(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """Compute the gradient of a 5 x 5 kernel as that of four overlapping 3 x 3 kernels."""
    side, wanted = weight.shape[-1], (False, True, False)
    if side == PIECE:
        return _built_in(gradient, x, weight, stride, padding, wanted)[1]
    layout = torch.channels_last
    gradient = gradient.contiguous(memory_format=layout)
    padded = functional.pad(x.contiguous(memory_format=layout), [padding] * 4)
    height, width = (stride * (size - 1) + PIECE for size in gradient.shape[2:])
    result = torch.empty_like(weight)
    starts = range(0, side - PIECE + 1, PIECE - 1)
    for row, column in itertools.product(starts, starts):
        part = padded[:, :, row : row + height, column : column + width]
        piece = (..., slice(row, row + PIECE), slice(column, column + PIECE))
        own = (gradient, part.contiguous(memory_format=layout), weight[piece].contiguous())
        result[piece] = _built_in(*own, stride, 0, wanted)[1]
    return result


def _built_in(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the requested gradients of the input, the kernel and the bias."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        [stride] * 2,
        [padding] * 2,
        [1, 1],
        False,
        [0, 0],
        len(weight),
        wanted,
    )
    return found
