"""Sizes of a U-Net: legal inputs by arithmetic, weights and memory from a network without data."""

from __future__ import annotations

from ushape.models.config import UNetConfig


def output_size(config: UNetConfig, size: int) -> int:
    """Output pixels along one axis; 0 where the input size is not legal."""
    assert config.widths != "auto"
    whole, levels = size, len(config.widths)
    lost = 2 if config.padding == "valid" else 0
    center = config.center_convolutions or config.convolutions
    for level in range(levels):
        size -= lost * (config.convolutions if level < levels - 1 else center)
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
    seen = 2**coarsest + 2 * (config.center_convolutions or config.convolutions) * 2**coarsest
    seen += sum(2 * convolutions * 2**level for level in range(coarsest))
    if config.up in ("bilinear", "bilinear_3x3"):  # Reaches into the pixels beside.
        seen += sum(2 ** (level + 1) for level in range(coarsest))
    return seen
