"""Convolutions, norms, pooling and upsampling for 2D and 3D."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Layer = Callable[..., nn.Module]


class MaxPool3d(nn.MaxPool3d):
    """Maximum over blocks of 1 or 2 voxels along each axis, fast in a prediction on a CPU.

    PyTorch 2.13 visits the voxels of a volume one by one on a CPU. The maximum of pairs along one
    axis after the other takes a fifth of the time (benchmarks/README.md, A step in 3D), but its
    gradients would take longer than those of PyTorch.

    Shapes:
        x: (B, C, *S) -> (B, C, *S / kernel_size); every size is a multiple of the kernel's.
    """

    def forward(self, x: Tensor) -> Tensor:
        needs_gradient = torch.is_grad_enabled() and x.requires_grad
        is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if x.device.type != "cpu" or needs_gradient or is_traced:
            return super().forward(x)
        assert isinstance(self.kernel_size, tuple)
        for axis, factor in enumerate(self.kernel_size, start=2):
            if factor == 2:
                x = torch.maximum(*x.unflatten(axis, (-1, 2)).unbind(axis + 1))
        return x


CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL: dict[int, Layer] = {2: nn.MaxPool2d, 3: MaxPool3d}
AVERAGE_POOL: dict[int, Layer] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
DROPOUT: dict[int, Layer] = {2: nn.Dropout2d, 3: nn.Dropout3d}
BATCH_NORM: dict[int, Layer] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR_MODE = {2: "bilinear", 3: "trilinear"}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
}


class InstanceNorm(nn.Module):
    """Instance norm, computed as the batch norm of each image separately.

    PyTorch's instance norm, and batch norm over a (1, B * C, *S) view, lose the channels-last
    layout, which slows down the convolutions that follow on a CPU; with channels first, the view is
    used because it saves copies. On a GPU the fewer kernels of PyTorch's instance norm are worth
    more (benchmarks/README.md, Norm on a GPU). A single pixel becomes the offset.

    Shapes:
        x: (B, C, *S) -> (B, C, *S), in the memory format of x.

    Source:
        Ulyanov et al. 2016, arXiv 1607.08022.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Unlike these functions, those of torch.nn.functional refuse a single pixel, which can be a
        # legal size.
        if x.is_cuda:
            return torch.instance_norm(
                x,
                self.weight,
                self.bias,
                running_mean=None,
                running_var=None,
                use_input_stats=True,
                momentum=0.0,
                eps=self.eps,
                cudnn_enabled=torch.backends.cudnn.enabled,
            )
        if x.is_contiguous() and len(x) > 1:
            # A view would have to be copied before the activation changes it in place.
            flat = self._norm_channels(x.reshape(1, -1, *x.shape[2:]), len(x))
            result: Tensor = torch.ops.aten._unsafe_view(flat, x.shape)
            return result
        images = [self._norm_channels(image) for image in x.split(1)]
        return torch.cat(images) if len(images) > 1 else images[0]  # Saves a copy.

    def _norm_channels(self, image: Tensor, images: int = 1) -> Tensor:
        """Norm the channels of one image, or of several that are joined, (1, images * C, *S)."""
        return torch.batch_norm(
            image,
            self.weight.repeat(images),
            self.bias.repeat(images),
            running_mean=None,
            running_var=None,
            training=True,
            momentum=0.0,
            eps=self.eps,
            cudnn_enabled=torch.backends.cudnn.enabled,
        )


def space_to_depth(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Move blocks of pixels into channels.

    Args:
        factors: Size of a block along each axis of S.

    Shapes:
        x: (B, C, *S) -> (B, C * product of factors, *S / factors).
    """
    if x.dim() == 4 and len(set(factors)) == 1:
        return functional.pixel_unshuffle(x, factors[0])
    batch, channels, *shape = x.shape
    coarse = [size // factor for size, factor in zip(shape, factors, strict=True)]
    pairs = [part for pair in zip(coarse, factors, strict=True) for part in pair]
    inside = range(3, 3 + len(pairs), 2)
    order = (0, 1, *inside, *(axis - 1 for axis in inside))
    return x.reshape(batch, channels, *pairs).permute(order).reshape(batch, -1, *coarse)


def depth_to_space(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Move channels into blocks of pixels; the inverse of `space_to_depth`.

    Source:
        Shi et al. 2016, arXiv 1609.05158 (sub-pixel convolution).
    """
    if x.dim() == 4 and len(set(factors)) == 1:
        return functional.pixel_shuffle(x, factors[0])
    batch, channels, *coarse = x.shape
    dims = len(coarse)
    blocks = x.reshape(batch, channels // math.prod(factors), *factors, *coarse)
    order = [0, 1, *(part for axis in range(2, 2 + dims) for part in (axis + dims, axis))]
    shape = [size * factor for size, factor in zip(coarse, factors, strict=True)]
    return blocks.permute(order).reshape(batch, -1, *shape)


def normalizes_by_input(network: nn.Module) -> bool:
    """Return whether a layer of a network normalizes by the pixels that it receives."""
    kinds = (InstanceNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.InstanceNorm3d)
    return any(isinstance(layer, kinds) for layer in network.modules())


def build_norm(name: str, channels: int, dims: int) -> nn.Module:
    """Build the norm after a convolution; group norm has 8 groups if the channels allow it."""
    if name == "batch":
        return BATCH_NORM[dims](channels)
    if name == "instance":
        return InstanceNorm(channels)
    if name == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return nn.Identity()


class Resize(nn.Module):
    """Upsampling by a factor for each axis without parameters."""

    def __init__(self, mode: str, factors: Sequence[int]):
        super().__init__()
        self.mode, self.factors = mode, tuple(float(factor) for factor in factors)

    def forward(self, x: Tensor) -> Tensor:
        align: Any = None if self.mode == "nearest" else True
        return functional.interpolate(
            x, scale_factor=self.factors, mode=self.mode, align_corners=align
        )


def repeat_outputs(convolution: nn.Module, count: int) -> None:
    """Give each `count` outputs that follow each other the same weights.

    A head whose outputs become the pixels of blocks then begins without a pattern in these blocks.

    Source:
        Aitken et al. 2017, arXiv 1707.02937 (checkerboard-free sub-pixel convolution).
    """
    assert isinstance(convolution, (nn.Conv2d, nn.Conv3d))
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight[::count].repeat_interleave(count, dim=0))


def init_normal(weight: Tensor, std: float) -> None:
    """Draw weights with mean 0; those on the meta device have no values.

    PyTorch would load its compiler to draw them there, which takes more than a second.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, std=std)


def init_he(module: nn.Module) -> None:
    """Draw normal weights with std sqrt(2 / N), N = kernel area x input channels; set biases to 0.

    Source:
        He et al. 2015, arXiv 1502.01852; Ronneberger et al. 2015, section 3.
    """
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for layer in module.modules():
        if isinstance(layer, kinds):
            fan_in = math.prod(layer.kernel_size) * layer.in_channels
            init_normal(layer.weight, math.sqrt(2 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
