"""Sizes of a U-Net, by arithmetic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ushape.models.unet import UNetConfig


def output_size(config: UNetConfig, size: int) -> int:
    """Output pixels along one axis; 0 where the input size is not legal."""
    assert config.widths != "auto"
    levels = len(config.widths)
    lost = 2 if config.padding == "valid" else 0
    centre = config.centre_convolutions or config.convolutions
    for level in range(levels):
        size -= lost * (config.convolutions if level < levels - 1 else centre)
        if size <= 0 or (level < levels - 1 and size % 2):
            return 0
        if level < levels - 1:
            size //= 2
    for _ in range(levels - 1):
        size = 2 * size - lost * (config.decoder_convolutions or config.convolutions)
        if size <= 0:
            return 0
    return size


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
