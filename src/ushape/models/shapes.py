"""Sizes of a U-Net: legal inputs by arithmetic, weights and memory from a network without data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ushape.models.unet import UNetConfig


CPU_FACTOR = {(2, False): 1.4, (2, True): 1.7, (3, False): 2.1, (3, True): 2.5}
"""Peak bytes of a step per byte kept for the backward pass, by dimensions and half precision."""


def output_size(config: UNetConfig, size: int) -> int:
    """Output pixels along one axis; 0 where the input size is not legal."""
    assert config.widths != "auto"
    whole, levels = size, len(config.widths)
    lost = 2 if config.padding == "valid" else 0
    centre = config.centre_convolutions or config.convolutions
    for level in range(levels):
        size -= lost * (config.convolutions if level < levels - 1 else centre)
        if size <= 0 or (level < levels - 1 and size % 2):
            return 0
        if level < levels - 1:
            size //= 2
    way_up = config.decoder_convolutions or config.convolutions
    if config.up == "bilinear_3x3":
        way_up += 1
    for _ in range(levels - 1):
        size = 2 * size - lost * way_up
        if size <= 0:
            return 0
    return whole if config.output == "stretched" else size


def next_legal_size(config: UNetConfig, at_least: int) -> int:
    """The smallest legal input size that is not smaller, pixels."""
    size = max(1, at_least)
    while not output_size(config, size):
        size += 1
    return size


def valid_margin(config: UNetConfig) -> int:
    """Pixels lost on each side; the same for every legal size."""
    if config.padding == "same":
        return 0
    size = next_legal_size(config, 1)
    return (size - output_size(config, size)) // 2


def receptive_field(config: UNetConfig) -> int:
    """Pixels along one axis that a pixel of the output can depend on, at most."""
    assert config.widths != "auto"
    coarsest = len(config.widths) - 1
    way_up = config.decoder_convolutions or config.convolutions
    convolutions = config.convolutions + way_up + (config.up == "bilinear_3x3")
    seen = 2**coarsest + 2 * (config.centre_convolutions or config.convolutions) * 2**coarsest
    seen += sum(2 * convolutions * 2**level for level in range(coarsest))
    if config.up in ("bilinear", "bilinear_3x3"):  # Reaches into the pixels beside.
        seen += sum(2 ** (level + 1) for level in range(coarsest))
    return seen


def parameter_count(config: UNetConfig, in_channels: int, out_channels: int) -> int:
    """Trainable numbers of the network; nothing is allocated."""
    network = _build_without_data(config, in_channels, out_channels, torch.float32)
    return sum(parameter.numel() for parameter in network.parameters())


def memory_estimate(
    config: UNetConfig,
    in_channels: int,
    batch: int,
    patch: tuple[int, ...],
    *,
    out_channels: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> int:
    """Bytes that a training step needs; no upper bound.

    What the forward pass keeps for the backward pass, counted on a network without data, and the
    weights with their gradients and AdamW's two moments. On a CPU kernels reorder weights and
    activations, and memory that was freed in pieces stays claimed: measured factors bring the
    estimate within 20 % of the peak (benchmarks/README.md, Memory of a step). On an accelerator:
    twice the largest array for gradients on their way down.

    Args:
        patch: S of one patch, pixels; legal for the network.
        dtype: What activations are computed in: bfloat16 under autocast.
        device: cpu, or anything else.
    """
    network = _build_without_data(config, in_channels, out_channels, dtype).train()
    kept = _bytes_kept(network, torch.empty(batch, in_channels, *patch, device="meta", dtype=dtype))
    weights = sum(parameter.numel() for parameter in network.parameters())
    if device == "cpu":
        is_half = dtype.itemsize < 4
        return 16 * weights + round(CPU_FACTOR[len(patch), is_half] * sum(kept))
    cast = dtype.itemsize if dtype.itemsize < 4 else 0  # Autocast keeps a copy of each weight.
    return weights * (16 + cast) + sum(kept) + 2 * max(kept)


def _bytes_kept(network: nn.Module, image: Tensor) -> list[int]:
    """Bytes of each array, weights apart, that a forward pass leaves for the backward pass."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        # Layers share arrays; the storage stays alive here, so that its address is not used again.
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(image)
    return [storage.nbytes() for address, storage in kept.items() if address not in weights]


def _build_without_data(
    config: UNetConfig, in_channels: int, out_channels: int, dtype: torch.dtype
) -> nn.Module:
    from ushape.models.unet import UNet  # Which itself asks this file for its legal sizes.

    with torch.device("meta"):
        return UNet(config, in_channels, out_channels).to(dtype)
