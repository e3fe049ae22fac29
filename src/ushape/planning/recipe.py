"""Recipe: what is meant, with "auto" where the data and the machine shall decide."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from ushape.config import AUTO, Auto
from ushape.data.pixel_weights import PixelWeightConfig
from ushape.data.preprocessing import PreprocessingConfig
from ushape.data.sampling import SamplingConfig
from ushape.data.splits import SplitConfig
from ushape.errors import ConfigError
from ushape.instances.label import ObjectConfig
from ushape.labels import LabelConfig
from ushape.losses import LossConfig
from ushape.models.config import NetworkConfig
from ushape.transforms.augment import AugmentConfig
from ushape.transforms.symmetry import Average
from ushape.transforms.tiling import TilingConfig

MAX_SEED = 2**32
"""What all random generators take."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast and with what the network is trained."""

    RENAMED: ClassVar = {"accumulate": "accumulate_grad_batches"}

    minutes: float | None = None
    """Wall time for training and evaluation together. Used when epochs is not set; None: 30."""

    epochs: int | None = None
    """Number of epochs, whatever time they take."""

    steps_per_epoch: int | Auto = AUTO
    """Optimizer steps in an epoch; weights are validated and saved after each."""

    batch_size: int | Auto = AUTO
    """Patches that are computed at once."""

    accumulate_grad_batches: int = 1
    """Batches whose gradients are averaged for one step: the effective batch is so many times
    larger than the memory that it needs."""

    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """How the weights follow their gradients."""

    momentum: float = 0.9
    """Of sgd and rmsprop."""

    learning_rate: float | Auto = 2e-3
    """Highest learning rate. auto: found by a range test before the training."""

    schedule: Literal["cosine", "constant", "warmup", "polynomial", "one_cycle"] = "cosine"
    """How the learning rate goes over all steps: a rise, then half a cosine to zero; the same
    all the time; a rise, then the same; a rise, then (1 - progress)^0.9; one cycle up and down."""

    warmup_fraction: float = 0.05
    """Share of all steps in which the learning rate rises (cosine, warmup, polynomial)."""

    warmup_steps: int | None = None
    """Steps in which it rises, instead of a share; at most half of all."""

    weight_decay: float = 0.01
    """Decoupled in adamw; part of the gradient in the others."""

    gradient_clip: float = 5.0
    """Largest gradient norm; larger ones are shortened to it. 0 switches it off."""

    ema_decay: float | Auto = AUTO
    """The weights that are validated and kept are an exponential moving average of the
    trained ones, with this decay per step (less in the first steps); 0 switches it off. auto:
    0.99 where the learning rate does not go down to zero by itself."""

    patience: int | None = None
    """Stop after so many epochs without a better `patience_on`; None: never."""

    patience_on: Literal["validation_dice", "validation_loss", "training_loss"] = "validation_dice"
    """What must get better."""

    keep_epochs: bool = False
    """Also keeps the weights of every epoch, in the run's folder epochs."""

    validation_cases: int | Auto = AUTO
    """At most so many validation cases, evenly spread, are predicted after each epoch."""

    precision: Literal["auto", "fp32", "bf16", "fp64"] = AUTO
    """bf16: mixed precision; weights stay in fp32. auto: where the processor has it."""

    channels_last: bool = True
    """Memory layout with channels innermost; faster almost everywhere."""

    keep_memory: bool = True
    """Keeps freed memory for the next step instead of returning it to the system (glibc)."""

    workers: int | Auto = AUTO
    """Processes that cut and augment patches; 0: the training process itself."""

    def __post_init__(self) -> None:
        for name, hint in (
            ("minutes", "Leave it out for 30 minutes."),
            ("epochs", "Leave it out, and say how many minutes."),
            ("steps_per_epoch", "Leave it out for auto."),
            ("batch_size", "Leave it out for auto."),
            ("accumulate_grad_batches", "1 is usual."),
            ("learning_rate", "Leave it out for 0.002; auto makes a range test."),
        ):
            value = getattr(self, name)
            if value not in (AUTO, None) and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"train.{name} is {value}; it must be above 0.", hint=hint)
        if self.workers != AUTO and self.workers < 0:
            raise ConfigError(
                f"train.workers is {self.workers}.", hint="0 loads in the training process."
            )
        for name in ("warmup_fraction", "ema_decay", "momentum"):
            value = getattr(self, name)
            if value != AUTO and not 0 <= value < 1:
                raise ConfigError(
                    f"train.{name} is {value}, outside [0, 1).",
                    hint="Leave it out for the default.",
                )


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a whole image is predicted."""

    RENAMED: ClassVar = {"average": "tta"}

    tile_shape: tuple[int, ...] | Auto = AUTO
    """Images up to about this size are predicted in one pass, larger ones in tiles of about it: up
    to a quarter larger where fewer tiles then do."""

    tiling: TilingConfig = field(default_factory=TilingConfig)

    tta: Average | Auto = AUTO
    """Which turned versions of the image are predicted as well and averaged: none; mirrored
    along mirror_axes; all 8 symmetries of a square; or 7 of these."""

    mirror_axes: tuple[int, ...] = (-2, -1)
    """Axes of S, where tta is mirrored."""

    tune: bool = True
    """After training, validation chooses thresholds and cleaning, where these clearly help."""

    objects: ObjectConfig = field(default_factory=ObjectConfig)
    """What is one object, for instances, contours and tables."""

    largest_component: bool = False
    """When a group is scored, only the largest connected part of each class counts, slices of one
    size taken as a volume. Masks that `predict` writes keep all parts."""

    def __post_init__(self) -> None:
        if self.tile_shape != AUTO and min(self.tile_shape, default=0) < 1:
            raise ConfigError(
                f"predict.tile_shape is {list(self.tile_shape)}.",
                hint="At least one pixel along each axis, e.g. [512, 512].",
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that can be set; in a plan nothing of it is "auto"."""

    RENAMED: ClassVar = {"preparation": "preprocessing", "weights": "pixel_weights"}

    name: str = AUTO
    """The recipe's name, for the report."""

    seed: int = 0
    """Fixes the split, the first weights and every patch."""

    labels: LabelConfig = field(default_factory=LabelConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig | Auto = AUTO
    """Random changes of patches; auto: as much as the data's symmetry allows."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    pixel_weights: PixelWeightConfig = field(default_factory=PixelWeightConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < MAX_SEED:
            raise ConfigError(
                f"seed is {self.seed}.", hint=f"A whole number from 0 to {MAX_SEED - 1}."
            )


def with_some_rate(recipe: Recipe) -> Recipe:
    """The recipe with a learning rate to plan with, until the range test has found its own."""
    if recipe.train.learning_rate != AUTO:
        return recipe
    return replace(recipe, train=replace(recipe.train, learning_rate=1e-3))
