"""The U-Net, 2D and 3D, valid or padded."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ushape.errors import PlanError
from ushape.models.config import UNetConfig
from ushape.models.decoder import Decoder, level_widths
from ushape.models.encoders import Encoder
from ushape.models.layers import CONVOLUTION, LINEAR_MODE, init_he
from ushape.models.sizes import next_legal_size, output_size, valid_margin


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
