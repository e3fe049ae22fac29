"""EfficientNet-Lite0: an encoder for which ImageNet weights with a free license exist.

Modules and weights have the names of timm's tf_efficientnet_lite0, so that its files fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ushape.models.depthwise import depthwise_convolution
from ushape.models.layers import init_normal

STEM = 32
"""Channels of the first convolution."""

STAGES = (
    # Repeats, kernel size, stride, expansion, channels.
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

LEVEL_ENDS = (0, 1, 2, 4, 6)
"""Last stage of each level of `ENCODER_WIDTHS`."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the pixels of ImageNet, from 0 to 1, in red, green and blue."""

EPS = 1e-3
"""Constant of batch norm in the TensorFlow implementation that the weights come from."""


class SameConvolution(nn.Conv2d):
    """Convolution without bias whose zero padding is that of TensorFlow ("same").

    With a stride of 2, one more row is added below the image than above it, and one more column on
    the right than on the left.

    Shapes:
        x: (B, in, H, W) -> (B, out, H / stride, W / stride); H and W are multiples of the stride.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
    ):
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        added = kernel - stride
        before = added // 2
        self.is_even = before == added - before
        self.before = before if self.is_even else 0
        self.around = (before, added - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, None)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.is_even:
            x = functional.pad(x, self.around)
        if self.groups > 1:
            return depthwise_convolution(x, weight, bias, self.stride[0], self.before)
        return functional.conv2d(x, weight, bias, self.stride, self.before)

    def then(self, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Return norm(self(x)); fixed statistics become part of the weights, which is faster."""
        if norm.training:
            return norm(self(x))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        return self._convolve(x, self.weight * scale.view(-1, 1, 1, 1), bias)


class SeparableBlock(nn.Module):
    """Depthwise convolution, then a 1 x 1 convolution without activation.

    Shapes:
        x: (B, in, H, W) -> (B, out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.conv_dw = SameConvolution(in_channels, in_channels, kernel, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels, EPS)
        self.conv_pw = SameConvolution(in_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.conv_dw.then(self.bn1, x), inplace=True)
        return self.conv_pw.then(self.bn2, x)


class InvertedResidual(nn.Module):
    """1 x 1 convolution to more channels, depthwise convolution, 1 x 1 convolution to fewer.

    The input is added to the output if both have the same shape.

    Shapes:
        x: (B, in, H, W) -> (B, out, H / stride, W / stride).

    Source:
        Sandler et al. 2018 (MobileNetV2), arXiv 1801.04381.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ):
        super().__init__()
        inner = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.conv_pw = SameConvolution(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner, EPS)
        self.conv_dw = SameConvolution(inner, inner, kernel, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner, EPS)
        self.conv_pwl = SameConvolution(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu6(self.conv_pw.then(self.bn1, x), inplace=True)
        inner = functional.relu6(self.conv_dw.then(self.bn2, inner), inplace=True)
        result = self.conv_pwl.then(self.bn3, inner)
        return x + result if self.has_shortcut else result


class EfficientNetLite0(nn.Module):
    """Features of an image at 1/2 to 1/32 of its size, without the classifier.

    Args:
        in_channels: Channels C of the image.
        levels: Number of levels, 1 to 5.
        fixed_norm: Whether batch norm uses its running statistics in training too, as is usual
            for pretrained weights: the statistics of batches of a few patches are worse.

    Shapes:
        x: (B, C, H, W), H and W multiples of 2^levels.
        returns: one (B, ENCODER_WIDTHS[i], H / 2^(i + 1), W / 2^(i + 1)) per level, fine to coarse.

    Source:
        Tan and Le 2019, arXiv 1905.11946; the lite models of github.com/tensorflow/tpu have
        neither squeeze-and-excitation nor swish.
    """

    def __init__(self, in_channels: int, levels: int = 5, *, fixed_norm: bool = False):
        super().__init__()
        self.fixed_norm = fixed_norm
        self.conv_stem = SameConvolution(in_channels, STEM, 3, 2)
        self.bn1 = nn.BatchNorm2d(STEM, EPS)
        self.blocks = nn.ModuleList()
        self.ends = LEVEL_ENDS[:levels]
        channels = STEM
        for repeats, kernel, stride, expansion, width in STAGES[: self.ends[-1] + 1]:
            stage = nn.Sequential()
            for index in range(repeats):
                stage.append(
                    SeparableBlock(channels, width, kernel)
                    if expansion == 1
                    else InvertedResidual(
                        channels, width, kernel, 1 if index else stride, expansion
                    )
                )
                channels = width
            self.blocks.append(stage)
        self.train()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Set the mode of training; with `fixed_norm`, the encoder stays in evaluation mode."""
        return super().train(mode and not self.fixed_norm)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.relu6(self.conv_stem.then(self.bn1, x), inplace=True)
        features = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in self.ends:
                features.append(x)
        return features


def place_of_block(number: int) -> tuple[int, int]:
    """Return the stage of a block that is counted over all stages, and its index in the stage."""
    for stage, (repeats, *_) in enumerate(STAGES):
        if number < repeats:
            return stage, number
        number -= repeats
    return len(STAGES), number


def init_weights(encoder: EfficientNetLite0) -> None:
    """Draw normal weights with std sqrt(2 / N), N = kernel area x output channels of a group.

    Source:
        Tan and Le 2019, as implemented in github.com/tensorflow/tpu.
    """
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            init_normal(layer.weight, math.sqrt(2 / fan_out))


def take_standardized(weights: Mapping[str, Tensor], *, is_min_max: bool) -> dict[str, Tensor]:
    """Adapt weights for images of (pixel - 127) / 128 to images as ushape normalizes them.

    A standardized image does not tell the values of its pixels. Each channel is therefore given the
    mean and the standard deviation of ImageNet, to which the fixed statistics of batch norm belong.
    The scale becomes part of the first convolution, and the offset part of the mean that its norm
    subtracts, so that neither takes time.

    Args:
        weights: Tensors of `EfficientNetLite0` for three channels.
        is_min_max: Whether images have values from 0 to 1 instead of mean 0 and deviation 1.
    """
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    if is_min_max:
        mean, std = torch.zeros(3), torch.ones(3)
    scale, offset = std * 255 / 128, (mean * 255 - 127) / 128
    kernel = weights["conv_stem.weight"]
    added = (kernel * offset.view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    return {
        **weights,
        "conv_stem.weight": kernel * scale.view(1, 3, 1, 1),
        "bn1.running_mean": weights["bn1.running_mean"] - added,
    }


def encoder_field(levels: int) -> int:
    """Return how many pixels along one axis a value of the coarsest level depends on."""
    seen, step = 3, 2
    for repeats, kernel, stride, _, _ in STAGES[: LEVEL_ENDS[:levels][-1] + 1]:
        for index in range(repeats):
            seen += (kernel - 1) * step
            step *= 1 if index else stride
    return seen
