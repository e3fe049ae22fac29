"""Encoder and its blocks: image -> features of each level, fine to coarse."""

from __future__ import annotations

from torch import Tensor, nn

from ushape.models.config import NetworkConfig
from ushape.models.layers import (
    ACTIVATIONS,
    AVERAGE_POOL,
    CONVOLUTION,
    DROPOUT,
    MAX_POOL,
    build_norm,
)


def build_convolution(
    config: NetworkConfig, in_channels: int, out_channels: int
) -> list[nn.Module]:
    """Build a 3 x 3 convolution with its norm and activation.

    By default it has no bias if a norm follows, because the norm has an offset of its own.
    """
    convolution = CONVOLUTION[config.dims](
        in_channels,
        out_channels,
        3,
        padding=1 if config.padding == "same" else 0,
        bias=config.bias == "always" or config.norm == "none",
    )
    norm = build_norm(config.norm, out_channels, config.dims)
    return [convolution, norm, ACTIVATIONS[config.activation]()]


class Block(nn.Module):
    """Convolutions of one level, each with norm and activation.

    Shapes:
        x: (B, in, *S) -> (B, out, *S'); each valid convolution removes 2 pixels from S.
    """

    def __init__(
        self, config: NetworkConfig, in_channels: int, out_channels: int, count: int, dropout: float
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(count):
            width = in_channels if index == 0 else out_channels
            layers += build_convolution(config, width, out_channels)
            is_last = index == count - 1
            if dropout and is_last != (config.dropout_place == "between"):
                layers.append(DROPOUT[config.dims](dropout))
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if config.block == "residual":
            same = in_channels == out_channels
            point = CONVOLUTION[config.dims]
            self.shortcut = nn.Identity() if same else point(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result if self.shortcut is None else result + self.shortcut(x)


class Encoder(nn.Module):
    """Levels of convolutions, each at half the resolution of the previous one.

    Shapes:
        x: (B, C, *S).
        returns: one (B, widths[i], *S_i) per level, fine to coarse.
    """

    def __init__(self, config: NetworkConfig, in_channels: int):
        super().__init__()
        assert config.widths != "auto"
        coarsest = len(config.widths) - 1
        self.blocks = nn.ModuleList()
        self.downs = nn.ModuleList()
        for level, width in enumerate(config.widths):
            count = config.convolutions
            if level == coarsest and config.center_convolutions is not None:
                count = config.center_convolutions
            self.blocks.append(Block(config, in_channels, width, count, _dropout(config, level)))
            if level < coarsest:
                self.downs.append(_build_down(config, width))
            in_channels = width

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.blocks[0](x)]
        for down, block in zip(self.downs, list(self.blocks)[1:], strict=True):
            features.append(block(down(features[-1])))
        return features


def _dropout(config: NetworkConfig, level: int) -> float:
    assert config.widths != "auto"
    everywhere = config.dropout_place != "bottom"
    return config.dropout if everywhere or level >= len(config.widths) - 2 else 0.0


def _build_down(config: NetworkConfig, width: int) -> nn.Module:
    if config.down == "max_pool":
        return MAX_POOL[config.dims](2)
    if config.down == "average_pool":
        return AVERAGE_POOL[config.dims](2)
    return CONVOLUTION[config.dims](width, width, 2, stride=2)
