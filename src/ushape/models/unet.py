"""The U-Net, 2D and 3D, valid or padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from ushape.errors import ConfigError, PlanError
from ushape.models.decoder import Decoder, level_widths
from ushape.models.encoders import Encoder
from ushape.models.layers import CONVOLUTION, LINEAR_MODE, init_he
from ushape.models.shapes import next_legal_size, output_size, valid_margin


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a U-Net."""

    dims: Literal[2, 3] = 2
    """Spatial dimensions."""

    widths: tuple[int, ...] | Literal["auto"] = "auto"
    """Channels of each level, fine to coarse; their number is the depth."""

    convolutions: int = 2
    """3 x 3 convolutions of each level on the way down, and of the coarsest one."""

    centre_convolutions: int | None = None
    """Convolutions of the coarsest level, where it differs from the others."""

    decoder_convolutions: int | None = None
    """Convolutions of each level on the way up, where it differs from the way down."""

    decoder_widths: tuple[int, ...] | None = None
    """Channels of each level on the way up, fine to coarse and without the coarsest, where they
    differ from the way down."""

    padding: Literal["same", "valid"] = "same"
    """valid: convolutions shrink the image, as in the paper; same: zeros are added."""

    output: Literal["centre", "stretched"] = "centre"
    """What valid convolutions answer for: the centre of the image, as in the paper; or that
    centre stretched over the whole image, as a notebook has it."""

    norm: Literal["auto", "none", "batch", "instance", "group"] = "auto"
    """Normalisation after each convolution."""

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
        for name in ("convolutions", "centre_convolutions", "decoder_convolutions"):
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


class UNet(nn.Module):
    """Encoder, decoder with skip connections, and a 1 x 1 head.

    Args:
        config: Nothing in it is "auto".
        in_channels: C.
        out_channels: K.

    Shapes:
        x: (B, C, *S), every size legal (`legal_size`).
        returns: (B, K, *S') logits, S' = S - 2 margin; in training with deep supervision a
            list of logits, fine to coarse.

    Raises:
        PlanError: an illegal input size; the message names the next legal ones.

    Source:
        Ronneberger, Fischer, Brox 2015, arXiv 1505.04597.
    """

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int):
        super().__init__()
        assert config.widths != "auto", "the planner chooses the widths"
        assert config.norm != "auto", "the planner chooses the norm"
        self.config = config
        self.encoder = Encoder(config, in_channels)
        self.decoder = Decoder(config)
        head = CONVOLUTION[config.dims]
        self.heads = nn.ModuleList(
            head(width, out_channels, 1)
            for width in level_widths(config)[: 1 + config.deep_supervision]
        )
        self.margin = valid_margin(config)
        self.divisor = 2 ** (len(config.widths) - 1)
        init_he(self)

    def legal_size(self, at_least: int) -> int:
        """The smallest legal input size that is not smaller, pixels."""
        return next_legal_size(self.config, at_least)

    def output_size(self, size: int) -> int:
        """Output pixels for a legal number of input pixels."""
        return output_size(self.config, size)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self._refuse_illegal(x.shape[2:])
        levels = self.decoder(self.encoder(x))  # Coarse to fine.
        if self.training and self.config.deep_supervision:
            return [head(level) for head, level in zip(self.heads, reversed(levels), strict=False)]
        logits: Tensor = self.heads[0](levels[-1])
        if logits.shape[2:] == self._shape_of(x):
            return logits
        mode = LINEAR_MODE[self.config.dims]
        return functional.interpolate(logits, self._shape_of(x), mode=mode, align_corners=False)

    def _shape_of(self, x: Tensor) -> tuple[int, ...]:
        """Of the logits."""
        return tuple(self.output_size(size) for size in x.shape[2:])

    def _refuse_illegal(self, shape: tuple[int, ...]) -> None:
        for size in shape:
            legal = self.legal_size(size)
            if legal != size:
                raise PlanError(
                    f"The network cannot take an image of {' × '.join(map(str, shape))} pixels: "
                    f"{size} is not legal.",
                    hint=f"The next legal sizes are {legal} and {self.legal_size(legal + 1)}.",
                )
