"""Configuration of the U-Net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ushape.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a U-Net."""

    RENAMED: ClassVar = {"centre_convolutions": "center_convolutions", "output=centre": "center"}

    dims: Literal[2, 3] = 2
    """Spatial dimensions."""

    widths: tuple[int, ...] | Literal["auto"] = "auto"
    """Channels of each level, fine to coarse; their number is the depth."""

    convolutions: int = 2
    """3 x 3 convolutions of each level on the way down, and of the coarsest one."""

    center_convolutions: int | None = None
    """Convolutions of the coarsest level, where it differs from the others."""

    decoder_convolutions: int | None = None
    """Convolutions of each level on the way up, where it differs from the way down."""

    decoder_widths: tuple[int, ...] | None = None
    """Channels of each level on the way up, fine to coarse and without the coarsest, where they
    differ from the way down."""

    padding: Literal["same", "valid"] = "same"
    """valid: convolutions shrink the image, as in the paper; same: zeros are added."""

    output: Literal["center", "stretched"] = "center"
    """What valid convolutions answer for: the center of the image, as in the paper; or that
    center stretched over the whole image, as a notebook has it."""

    norm: Literal["auto", "none", "batch", "instance", "group"] = "auto"
    """Normalization after each convolution."""

    bias: Literal["where_no_norm", "always"] = "where_no_norm"
    """Which 3 x 3 convolutions have a bias; a norm has an offset of its own, so that always
    serves published networks only."""

    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = "relu"

    dropout: float = 0.0
    """Share of channels that are dropped in training."""

    dropout_place: Literal["between", "after", "bottom"] = "bottom"
    """Between the convolutions of each level; after each level; after the two coarsest ones."""

    down: Literal["max_pool", "average_pool", "stride"] = "max_pool"
    """How a level is halved."""

    up: Literal["transposed", "bilinear", "nearest", "bilinear_3x3"] = "transposed"
    """How a level is doubled: transposed convolution to half the channels; interpolation;
    interpolation and a 3 x 3 convolution (padding, norm, activation as anywhere) to half."""

    block: Literal["plain", "residual"] = "plain"
    """residual: each level's input is added to its output."""

    deep_supervision: int = 0
    """Further heads on the decoder's coarser levels, for training."""

    def __post_init__(self) -> None:
        if self.widths != "auto" and (len(self.widths) < 2 or min(self.widths) < 1):
            raise ConfigError(
                f"network.widths is {list(self.widths)}.",
                hint="At least two levels of at least one channel, e.g. [32, 64, 128, 256].",
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                f"network.dropout is {self.dropout}, outside [0, 1).", hint="0 switches it off."
            )
        if self.block == "residual" and self.padding == "valid":
            raise ConfigError(
                "network.block residual needs network.padding same.",
                hint="Valid convolutions shrink the image, so nothing could be added to it.",
            )
        if self.deep_supervision and self.padding == "valid":
            raise ConfigError(
                "network.deep_supervision needs network.padding same.",
                hint="Valid heads cover different areas, so one target cannot serve them all.",
            )
        self._check_decoder_widths()
        for name in ("convolutions", "center_convolutions", "decoder_convolutions"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"network.{name} is {value}.", hint="1 is the fewest.")
        levels = 99 if self.widths == "auto" else len(self.widths) - 2
        if not 0 <= self.deep_supervision <= levels:
            raise ConfigError(
                f"network.deep_supervision is {self.deep_supervision}, outside 0 to {levels}.",
                hint="There is one further head at most for each inner level of the decoder.",
            )

    def _check_decoder_widths(self) -> None:
        if self.decoder_widths is None:
            return
        levels = 0 if self.widths == "auto" else len(self.widths) - 1
        if len(self.decoder_widths) != levels or min(self.decoder_widths, default=0) < 1:
            raise ConfigError(
                f"network.decoder_widths is {list(self.decoder_widths)}, network.widths "
                f"{self.widths if self.widths == 'auto' else list(self.widths)}.",
                hint="Give both, decoder_widths with one level fewer, each of at least 1 channel.",
            )
