"""Recipe: the settings of a training run, with "auto" where data and machine decide."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from ushape.config import AUTO, KNOWN, Auto
from ushape.data.pixel_weights import PixelWeightConfig
from ushape.data.preprocessing_config import PreprocessingConfig, check_mpp
from ushape.data.sampling import SamplingConfig
from ushape.data.splits import SplitConfig
from ushape.errors import ConfigError, check_range
from ushape.instances.label import ObjectConfig
from ushape.labels import LabelConfig
from ushape.losses import LossConfig
from ushape.models.config import NetworkConfig
from ushape.planning.optimizers import OPTIMIZERS, SCHEDULES
from ushape.transforms.augment import AugmentConfig
from ushape.transforms.tiling import Average, TilingConfig

Precision = Literal["fp32", "bf16", "fp64"]

Tta = Average | Literal["validated"]

MAX_SEED = 2**32
"""Seeds must be smaller, because some random generators accept no larger ones."""


MAX_WORKERS = 128
"""Maximum number of processes that load patches; each needs its own memory."""

MAX_THREADS = 1024
"""Maximum number of CPU threads."""

MAX_OF_TRAINING = {
    "minutes": 525_600,
    "epochs": 10**6,
    "steps_per_epoch": 10**6,
    "batch_size": 2**16,
    "accumulate_grad_batches": 2**16,
    "learning_rate": 1e6,
    "max_validation_cases": 2**31,
    "patience": 2**31,
}
"""Largest value of settings that must be above 0."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Duration, optimizer and hardware settings of training."""

    RENAMED: ClassVar = {
        "accumulate": "accumulate_grad_batches",
        "patience_on": "monitor",
        "keep_epochs": "save_every_epoch",
        "validation_cases": "max_validation_cases",
        "patches_from": "patch_source",
        "keep_memory": "reuse_freed_memory",
        "initial_weights=generated": "synthetic_pretrained",
    }

    minutes: float | None = None
    """Total wall time for training and evaluation in minutes, used if epochs is null; 30 if both
    are null."""

    epochs: int | None = None
    """Number of epochs, regardless of how long they take."""

    steps_per_epoch: int | Auto = AUTO
    """Optimizer steps per epoch. After each epoch, validation runs and weights are saved."""

    batch_size: int | Auto = AUTO
    """Number of patches per batch."""

    accumulate_grad_batches: int = 1
    """Number of batches whose gradients are accumulated for one optimizer step. The effective batch
    size grows by this factor, but memory use does not."""

    optimizer: str = field(default="adamw", metadata={KNOWN: OPTIMIZERS})
    """Optimizer. muon: Muon for the kernels of all convolutions except the first one and those of
    size 1, and adamw for all other parameters."""

    momentum: float = 0.9
    """Momentum of sgd, rmsprop and muon."""

    beta2: float = 0.999
    """Decay of the mean squared gradient in adamw, adam and muon."""

    initial_weights: Literal["random", "synthetic_pretrained"] | Auto = AUTO
    """Initial weights of the network. synthetic_pretrained: weights trained on synthetic images of
    cells, membranes, lines and shapes, which are included in ushape. random: random weights. auto:
    synthetic_pretrained if they fit the network."""

    compare_start: bool = True
    """Whether two short trials decide between the weights of an earlier run (--from) and the
    initial weights that would be used otherwise. false: always use the weights of the earlier
    run."""

    learning_rate: float | Auto = 2e-3
    """Highest learning rate. auto: found by a learning-rate range test before training."""

    head_lr_factor: float | Auto = AUTO
    """Learning rate of the last layer of a U-Net, relative to that of the other layers. auto: 5 if
    only the last layer begins with random weights (initial_weights, without --from), otherwise
    1."""

    encoder_lr_factor: float = 0.3
    """Learning rate of a pretrained encoder, relative to that of the other layers."""

    encoder_freeze_fraction: float = 0.0
    """Fraction of all steps, at the beginning of training, during which a pretrained encoder is
    frozen."""

    schedule: str = field(default="cosine", metadata={KNOWN: SCHEDULES})
    """Learning-rate schedule. cosine: linear warmup, then half a cosine to zero; constant: no
    change; warmup: linear warmup, then constant; polynomial: linear warmup, then
    (1 - progress)^0.9; one_cycle: one cycle up and down."""

    warmup_fraction: float = 0.05
    """Fraction of all steps used for warmup (cosine, warmup and polynomial)."""

    warmup_steps: int | None = None
    """Number of warmup steps, which overrides warmup_fraction; limited to half of all steps."""

    weight_decay: float = 0.01
    """Weight decay; decoupled in adamw and muon, added to the gradient in the other optimizers."""

    gradient_clip: float = 5.0
    """Maximum norm of the gradient; larger gradients are scaled down to it. 0: no clipping."""

    ema_decay: float | Auto = AUTO
    """Decay per step of the exponential moving average of the weights, which is validated and saved
    in their place; smaller in the first steps. 0: no averaging. auto: 0.99 if the schedule is
    constant or warmup, otherwise 0."""

    patience: int | None = None
    """Number of epochs without improvement of the monitored quantity after which training stops;
    null: never."""

    monitor: Literal["validation_score", "validation_dice", "validation_loss", "training_loss"] = (
        "validation_score"
    )
    """Quantity that is monitored for patience. validation_score: the score by which the best
    weights are selected, which is the average precision of the objects if the network learns to
    separate them, otherwise the Dice."""

    save_every_epoch: bool = False
    """Whether to save the weights of every epoch, in the subfolder `epochs` of the run."""

    max_validation_cases: int | Auto = AUTO
    """Maximum number of validation cases that are predicted after each epoch; if there are more, an
    evenly spaced subset is used."""

    precision: Precision | Auto = AUTO
    """Numeric precision. bf16: mixed precision with weights in fp32; auto: bf16 if the hardware
    supports it, otherwise fp32; on a CPU with a time limit, whichever is faster."""

    channels_last: bool | Auto = AUTO
    """Whether to use the channels-last memory layout, which is faster on most hardware. auto: yes;
    on a CPU with a time limit, only if it is faster."""

    reuse_freed_memory: bool = True
    """Whether to keep freed memory for the next step instead of returning it to the system
    (Linux with glibc only)."""

    patch_source: Literal["memory", "files"] | Auto = AUTO
    """Where patches are read from. memory: all preprocessed images, which are loaded before
    training; files: the image files, from which only the regions of the patches are read if the
    format is TIFF, Zarr, .npy or uncompressed .nii. The patches are the same. auto: memory if the
    images fill at most a quarter of the main memory."""

    workers: int | Auto = AUTO
    """Number of processes that sample and augment patches; 0: the training process does it."""

    threads: int | Auto = AUTO
    """Number of CPU threads; a different number changes the last digits of the weights. With a time
    limit, this is the maximum, and fewer threads are used while other programs use the cores. auto:
    OMP_NUM_THREADS if it is set, otherwise the number of cores that other programs leave free when
    training is planned."""

    def __post_init__(self) -> None:
        _check_known("optimizer", self.optimizer, OPTIMIZERS)
        _check_known("schedule", self.schedule, SCHEDULES)
        for name, most in MAX_OF_TRAINING.items():
            value = getattr(self, name)
            if value not in (AUTO, None) and not 0 < value <= most:
                raise ConfigError(
                    f"train.{name} is {value}; it must be a number above 0 and at most {most}.",
                    code="value_out_of_range",
                    hint="Omit it to use the default.",
                )
        if self.workers != AUTO:
            hint = "Use 0 to load patches in the training process."
            check_range("train.workers", self.workers, 0, MAX_WORKERS, hint=hint)
        if self.threads != AUTO:
            hint = "Omit it to use the cores that are free."
            check_range("train.threads", self.threads, 1, MAX_THREADS, hint=hint)
        for name in ("weight_decay", "gradient_clip"):
            check_range(f"train.{name}", getattr(self, name), 0, 1e12)
        if self.warmup_steps is not None:
            check_range("train.warmup_steps", self.warmup_steps, 0, 2**31)
        if self.head_lr_factor != AUTO:
            hint = "1 is the rate of the other layers."
            check_range("train.head_lr_factor", self.head_lr_factor, 0, 1000, hint=hint)
        check_range("train.encoder_lr_factor", self.encoder_lr_factor, 0, 1)
        check_range("train.encoder_freeze_fraction", self.encoder_freeze_fraction, 0, 1)
        for name in ("warmup_fraction", "ema_decay", "momentum", "beta2"):
            value = getattr(self, name)
            if value != AUTO and not 0 <= value < 1:
                raise ConfigError(
                    f"train.{name} is {value}, outside [0, 1).",
                    code="value_out_of_range",
                    hint="Omit it to use the default.",
                )


def _check_known(key: str, name: str, known: Collection[str]) -> None:
    """Raise ConfigError unless the table of a training setting contains its value."""
    if name not in known:
        raise ConfigError(
            f"train.{key} is {name}, which is not a known {key}.",
            code="invalid_value",
            hint=f"Known {key}s: {', '.join(known)}.",
        )


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Prediction of whole images."""

    RENAMED: ClassVar = {"average": "tta", "tune_for": "tune_metric"}

    tile_shape: tuple[int, ...] | Auto = AUTO
    """Size of the tiles in pixels. Images up to about this size are predicted in one pass. Tiles
    can be up to a quarter larger if this reduces their number."""

    tiling: TilingConfig = field(default_factory=TilingConfig)

    tta: Tta | Auto = AUTO
    """Test-time augmentation: flipped and rotated versions of the image whose predictions are
    averaged. none; mirrored: flips along mirror_axes; all_8: all symmetries of a square; rotated_7:
    seven of them; validated: mirrored if this clearly improves the scores of the validation cases,
    otherwise none."""

    mirror_axes: tuple[int, ...] | Auto = AUTO
    """Axes of the image that test-time augmentation flips, counted backwards from -1. auto: those
    that are flipped in training, or the last two if there are none."""

    tune: bool = True
    """Whether to choose thresholds and postprocessing on the validation cases after training; each
    is applied only if it clearly helps."""

    tune_metric: Literal["dice", "object_f1", "rand"] | None = None
    """Metric for which the thresholds are optimized: Dice, object F1 or V_rand. null: Dice, except
    for masks of many touching objects: the average precision of objects if the network learns to
    separate them (labels.objects), otherwise object F1, or V_rand if they fill 2D images."""

    objects: ObjectConfig = field(default_factory=ObjectConfig)
    """Definition of a single object, for instances, contours and tables."""

    largest_component: bool = False
    """Whether scores count only the largest connected component of each class per group; slices of
    equal size form a volume. The masks written by `predict` keep all components."""

    slide_mpp: float | None = None
    """Resolution in micrometers per pixel at which whole-slide images are predicted; their masks
    have the same resolution. null: the resolution used in training (preprocessing.slide_mpp or
    target_spacing_mm), otherwise the finest level."""

    def __post_init__(self) -> None:
        check_mpp("predict.slide_mpp", self.slide_mpp)
        if self.tile_shape != AUTO and min(self.tile_shape, default=0) < 1:
            raise ConfigError(
                f"predict.tile_shape is {list(self.tile_shape)}.",
                code="value_out_of_range",
                hint="Use at least one pixel along each axis, e.g. [512, 512].",
            )

    def check_dims(self, dims: int) -> None:
        """Raise ConfigError if settings for single axes do not fit images with this number of
        axes."""
        if self.tile_shape != AUTO and len(self.tile_shape) != dims:
            raise ConfigError(
                f"predict.tile_shape is {list(self.tile_shape)}, but the images have {dims} axes.",
                code="axis_count_mismatch",
                hint=f"Set {dims} numbers, in the order of the axes: y, x in images; z, y, x in "
                "volumes.",
            )
        if self.mirror_axes != AUTO and any(not -dims <= axis < 0 for axis in self.mirror_axes):
            raise ConfigError(
                f"predict.mirror_axes is {list(self.mirror_axes)}, but the images have {dims} "
                "axes.",
                code="value_out_of_range",
                hint=f"Axes are counted backwards, from -1 (x) to {-dims}.",
            )


@dataclass(frozen=True, kw_only=True)
class CodeReference:
    """Function in a Python file that created the recipe."""

    file: str
    """Name of the file, without its folder."""

    function: str
    """Name of the function."""

    checksum: str
    """SHA-256 of the file."""

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file:
            raise ConfigError(
                f"code.file is {self.file!r}, which is not the name of a file.",
                code="invalid_value",
                hint="Use a file name without a folder.",
            )

    @property
    def name(self) -> str:
        """Name of file and function, such as mine.py:small_lesions."""
        return f"{self.file}:{self.function}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run; a plan has the same settings without "auto".

    A function in a Python file can return a recipe with a custom network or loss, see
    `planning.custom_code.load_custom_recipe`.
    """

    RENAMED: ClassVar = {"preparation": "preprocessing", "weights": "pixel_weights"}

    name: str = AUTO
    """Name of the recipe, shown in the report."""

    seed: int = 0
    """Random seed for the split, weight initialization and patch sampling."""

    code: CodeReference | None = None
    """Python function that created this recipe (--recipe FILE.py:FUNCTION)."""

    groups: str | None = None
    """How to group cases so that a group never spans two splits: a regular expression matched
    against case IDs, where the first group in parentheses or the whole match is the group; a table
    column; or none, to treat every image as its own group. null: taken from the data, or
    inferred."""

    start_from: str | None = None
    """Run folder or .safetensors file with the initial weights (--from); null: those of
    train.initial_weights. Network settings that are omitted are those of the run."""

    settings_file: str | None = None
    """Name and checksum of the file stored with the data whose settings this recipe contains."""

    labels: LabelConfig = field(default_factory=LabelConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig | Auto = AUTO
    """Random augmentation of patches. auto: as strong as the symmetry of the data allows."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    pixel_weights: PixelWeightConfig = field(default_factory=PixelWeightConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, MAX_SEED - 1, hint="Leave it out for 0.")


def with_some_rate(recipe: Recipe) -> Recipe:
    """Return the recipe with a provisional learning rate if a range test is to choose it."""
    if recipe.train.learning_rate != AUTO:
        return recipe
    return replace(recipe, train=replace(recipe.train, learning_rate=1e-3))


_RARE_KEYS_OF_SECTION = {
    "labels": "softmax",
    "preprocessing": "crop square divide_above_px",
    "sampling": "class_ratios",
    "augment.geometry": "elastic_grid elastic_sigma_px interpolation",
    "augment.intensity": "one_of",
    "network": "convolutions bottleneck_convolutions decoder_convolutions decoder_widths "
    "valid_output bias activation dropout_position downsampling upsampling block deep_supervision",
    "loss": "smooth focal_gamma tversky_alpha tversky_beta",
    "train": "steps_per_epoch head_lr_factor momentum beta2 warmup_fraction "
    "warmup_steps monitor save_every_epoch max_validation_cases channels_last reuse_freed_memory "
    "patch_source workers threads",
    "predict": "mirror_axes tune_metric",
}
RARE_KEYS = {"code", "settings_file"} | {
    f"{section}.{key}" for section, keys in _RARE_KEYS_OF_SECTION.items() for key in keys.split()
}
"""Keys that mostly serve to reproduce published recipes, or that the planner handles well;
`ushape recipes NAME` leaves them out unless they differ from their defaults."""
