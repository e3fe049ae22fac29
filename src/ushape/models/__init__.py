"""Networks: image (B, C, *S) -> logits (B, K, *S). A new one is a class and a line in MODELS.

A network has `margin` (pixels lost on each side) and `legal_size(at_least)`.
"""

from __future__ import annotations

from torch import nn

from ushape.models.config import UNetConfig
from ushape.models.unet import UNet

MODELS = {"unet": UNet}


def build_model(config: UNetConfig, in_channels: int, out_channels: int) -> nn.Module:
    """The network of a plan, with fresh weights."""
    return MODELS["unet"](config, in_channels, out_channels)
