"""Sizes and indices in graphs that any image and any device can be used with.

Sizes are symbols in `torch.export` and tensors in a trace. They are combined by arithmetic only,
never compared.

A graph stores the device of each tensor that its modules create, by `torch.arange`, `zeros_like` or
`new_zeros`, and fails on any other. Tensors are therefore computed from the input.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor


def count_up(x: Tensor, count: Any) -> Tensor:
    """Return 0, 1, ..., count - 1 as int64 on the device of x, wherever a graph is run.

    `torch.arange` would store the device of the trace in the graph.

    Args:
        x: At least one value.
        count: An integer, a symbol or a tensor.
    """
    return size_like(x, 1).expand([count]).cumsum(0) - 1


def size_like(x: Tensor, size: Any) -> Tensor:
    """Return a size as an int64 tensor of no dimension on the device of x.

    Args:
        x: At least one value.
        size: An integer, a symbol or a tensor.
    """
    first = x
    for _ in range(x.dim()):
        first = first.select(0, 0)
    return (first >= 0).to(torch.int64) * 0 + size


def divided_size(size: Any, factor: Fraction) -> Any:
    """Return max(1, round(size / factor)), halves rounded to even, without comparisons.

    Args:
        size: An integer, a symbol or a tensor.
    """
    double, divisor = 2 * size * factor.denominator + factor.numerator, 2 * factor.numerator
    rounded = double // divisor
    rest = double % divisor
    is_tie = 1 - (rest + divisor - 1) // divisor
    rounded = rounded - is_tie * (rounded % 2)
    is_zero = 1 - (rounded + (1 << 20) - 1) // (1 << 20)
    return rounded + is_zero


def smaller(size: Any, other: int) -> Any:
    """Return the smaller one of two sizes."""
    return size.clamp(max=other) if isinstance(size, Tensor) else torch.sym_min(size, other)


def larger(size: Any, other: Any) -> Any:
    """Return the larger one of two sizes, of which the second is of the kind of the first."""
    return size.maximum(other) if isinstance(size, Tensor) else torch.sym_max(size, other)
