"""Recipe: what is meant, with "auto" where the data and the machine shall decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from ushape.augment import AugmentConfig
from ushape.data.prepare import PreparationConfig
from ushape.data.sampling import SamplingConfig
from ushape.data.splits import SplitConfig
from ushape.errors import ConfigError
from ushape.labels import LabelConfig
from ushape.losses import LossConfig
from ushape.models.unet import UNetConfig
from ushape.spatial.tiles import TilingConfig

AUTO: Final = "auto"
Auto = Literal["auto"]
T = TypeVar("T")


def settled(value: T | Auto) -> T:
    """The value of a setting in a plan, where nothing is "auto" any more."""
    assert value != AUTO, "the planner leaves nothing open"
    return value


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast and with what the network is trained."""

    minutes: float | None = None
    """Wall time for training and evaluation together. Used when epochs is not set; None: 30."""

    epochs: int | None = None
    """Number of epochs, whatever time they take."""

    steps_per_epoch: int | Auto = AUTO
    """Optimiser steps in an epoch; weights are validated and saved after each."""

    batch_size: int | Auto = AUTO
    """Patches in a step."""

    learning_rate: float | Auto = AUTO
    """Highest learning rate (AdamW); it warms up first, then falls to zero along a cosine."""

    warmup_fraction: float = 0.05
    """Share of all steps in which the learning rate rises."""

    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""

    gradient_clip: float = 5.0
    """Largest gradient norm; larger ones are shortened to it."""

    ema_decay: float = 0.99
    """The weights that are validated and kept are an exponential moving average of the
    trained ones, with this decay per step (less in the first steps); 0 switches it off."""

    patience: int | None = None
    """Stop after so many epochs without a better validation Dice; None: never."""

    validation_cases: int | Auto = AUTO
    """At most so many validation cases, evenly spread, are predicted after each epoch."""

    precision: Literal["auto", "fp32", "bf16"] = AUTO
    """bf16: mixed precision; weights stay in fp32. auto: where the processor has it."""

    channels_last: bool = True
    """Memory layout with channels innermost; faster almost everywhere."""

    keep_memory: bool = True
    """Keeps freed memory for the next step instead of returning it to the system (glibc)."""

    workers: int | Auto = AUTO
    """Processes that cut and augment patches; 0: the training process itself."""

    def __post_init__(self) -> None:
        for name in ("minutes", "epochs", "steps_per_epoch", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if value not in (AUTO, None) and not value > 0:
                raise ConfigError(
                    f"train.{name} is {value}; it must be above 0.", hint="Leave it out for auto."
                )
        for name in ("warmup_fraction", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"train.{name} is {getattr(self, name)}, outside [0, 1).",
                    hint="Leave it out for the default.",
                )


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a whole image is predicted."""

    tile_shape: tuple[int, ...] | Auto = AUTO
    """Images up to this size are predicted in one pass, larger ones in tiles of it."""

    tiling: TilingConfig = field(default_factory=TilingConfig)

    mirror_axes: tuple[int, ...] | Auto = AUTO
    """Axes of S along which the image is also predicted mirrored, all results averaged."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that can be set; in a plan nothing of it is "auto"."""

    name: str = AUTO
    """The recipe's name, for the report."""

    seed: int = 0
    """Fixes the split, the first weights and every patch."""

    labels: LabelConfig = field(default_factory=LabelConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig | Auto = AUTO
    """Random changes of patches; auto: as much as the data's symmetry allows."""

    network: UNetConfig = field(default_factory=UNetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
