"""The U-Net, 2D and 3D, with valid or padded convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ushape.errors import PlanError
from ushape.models.config import NetworkConfig, PerAxis
from ushape.models.efficientnet import EfficientNetLite0, encoder_field, init_weights
from ushape.models.layers import (
    ACTIVATIONS,
    AVERAGE_POOL,
    CONVOLUTION,
    DROPOUT,
    LINEAR_MODE,
    MAX_POOL,
    TRANSPOSED,
    Resize,
    build_norm,
    depth_to_space,
    init_he,
    repeat_outputs,
    space_to_depth,
)


def build_convolution(
    config: NetworkConfig, in_channels: int, out_channels: int, kernel: PerAxis
) -> list[nn.Module]:
    """Build a convolution with its norm and activation.

    By default it has no bias if a norm follows, because the norm has its own offset.

    Args:
        kernel: Size along each axis, 3 x 3 as a rule.
    """
    convolution = CONVOLUTION[config.dims](
        in_channels,
        out_channels,
        kernel,
        padding=tuple(size // 2 for size in kernel) if config.padding == "same" else 0,
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
        self,
        config: NetworkConfig,
        in_channels: int,
        out_channels: int,
        count: int,
        dropout: float,
        kernel: PerAxis,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(count):
            width = in_channels if index == 0 else out_channels
            layers += build_convolution(config, width, out_channels, kernel)
            is_last = index == count - 1
            if dropout and is_last != (config.dropout_position == "between"):
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

    With `strides`, some axes keep their resolution between two levels.

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
            if level == coarsest and config.bottleneck_convolutions is not None:
                count = config.bottleneck_convolutions
            has_dropout = config.dropout_position != "bottom" or level >= coarsest - 1
            dropout = config.dropout if has_dropout else 0.0
            kernel = config.level_kernels[level]
            self.blocks.append(Block(config, in_channels, width, count, dropout, kernel))
            if level < coarsest:
                self.downs.append(_build_down(config, width, config.level_strides[level]))
            in_channels = width

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.blocks[0](x)]
        for down, block in zip(self.downs, list(self.blocks)[1:], strict=True):
            features.append(block(down(features[-1])))
        return features


def _build_down(config: NetworkConfig, width: int, stride: PerAxis) -> nn.Module:
    if config.downsampling == "max_pool":
        return MAX_POOL[config.dims](stride)
    if config.downsampling == "average_pool":
        return AVERAGE_POOL[config.dims](stride)
    return CONVOLUTION[config.dims](width, width, stride, stride=stride)


class UNet(nn.Module):
    """Encoder, decoder with skip connections, and a 1 x 1 head.

    With an encoder of another architecture, the finest level has half the size of the image, and
    the head predicts blocks of 2 x 2 pixels, as with a stem of factor 2.

    Args:
        config: Configuration without "auto" values.

    Shapes:
        x: (B, C, *S), every size legal (`legal_shape`).
        returns: (B, K, *S') logits, S' = S - 2 margin; in training with deep supervision a
            list of logits, fine to coarse.

    Raises:
        ConfigError: if settings for each axis are for a different number of axes.
        PlanError: if an input size is not legal; the message names the next legal sizes.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597; the stem is that of Shi et al. 2016,
        arXiv 1609.05158, in both directions.
    """

    def __init__(self, config: NetworkConfig, in_channels: int, out_channels: int):
        super().__init__()
        assert config.widths != "auto", "the planner chooses the widths"
        assert config.norm != "auto", "the planner chooses the norm"
        config.check_dims(config.dims)
        self.config, self.factors = config, config.stem_factors
        self.in_channels = in_channels
        pixels = math.prod(self.factors)
        self.encoder: Encoder | EfficientNetLite0
        if config.has_encoder:
            assert self.factors == (2, 2), "the planner sets the stem of a network with an encoder"
            self.encoder = EfficientNetLite0(
                in_channels, len(config.widths), fixed_norm=config.is_pretrained
            )
        else:
            self.encoder = Encoder(config, in_channels * pixels)
        self.decoder = Decoder(config)
        head = CONVOLUTION[config.dims]
        widths = level_widths(config)[: 1 + config.extra_outputs]
        self.heads = nn.ModuleList(
            head(width, out_channels * (1 if index else pixels), 1)
            for index, width in enumerate(widths)
        )
        self.margin = valid_margin(config)
        fields = tuple(receptive_field(config, axis) for axis in range(config.dims))
        self.receptive_field = fields[0] if len(set(fields)) == 1 else fields
        init_he(self)
        repeat_outputs(self.heads[0], pixels)
        if isinstance(self.encoder, EfficientNetLite0):
            init_weights(self.encoder)

    def legal_size(self, at_least: int) -> int:
        """Return the smallest input size, in pixels, that is legal along every axis."""
        return max(self.legal_shape([at_least] * self.config.dims))

    def legal_shape(self, at_least: Sequence[int]) -> tuple[int, ...]:
        """Return the smallest legal input size along each axis that is not smaller, in pixels."""
        return tuple(next_legal_size(self.config, size, axis) for axis, size in enumerate(at_least))

    def output_size(self, size: int) -> int:
        """Return the output pixels of a size that is legal along every axis, otherwise 0."""
        return min(output_size(self.config, size, axis) for axis in range(self.config.dims))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        whole = x.shape[2:]
        # The sizes of a graph are symbols or tensors, which cannot be compared.
        if not (torch.compiler.is_exporting() or torch.jit.is_tracing()):
            self._refuse_illegal(whole)
        has_stem = max(self.factors) > 1
        if has_stem and not self.config.has_encoder:
            x = space_to_depth(x, self.factors)
        levels = self.decoder(self.encoder(x))  # Coarse to fine.
        logits: Tensor = self.heads[0](levels[-1])
        if has_stem:
            logits = depth_to_space(logits, self.factors)
        if self.training and self.config.extra_outputs:
            coarser = zip(list(self.heads)[1:], levels[-2::-1], strict=False)
            return [logits, *(head(level) for head, level in coarser)]
        if self.config.valid_output == "center" or self.config.padding == "same":
            return logits
        mode = LINEAR_MODE[self.config.dims]
        return functional.interpolate(logits, whole, mode=mode, align_corners=False)

    def _refuse_illegal(self, shape: tuple[int, ...]) -> None:
        for axis, size in enumerate(shape):
            legal = next_legal_size(self.config, size, axis)
            if legal != size:
                after = next_legal_size(self.config, legal + 1, axis)
                raise PlanError(
                    f"The network cannot process an image of {' × '.join(map(str, shape))} pixels: "
                    f"{size} is not legal.",
                    code="illegal_size",
                    hint=f"The next legal sizes are {legal} and {after}.",
                )


class Decoder(nn.Module):
    """Upsample from the coarsest level back to the finest, joining the skip connections.

    Shapes:
        features: one (B, widths[i], *S_i) per level, fine to coarse.
        returns: the features of each decoder level, coarse to fine, without the coarsest.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        assert config.widths != "auto"
        count = config.decoder_convolutions or config.convolutions
        dropout = config.dropout if config.dropout_position != "bottom" else 0.0
        self.ups = nn.ModuleList()
        self.blocks = nn.ModuleList()
        coarsest = config.widths[-1]
        widths = (*level_widths(config), coarsest)[::-1]
        skips = config.widths[-2::-1]
        self.crops = skip_margins(config)[::-1]
        levels = reversed(range(len(skips)))
        for level, (coarse, fine), skip in zip(
            levels, itertools.pairwise(widths), skips, strict=True
        ):
            up, width = _build_up(config, coarse, fine, level)
            self.ups.append(up)
            kernel = config.level_kernels[level]
            self.blocks.append(Block(config, skip + width, fine, count, dropout, kernel))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = []
        x = features[-1]
        skips = features[-2::-1]
        for up, block, skip, crop in zip(self.ups, self.blocks, skips, self.crops, strict=True):
            x = up(x)
            x = block(torch.cat([crop_by(skip, crop), x], dim=1))
            levels.append(x)
        return levels


def level_widths(config: NetworkConfig) -> tuple[int, ...]:
    """Return the output channels of each decoder level, fine to coarse."""
    assert config.widths != "auto"
    return config.widths[:-1] if config.decoder_widths is None else config.decoder_widths


def crop_by(x: Tensor, margins: PerAxis) -> Tensor:
    """Remove pixels on both sides of each axis of S."""
    inside = (slice(margin, -margin if margin else None) for margin in margins)
    return x[(slice(None), slice(None), *inside)] if any(margins) else x


def skip_margins(config: NetworkConfig) -> list[PerAxis]:
    """Return the pixels along each axis that skip connections lose on each side, fine to coarse.

    Valid convolutions leave skip connections larger than the decoder, by the same number of pixels
    for every legal size.
    """
    assert config.widths != "auto"
    lost = 2 if config.padding == "valid" else 0
    of_up = lost if config.upsampling == "bilinear_3x3" else 0
    of_level = lost * (config.convolutions + (config.decoder_convolutions or config.convolutions))
    per_axis = []
    for axis in range(config.dims):
        removed = lost * (
            config.bottleneck_convolutions or config.convolutions
        )  # By coarser levels.
        margins: list[int] = []
        for stride in reversed(config.level_strides):
            between = stride[axis] * removed + of_up
            margins.insert(0, between // 2)
            removed = between + of_level
        per_axis.append(margins)
    return list(zip(*per_axis, strict=True))


def _build_up(config: NetworkConfig, coarse: int, fine: int, level: int) -> tuple[nn.Module, int]:
    """Build the layer that enlarges to a level, and return it with its output channels."""
    stride = config.level_strides[level]
    if config.upsampling == "transposed":
        return TRANSPOSED[config.dims](coarse, fine, stride, stride=stride), fine
    mode = "nearest" if config.upsampling == "nearest" else LINEAR_MODE[config.dims]
    if config.upsampling == "bilinear_3x3":
        convolution = build_convolution(config, coarse, fine, config.level_kernels[level])
        return nn.Sequential(Resize(mode, stride), *convolution), fine
    return Resize(mode, stride), coarse


def output_size(config: NetworkConfig, size: int, axis: int = 0) -> int:
    """Return the output pixels along one axis, or 0 if the input size is not legal."""
    assert config.widths != "auto"
    factor = config.stem_factors[axis]
    if factor > 1:
        behind = replace(config, stem=1, encoder="none")
        return 0 if size % factor else factor * output_size(behind, size // factor, axis)
    whole, strides = size, [stride[axis] for stride in config.level_strides]
    lost = 2 if config.padding == "valid" else 0
    for stride in strides:
        size -= lost * config.convolutions
        if size <= 0 or size % stride:
            return 0
        size //= stride
    size -= lost * (config.bottleneck_convolutions or config.convolutions)
    if size <= 0:
        return 0
    way_up = config.decoder_convolutions or config.convolutions
    if config.upsampling == "bilinear_3x3":
        way_up += 1
    for stride in reversed(strides):
        size = stride * size - lost * way_up
        if size <= 0:
            return 0
    return whole if config.valid_output == "stretched" else size


def next_legal_size(config: NetworkConfig, at_least: int, axis: int = 0) -> int:
    """Return the smallest legal input size along one axis that is not smaller, in pixels."""
    size = max(1, at_least)
    while not output_size(config, size, axis):
        size += 1
    return size


def valid_margin(config: NetworkConfig) -> int:
    """Return the pixels lost on each side, which are the same for every legal size."""
    if config.padding == "same":
        return 0
    size = next_legal_size(config, 1)
    return (size - output_size(config, size)) // 2


def receptive_field(config: NetworkConfig, axis: int = 0) -> int:
    """Return how many input pixels along one axis an output pixel can depend on."""
    assert config.widths != "auto"
    coarsest = len(config.widths) - 1
    way_up = config.decoder_convolutions or config.convolutions
    if config.has_encoder:
        cells = 1  # Pixels of a level that an output pixel depends on.
        for _ in range(coarsest):
            cells += 2 * (way_up + (config.upsampling == "bilinear_3x3"))
            cells = cells // 2 + 1 + 2 * (config.upsampling in ("bilinear", "bilinear_3x3"))
        return (cells - 1) * 2 ** (coarsest + 1) + encoder_field(coarsest + 1)
    factor = config.stem_factors[axis]
    if factor > 1:
        return factor * receptive_field(replace(config, stem=1), axis)
    convolutions = config.convolutions + way_up + (config.upsampling == "bilinear_3x3")
    strides = [stride[axis] for stride in config.level_strides]
    reaches = [kernel[axis] - 1 for kernel in config.level_kernels]
    units = [math.prod(strides[:level]) for level in range(coarsest + 1)]  # In input pixels.
    seen = units[-1] * (1 + reaches[-1] * (config.bottleneck_convolutions or config.convolutions))
    seen += sum(r * convolutions * u for r, u in zip(reaches[:-1], units[:-1], strict=True))
    if config.upsampling in (
        "bilinear",
        "bilinear_3x3",
    ):  # Uses neighboring pixels where it enlarges.
        seen += sum(u for s, u in zip(strides, units[1:], strict=True) if s > 1)
    return seen
