"""Decoder: upsample, join the skip connection, convolve."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ushape.models.config import UNetConfig
from ushape.models.encoders import Block, build_convolution
from ushape.models.layers import LINEAR_MODE, TRANSPOSED, Resize


class Decoder(nn.Module):
    """From the coarsest level back to the finest.

    Shapes:
        features: one (B, widths[i], *S_i) per level, fine to coarse.
        returns: the decoder's levels, coarse to fine, without the coarsest.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        assert config.widths != "auto"
        count = config.decoder_convolutions or config.convolutions
        dropout = config.dropout if config.dropout_place != "bottom" else 0.0
        self.ups = nn.ModuleList()
        self.blocks = nn.ModuleList()
        coarsest = config.widths[-1]
        widths = (*level_widths(config), coarsest)[::-1]
        skips = config.widths[-2::-1]
        for (coarse, fine), skip in zip(itertools.pairwise(widths), skips, strict=True):
            up, width = _build_up(config, coarse, fine)
            self.ups.append(up)
            self.blocks.append(Block(config, skip + width, fine, count, dropout))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = []
        x = features[-1]
        for up, block, skip in zip(self.ups, self.blocks, features[-2::-1], strict=True):
            x = up(x)
            x = block(torch.cat([crop_to(skip, x.shape[2:]), x], dim=1))
            levels.append(x)
        return levels


def level_widths(config: UNetConfig) -> tuple[int, ...]:
    """Output channels of each decoder level, fine to coarse."""
    assert config.widths != "auto"
    return config.widths[:-1] if config.decoder_widths is None else config.decoder_widths


def crop_to(x: Tensor, shape: torch.Size) -> Tensor:
    """The center of x; valid convolutions leave the skip connection larger than the way up."""
    if x.shape[2:] == shape:
        return x
    for axis, size in enumerate(shape, start=2):
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x


def _build_up(config: UNetConfig, coarse: int, fine: int) -> tuple[nn.Module, int]:
    """The layer that doubles the size, and its output channels."""
    if config.up == "transposed":
        return TRANSPOSED[config.dims](coarse, fine, 2, stride=2), fine
    mode = "nearest" if config.up == "nearest" else LINEAR_MODE[config.dims]
    if config.up == "bilinear_3x3":
        return nn.Sequential(Resize(mode), *build_convolution(config, coarse, fine)), fine
    return Resize(mode), coarse
