"""Weights that are included in the package, trained on synthetic images only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from torch import Tensor

from ushape.errors import PlanError
from ushape.models.config import NetworkConfig
from ushape.models.transfer import transfer_weights

SYNTHETIC = Path(__file__).parent / "weights" / "generated_2d.safetensors"
"""Weights of `SYNTHETIC_CONFIG` for three channels (pretraining/README.md)."""

WIDTHS = (16, 32, 64, 128, 256)
"""Channels of the levels of the network that was trained."""

SYNTHETIC_CONFIG = NetworkConfig(
    widths=WIDTHS,
    stem=2,
    norm="instance",
    deep_supervision=0,
    encoder="none",
    encoder_weights="none",
)
"""Network of the weights. A network of only its finest levels can start from them as well."""

FEWEST_LEVELS = 3
"""Smallest number of levels of a network that the weights were trained for."""


def has_synthetic_weights(config: NetworkConfig) -> bool:
    """Return whether a network can start from the weights included in the package.

    They were trained with instance norm. Batch norm has the same scale and offset.
    """
    if config.widths == "auto" or not FEWEST_LEVELS <= len(config.widths) <= len(WIDTHS):
        return False
    finest = replace(
        SYNTHETIC_CONFIG,
        widths=WIDTHS[: len(config.widths)],
        norm=config.norm,
        strides=config.strides,  # Plans of earlier versions do not contain them.
        kernels=config.kernels,
    )
    is_usual = not isinstance(config.strides, tuple) and not isinstance(config.kernels, tuple)
    return config == finest and is_usual and config.norm in ("instance", "batch")


def load_synthetic_weights(
    config: NetworkConfig, in_channels: int, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the initial weights of a network, most of which are included in the package.

    The head, and the running statistics of batch norms, keep their initial values.

    Args:
        config: Configuration of the network, without "auto" values.
        in_channels: Number of channels C of the images.
        fresh: Initial values of all tensors of the network.

    Raises:
        PlanError: if there are no such weights for the network.
    """
    if config.widths == "auto" or not has_synthetic_weights(config):
        raise PlanError(
            "The plan starts from weights of synthetic images, which do not fit its network.",
            code="no_weights_fit",
            hint="Set train.initial_weights to random in the plan.",
        )
    missing = len(WIDTHS) - len(config.widths)
    source = {
        _renamed(name, missing): value
        for name, value in safetensors.torch.load_file(SYNTHETIC).items()
        if not name.startswith("heads.")
    }
    out_channels = fresh["heads.0.weight"].shape[0] // math.prod(config.stem_factors)
    return transfer_weights(source, fresh, config, in_channels, out_channels).weights


def _renamed(name: str, missing: int) -> str:
    """Return the name of a tensor in a network without the coarsest levels.

    The levels of the decoder are numbered from the coarsest one.

    Args:
        missing: Number of levels that the network lacks.
    """
    part, _, rest = name.partition(".")
    if part != "decoder":
        return name
    kind, index, *layer = rest.split(".")
    return ".".join([part, kind, str(int(index) - missing), *layer])
