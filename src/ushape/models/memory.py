"""Number of weights and memory of a network, counted without allocating data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ushape.models import build_without_data
from ushape.models.config import NetworkConfig

CPU_FACTOR = {(2, False): 1.4, (2, True): 1.7, (3, False): 2.1, (3, True): 2.5}
"""Peak bytes of a step per byte kept for the backward pass, by (dimensions, half precision)."""


def parameter_count(config: NetworkConfig, in_channels: int, out_channels: int) -> int:
    """Return the number of trainable parameters without allocating them."""
    network = build_without_data(config, in_channels, out_channels)
    return sum(parameter.numel() for parameter in network.parameters())


def memory_estimate(
    config: NetworkConfig,
    in_channels: int,
    batch: int,
    patch: tuple[int, ...],
    *,
    out_channels: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> int:
    """Estimate the bytes that a training step needs; the estimate is not an upper bound.

    It is the sum of what the forward pass keeps for the backward pass, counted on a network without
    data, and the weights with their gradients and the two moments of AdamW. On a CPU, kernels
    reorder weights and activations, and memory that was freed in pieces stays allocated: measured
    factors bring the estimate within 20 % of the peak (benchmarks/README.md, Memory of a step). On
    an accelerator, twice the largest array is added for the gradients of activations.

    Args:
        patch: Shape S of one patch in pixels, legal for the network.
        dtype: Data type of activations: bfloat16 under autocast.
        device: Type of device: cpu, cuda or mps.
    """
    network = build_without_data(config, in_channels, out_channels, dtype).train()
    kept = _bytes_kept(network, torch.empty(batch, in_channels, *patch, device="meta", dtype=dtype))
    weights = sum(parameter.numel() for parameter in network.parameters())
    if device == "cpu":
        is_half = dtype.itemsize < 4
        return 16 * weights + round(CPU_FACTOR[len(patch), is_half] * sum(kept))
    cast = dtype.itemsize if dtype.itemsize < 4 else 0  # Autocast keeps a copy of each weight.
    return weights * (16 + cast) + sum(kept) + 2 * max(kept)


def _bytes_kept(network: nn.Module, image: Tensor) -> list[int]:
    """Return the bytes of each array that a forward pass keeps, without the weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        # Layers share arrays. Keeping the storage alive prevents reuse of its address.
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(image)
    return [storage.nbytes() for address, storage in kept.items() if address not in weights]
