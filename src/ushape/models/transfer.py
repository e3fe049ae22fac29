"""Start a network from the weights of another one, possibly with other channels and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ushape.models import build_without_data
from ushape.models.config import NetworkConfig

Shape = tuple[int, ...]

FIRST, HEAD = "first convolution", "head"
"""Parts of a network whose tensors depend on the channels of the image and on the classes."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Weights of a network, some of which were taken from another one."""

    weights: dict[str, Tensor]
    """All tensors of the network."""

    loaded: int
    """Number of tensors that were taken over, adapted ones included."""

    has_kernels: bool
    """Whether weights of a convolution were taken over, not only offsets, which fit by chance."""

    adapted: tuple[str, ...]
    """What was converted to another number of channels or classes: parts or names of tensors."""

    fresh: tuple[str, ...]
    """What has its random initial values: parts or names of tensors."""


def transfer_weights(
    source: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    config: NetworkConfig,
    in_channels: int,
    out_channels: int,
    *,
    rows: Sequence[int | None] | None = None,
) -> Transfer:
    """Take over the tensors of another network whose names and shapes are those of this network.

    The first convolution is adapted if only its number of input channels differs, and the head if
    some of its classes are known.

    Args:
        source: Weights to start from.
        fresh: Initial values of the network, which tensors without a counterpart keep.
        config: Configuration of the network, without "auto" values.
        in_channels: Number of channels C of the images.
        out_channels: Number of channels K of the network's output.
        rows: Output channel of the source for each of the K output channels, None for an unknown
            class; by default they are the same if their number is, otherwise none is known.
    """
    of_input = _changed_axis(config, in_channels, out_channels, (in_channels + 1, out_channels), 1)
    of_output = _changed_axis(config, in_channels, out_channels, (in_channels, out_channels + 1), 0)
    weights: dict[str, Tensor] = {}
    has_kernels = False
    adapted: list[str] = []
    left: list[str] = []
    for name, initial in fresh.items():
        value, found = source.get(name), None
        part = FIRST if name in of_input else HEAD if name in of_output else name
        if value is not None and value.ndim == initial.ndim:
            value = value.to(initial.dtype)
            if name in of_output and rows is not None:
                found = _take_rows(value, initial, rows, of_output[name])
            elif value.shape == initial.shape:
                found = value
            elif name in of_input:
                found = mean_over_inputs(value, tuple(initial.shape), of_input[name])
        if value is None or found is None:
            left.append(part)
        elif not torch.equal(found, value):
            adapted.append(part)
        has_kernels |= found is not None and found.ndim > 1
        weights[name] = initial if found is None else found
    return Transfer(
        weights=weights,
        loaded=len(weights) - len(left),
        has_kernels=has_kernels,
        adapted=_unique(adapted),
        fresh=_unique(left),
    )


def have_equal_bodies(one: NetworkConfig, other: NetworkConfig) -> bool:
    """Return whether two networks have the same tensors, except for additional outputs."""
    mine, theirs = _shapes(one, 1, 1), _shapes(other, 1, 1)
    outputs = _changed_axis(one, 1, 1, (1, 2), 0) | _changed_axis(other, 1, 1, (1, 2), 0)
    differing = {name for name in mine | theirs if mine.get(name) != theirs.get(name)}
    return all(name in outputs and (name in mine) != (name in theirs) for name in differing)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _changed_axis(
    config: NetworkConfig,
    in_channels: int,
    out_channels: int,
    others: tuple[int, int],
    axis: int,
) -> dict[str, int]:
    """Return by how much an axis of each tensor grows with one more channel, without zeros."""
    before, after = _shapes(config, in_channels, out_channels), _shapes(config, *others)
    return {
        name: after[name][axis] - shape[axis]
        for name, shape in before.items()
        if len(shape) > axis and name in after and after[name][axis] != shape[axis]
    }


def mean_over_inputs(value: Tensor, shape: Shape, each: int) -> Tensor | None:
    """Return the weights of a first convolution for another number of channels.

    Each channel has the mean over the previous ones, times their number, divided by the new number,
    so that the activation of an image with equal channels is the same as before. None if the
    weights differ in something else as well.

    Args:
        value: Weights (out, previous channels * each, ...).
        shape: Shape of the result, (out, new channels * each, ...).
        each: Input channels of the convolution for each channel of the image: above 1 if the
            network rearranges pixels into channels first.

    Source:
        Carreira and Zisserman 2017 (I3D), arXiv 1705.07750, who repeat weights and divide them by
        the number of repetitions; so does timm (adapt_input_conv).
    """
    is_same_else = (value.shape[0], *value.shape[2:]) == (shape[0], *shape[2:])
    if not is_same_else or each < 1 or shape[1] % each or value.shape[1] % each:
        return None
    before, after = value.shape[1] // each, shape[1] // each
    by_channel = value.unflatten(1, (before, each))
    mean = by_channel.mean(dim=1, keepdim=True) * (before / after)
    return mean.expand(-1, after, *by_channel.shape[2:]).flatten(1, 2).contiguous()


def _take_rows(
    value: Tensor, initial: Tensor, rows: Sequence[int | None], each: int
) -> Tensor | None:
    """Return the head with the known classes from another one, or None if it does not fit.

    Args:
        each: Rows for each class: above 1 if the network rearranges channels into pixels.
    """
    known = [row for row in rows if row is not None]
    fits = each >= 1 and initial.shape[0] == len(rows) * each
    if not known or not fits or value.shape[1:] != initial.shape[1:]:
        return None
    if value.shape[0] % each or max(known) >= value.shape[0] // each:
        return None
    result = initial.clone()
    for target, row in enumerate(rows):
        if row is not None:
            result[target * each : (target + 1) * each] = value[row * each : (row + 1) * each]
    return result


def _shapes(config: NetworkConfig, in_channels: int, out_channels: int) -> dict[str, Shape]:
    network = build_without_data(config, in_channels, out_channels)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
