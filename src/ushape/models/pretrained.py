"""Weights that belong to the package, trained on generated images only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from torch import Tensor

from ushape.models.config import NetworkConfig
from ushape.models.transfer import transfer_weights

GENERATED = Path(__file__).parent / "weights" / "generated_2d.safetensors"
"""Weights of `GENERATED_CONFIG` for three channels (pretraining/README.md)."""

WIDTHS = (16, 32, 64, 128, 256)
"""Channels of the levels of the network that was trained."""

GENERATED_CONFIG = NetworkConfig(
    widths=WIDTHS, stem=2, norm="instance", encoder="none", encoder_weights="none"
)
"""The network of the weights. A network of its finest levels can start from them as well."""

FEWEST_LEVELS = 3
"""Number of levels down to which the weights were trained."""


def has_generated_weights(config: NetworkConfig) -> bool:
    """Return whether a network can start from the weights that belong to the package.

    The norm may differ, unless there is none, because scale and offset are the same.
    """
    if config.widths == "auto" or not FEWEST_LEVELS <= len(config.widths) <= len(WIDTHS):
        return False
    finest = replace(GENERATED_CONFIG, widths=WIDTHS[: len(config.widths)], norm=config.norm)
    return config == finest and config.norm in ("instance", "batch")


def load_generated_weights(
    config: NetworkConfig, in_channels: int, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the initial weights of a network, with those that belong to the package.

    The head, and the running statistics of batch norms, keep their initial values.

    Args:
        config: A network for which `has_generated_weights`.
        in_channels: Number of channels C of the images.
        fresh: Initial values of all tensors of the network.
    """
    assert config.widths != "auto", "has_generated_weights"
    missing = len(WIDTHS) - len(config.widths)
    source = {
        _renamed(name, missing): value
        for name, value in safetensors.torch.load_file(GENERATED).items()
        if not name.startswith("heads.")
    }
    out_channels = fresh["heads.0.weight"].shape[0] // config.stem_factor**config.dims
    return transfer_weights(source, fresh, config, in_channels, out_channels).weights


def _renamed(name: str, missing: int) -> str:
    """Number the levels of the decoder, which begin at the coarsest, without those missing."""
    part, _, rest = name.partition(".")
    if part != "decoder":
        return name
    kind, index, *layer = rest.split(".")
    return ".".join([part, kind, str(int(index) - missing), *layer])
