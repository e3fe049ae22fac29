"""Networks: image (B, C, *S) -> logits (B, K, *S'). A new one is a class and a line in MODELS.

A network is an `nn.Module` with two members in addition to `forward`:

- `margin`: pixels lost on each side, S' = S - 2 margin;
- `legal_size(at_least)`: the smallest input size along one axis that is not smaller.

Two more are optional: `legal_shape(at_least)`, the same for each axis of S, of a network whose axes
differ; and `receptive_field`, in pixels, which the plan mentions. The planner, training and
prediction ask the network for these sizes and do not depend on its architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ushape.config import missing_code
from ushape.errors import ConfigError
from ushape.models.config import NetworkBuilder, NetworkConfig
from ushape.models.unet import UNet

MODELS: dict[str, NetworkBuilder] = {"unet": UNet}
"""Networks by name: functions or classes of (config, input channels, output channels)."""

CPU_FACTOR = {(2, False): 1.4, (2, True): 1.7, (3, False): 2.1, (3, True): 2.5}
"""Peak bytes of a step per byte kept for the backward pass, by (dimensions, half precision)."""


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of a network in pixels, known without its weights."""

    margin: int
    """Pixels lost on each side."""

    legal_size: Callable[[int], int]
    """Returns the smallest size, legal along every axis, that is not smaller than its argument."""

    legal_shape: Callable[[Sequence[int]], tuple[int, ...]]
    """Returns the smallest legal size along each axis that is not smaller than its argument."""

    receptive_field: int | tuple[int, ...] | None
    """Input pixels along each axis that an output pixel depends on, one number if they are the same
    along all axes; None if not known."""


def legal_shape(network: Any, at_least: Sequence[int]) -> tuple[int, ...]:
    """Return the smallest legal input size of a network along each axis that is not smaller.

    Args:
        network: Anything with `legal_size`, and with `legal_shape` if its axes differ.
    """
    if hasattr(network, "legal_shape"):
        return tuple(int(size) for size in network.legal_shape(at_least))
    return tuple(int(network.legal_size(size)) for size in at_least)


def build_model(config: NetworkConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Build the network of a plan with fresh weights.

    Raises:
        ConfigError: if the architecture is not in `MODELS`, or its network lacks `margin` or
            `legal_size`.
    """
    name = config.architecture
    assert isinstance(name, str), "load_recipe replaces the objects of a recipe by names"
    if name not in MODELS and config.is_custom:
        raise missing_code("network.architecture", name)
    if name not in MODELS:
        raise ConfigError(
            f"network.architecture is {name}, which is not a known network.",
            code="unknown_network",
            hint=f"Known networks: {', '.join(MODELS)}.",
        )
    network = MODELS[name](config, in_channels, out_channels)
    missing = [one for one in ("margin", "legal_size") if not hasattr(network, one)]
    if missing:
        raise ConfigError(
            f"The network {name} has no attribute {' and no attribute '.join(missing)}.",
            code="network_without_sizes",
            hint="A custom network needs both. With padded convolutions: margin = 0, and a "
            "method legal_size(at_least) that rounds up to a multiple of its stride.",
        )
    return network


def build_without_data(
    config: NetworkConfig, in_channels: int, out_channels: int, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Build the network on the meta device; neither memory nor random numbers are used."""
    try:
        with torch.device("meta"):
            return build_model(config, in_channels, out_channels).to(dtype)
    except (NotImplementedError, RuntimeError):  # Its constructor computes with values.
        with torch.random.fork_rng(devices=[]):
            return build_model(config, in_channels, out_channels).to("meta", dtype)


def network_sizes(config: NetworkConfig) -> NetworkSizes:
    """Return the sizes of a network, which do not depend on its channels or its norm."""
    if config.norm == "auto":
        config = replace(config, norm="none")
    network = build_without_data(config, 1, 1)
    return NetworkSizes(
        margin=int(network.margin),  # type: ignore[arg-type]
        legal_size=network.legal_size,  # type: ignore[arg-type]
        legal_shape=partial(legal_shape, network),
        receptive_field=getattr(network, "receptive_field", None),
    )


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

    It is the sum of what the forward pass keeps for the backward pass, computed on a network
    without data, and the weights with their gradients and the two moments of AdamW. On a CPU,
    kernels reorder weights and activations, and memory that was freed in pieces stays allocated:
    measured factors bring the estimate within 20% of the peak (benchmarks/README.md, Memory of a
    step). On an accelerator, twice the largest array is added for the gradients of activations.

    Args:
        patch: Shape S of one patch in pixels, legal for the network.
        dtype: Data type of activations: bfloat16 under autocast.
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
