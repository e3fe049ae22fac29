"""Networks: image (B, C, *S) -> logits (B, K, *S'). A new one is a class and a line in MODELS.

A network is an `nn.Module` with two members beside `forward`:

- `margin`: pixels lost on each side, S' = S - 2 margin;
- `legal_size(at_least)`: the smallest input size along one axis that is not smaller.

`receptive_field`, in pixels, is optional; the plan mentions it. The planner, training and
prediction ask the network for these sizes and do not depend on its architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from ushape.config import missing_code
from ushape.errors import ConfigError
from ushape.models.config import NetworkBuilder, NetworkConfig
from ushape.models.unet import UNet

MODELS: dict[str, NetworkBuilder] = {"unet": UNet}
"""Networks by name: functions or classes of (config, input channels, output channels)."""


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of a network in pixels, known without its weights."""

    margin: int
    """Pixels lost on each side."""

    legal_size: Callable[[int], int]
    """Returns the smallest legal input size that is not smaller than its argument."""

    receptive_field: int | None
    """Input pixels along one axis that an output pixel depends on; None if not known."""


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
            hint="A network of your own needs both. With padded convolutions: margin = 0, and a "
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
    field = getattr(network, "receptive_field", None)
    return NetworkSizes(int(network.margin), network.legal_size, field)  # type: ignore[arg-type]
