"""Plan: a recipe without "auto", and the facts about data and machine that it depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ushape import config
from ushape.config import AUTO, resolved
from ushape.data.preprocessing import Preprocessing
from ushape.errors import ConfigError, RunError
from ushape.formatting import pluralize
from ushape.io import is_writable
from ushape.io.files import CHECKSUM, read_json
from ushape.labels import IGNORE, LabelSpace
from ushape.planning.encoder_weights import EncoderWeights
from ushape.planning.hardware import Machine
from ushape.planning.recipe import Recipe
from ushape.transforms.augment import AugmentConfig
from ushape.types import MaskEncoding

PLAN_VERSION = 1

MAX_CHANNELS = 4096
"""Maximum number of channels of an image."""

SHOWN_NAMES = 3
"""Number of tensors that a message lists."""

MAX_SIDE = 2**20
"""Largest side of a patch, a tile or a resized image in pixels."""


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """File of weights that training starts from, and how it fits the network."""

    path: str
    checksum: str
    """SHA-256 of the file in hexadecimal."""

    loaded: int
    """Number of tensors that are taken over, adapted ones included."""

    tensors: int
    """Number of tensors of the network."""

    adapted: tuple[str, ...]
    """What is converted to another number of channels or classes: parts or names of tensors."""

    fresh: tuple[str, ...]
    """What has random initial values: parts or names of tensors."""

    seen_validation: int = 0
    """Number of validation images that the weights were trained or selected on."""

    seen_test: int = 0
    """Number of test images that the weights were trained or selected on."""

    is_history_known: bool = True
    """Whether it is known on which images the weights were trained."""

    @property
    def text(self) -> str:
        parts = ""
        for what, names in (("adapted", self.adapted), ("fresh", self.fresh)):
            rest = len(names) - SHOWN_NAMES
            more = f" and {rest} more" if rest > 0 else ""
            parts += f"; {what}: {', '.join(names[:SHOWN_NAMES])}{more}" if names else ""
        name = "/".join(Path(self.path).parts[-2:])
        return (
            f"Start: loaded {self.loaded} of {self.tensors} tensors from {name} (SHA-256 "
            f"{self.checksum[:12]}){parts}."
        )

    @property
    def warning(self) -> str:
        """Sentences about images that the weights have seen; '' if there are none for certain."""
        found = []
        if self.seen_test:
            found.append(
                f"Warning: {pluralize(self.seen_test, 'test image')} also trained or selected "
                "these weights, so the scores do not apply to new images. To keep the split of the "
                "earlier run, pass its splits.json with --splits."
            )
        if self.seen_validation:
            found.append(
                f"{pluralize(self.seen_validation, 'validation image')} also trained or selected "
                "these weights, which favors them in the comparison."
            )
        if not self.is_history_known:
            found.append(
                "Warning: It is not known on which images these weights were trained. If test "
                "images were among them, the scores do not apply to new images."
            )
        return " ".join(found)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that training and prediction need to know."""

    RENAMED: ClassVar = {"preparation": "preprocessing"}

    recipe: Recipe
    preprocessing: Preprocessing
    encoding: MaskEncoding
    """Encoding of predictions, which is that of the user's masks."""

    machine: Machine
    """Machine on which the plan was made."""

    evaluation_s: float
    """Seconds of the time limit that are reserved for evaluation and report."""

    group_noun: str
    """Plural noun for the groups of the data, such as "patients" or "images"."""

    reasons: tuple[str, ...]
    """Descriptions of the decisions, one line each."""

    start: StartingWeights | None = None
    """File of weights that training starts from; None: `train.initial_weights`."""

    group_rule: str | None = None
    """Regular expression that derives the inferred groups from the names of images; None: the
    groups are specified, or no simple rule derives them."""

    validation_s: float = 0.0
    """Expected seconds of each validation if training has a time limit; 0: unknown."""

    encoder: EncoderWeights | None = None
    """Weights that a pretrained encoder starts from; None: there is none."""

    version: int = PLAN_VERSION

    def __post_init__(self) -> None:
        left = find_auto(config.to_dict(self.recipe))
        assert not left, f"the planner left {left} open"

    def __repr__(self) -> str:
        recipe = self.recipe
        return f"Plan({recipe.name!r}, patch={self.patch_shape}, epochs={recipe.train.epochs})"

    @property
    def augment(self) -> AugmentConfig:
        return resolved(self.recipe.augment)

    @property
    def image_dims(self) -> int:
        """Number of spatial axes of the images; 3 for volumes that are predicted slice by slice."""
        return self.recipe.network.dims + self.preprocessing.by_slice

    @property
    def patch_shape(self) -> tuple[int, ...]:
        return resolved(self.recipe.sampling.patch_shape)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        return resolved(self.recipe.predict.tile_shape)

    def to_dict(self) -> dict[str, Any]:
        return config.to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str) -> Plan:
        """Build a plan from the values of a file.

        Raises:
            RunError: if the values are not a plan, or were written by another version.
            ConfigError: if a key is unknown or a value impossible.
        """
        if not isinstance(values, dict):
            raise RunError(
                f"{source} does not contain a plan.",
                code="invalid_plan",
                hint="Copy the complete run folder again.",
            )
        if values.get("version") != PLAN_VERSION:
            raise RunError(
                f"{source} has version {values.get('version')}; this version of ushape reads "
                f"{PLAN_VERSION}.",
                code="unsupported_version",
                hint="Use the version of ushape that trained the run, or train again.",
            )
        values = config.with_current_names(cls, values)
        _complete_older(values)
        if left := find_auto(values.get("recipe")):
            raise _invalid(source, f'{left[0]} is "auto"')
        plan = config.from_dict(cls, values, source=source)
        if problem := next(_problems_of(plan), None):
            raise _invalid(source, problem)
        return plan


OLDER_NETWORK = {
    "stem": 1,
    "strides": "equal",
    "kernels": "equal",
    "deep_supervision": 0,
    "encoder": "none",
    "encoder_weights": "none",
}
"""Settings of the network in plans of earlier versions that lack them."""


MAY_BE_AUTO = ("name", "train.patch_source")
"""Keys of a recipe in a plan that may be "auto": its name, and, in plans of earlier versions, where
patches come from, which is then decided when the cases are loaded."""


def _complete_older(values: dict[str, Any]) -> None:
    """Add the settings that plans of earlier versions lack, and whose default is open.

    Keys and values have their current names.
    """
    recipe = values.get("recipe")
    network = recipe.get("network") if isinstance(recipe, dict) else None
    if isinstance(network, dict):
        for key, value in OLDER_NETWORK.items():
            network.setdefault(key, value)
    predict = recipe.get("predict") if isinstance(recipe, dict) else None
    if isinstance(predict, dict):
        predict.setdefault("mirror_axes", [-2, -1])
    if isinstance(recipe, dict):
        split = recipe.setdefault("split", {})
        if isinstance(split, dict):
            split.setdefault("stratify_classes", False)
        labels = recipe.setdefault("labels", {})
        if isinstance(labels, dict):
            labels.setdefault("objects", "connected")
        preprocessing = recipe.get("preprocessing")
        if isinstance(preprocessing, dict):
            preprocessing.setdefault("spacing_mm", None)
            preprocessing.setdefault("target_spacing_mm", None)
            preprocessing.setdefault("distances", "pixels")
            preprocessing.setdefault("slices", None)
            preprocessing.setdefault("divide_above_px", None)
    own = values.get("preprocessing")
    if isinstance(own, dict) and isinstance(settings := own.get("config"), dict):
        settings.setdefault("target_spacing_mm", None)
        settings.setdefault("distances", "pixels")
        settings.setdefault("slices", None)
        settings.setdefault("divide_above_px", None)
    train = recipe.get("train") if isinstance(recipe, dict) else None
    if isinstance(train, dict):
        train.setdefault("initial_weights", "random")
        train.setdefault("head_lr_factor", 1.0)
        train.setdefault("patch_source", AUTO)
        machine = values.get("machine")
        cores = machine.get("cores") if isinstance(machine, dict) else None
        train.setdefault("threads", cores if isinstance(cores, int) else 1)


def _invalid(source: str, problem: str) -> RunError:
    return RunError(
        f"{source} is not a plan that ushape wrote: {problem}.",
        code="invalid_plan",
        hint="Copy the complete run folder again.",
    )


def _problems_of(plan: Plan) -> Iterator[str]:
    """Yield what does not fit together in a plan, although each value is possible."""
    recipe, preprocessing = plan.recipe, plan.preprocessing
    space, dims, channels = preprocessing.space, recipe.network.dims, preprocessing.channels
    if not 1 <= channels <= MAX_CHANNELS:
        yield f"there are {channels} channels"
    for name, shape in (
        ("sampling.patch_shape", plan.patch_shape),
        ("predict.tile_shape", plan.tile_shape),
        ("preprocessing.shape", preprocessing.config.shape),
        ("preprocessing.downscale", preprocessing.config.downscale),
    ):
        if isinstance(shape, tuple) and (len(shape) != dims or max(shape) > MAX_SIDE):
            yield f"{name} is {list(shape)} for images of {dims} dimensions"
    target = preprocessing.config.common_spacing_mm
    if target is not None and len(target) not in (plan.image_dims, dims):
        yield f"preprocessing.target_spacing_mm is {list(target)} for {plan.image_dims} dimensions"
    try:
        recipe.network.check_dims(dims)
    except ConfigError as error:
        yield error.message
    if any(not -dims <= axis < 0 for axis in resolved(recipe.predict.mirror_axes)):
        yield f"predict.mirror_axes is {recipe.predict.mirror_axes}"
    if (scaling := preprocessing.normalization) is not None:
        columns = (scaling.low, scaling.high, scaling.mean, scaling.std)
        if any(len(column) != channels for column in columns) or min(scaling.std) <= 0:
            yield f"the normalization does not describe {channels} channels"
    slices = preprocessing.config.slices
    if (dims == 3 and slices is not None) or (preprocessing.by_slice and slices is None):
        yield f"preprocessing.slices is {slices} for a network in {dims}D"
    if preprocessing.config.intensity == "data" and scaling is None:
        yield "the normalization is missing"
    if space.has_distance != (recipe.labels.objects == "distance"):
        yield f"labels.objects is {recipe.labels.objects}, which does not fit the label space"
    if space.has_distance and recipe.labels.max_distance_px is None:
        yield "labels.max_distance_px is missing"
    yield from _problems_of_masks(space, plan.encoding)


def _problems_of_masks(space: LabelSpace, encoding: MaskEncoding) -> Iterator[str]:
    """Yield why masks of a label space could not be written."""
    values = space.values
    if space.ignore is not None and space.threshold is None:  # Else both may be the highest value.
        values = (*values, space.ignore)
    if len(set(values)) < len(values) or not 2 <= len(space.values) <= IGNORE:
        yield f"the mask values are {list(values)}"
    if any(not 0 <= index < len(space.values) for one in space.regions for index in one.classes):
        yield "a region contains an unknown class"
    if any(not one.classes for one in space.regions):
        yield "a region contains no class"
    if not is_writable(encoding.suffix):
        yield f"masks have the suffix {encoding.suffix!r}"
    if not _can_hold(encoding, values):
        yield f"masks of type {encoding.dtype} cannot hold the values {list(values)}"
    if any(not 0 <= part < 256 for color in encoding.palette or () for part in color):
        yield "a color of the palette is not from 0 to 255"


def _can_hold(encoding: MaskEncoding, values: Sequence[int]) -> bool:
    try:
        dtype = np.dtype(encoding.dtype)
    except TypeError:
        return False
    if dtype.kind not in "buif":
        return False
    if encoding.kind == "colors" or dtype.kind == "f":
        return True
    limits = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    return limits.min <= min(values) and max(values) <= limits.max


def load_plan(path: Path) -> Plan:
    """Read a plan that `ushape plan` wrote, edited or not.

    Raises:
        RunError: if the file cannot be read, or was written by another version.
        ConfigError: if a value is impossible or "auto".
    """
    hint = "Write a plan with `ushape plan DATA -o plan.json`."
    values = read_json(path, RunError, code="unreadable_plan", hint=hint)
    if not isinstance(values, dict):
        raise RunError(
            f"{path} does not contain a plan.",
            code="invalid_plan",
            hint=hint,
        )
    values.pop(CHECKSUM, None)  # A run's plan may be edited before it is used for another one.
    values = config.with_current_names(Plan, values)
    if left := find_auto(values.get("recipe")):
        raise ConfigError(
            f'{path}: {", ".join(left)} is "auto", which a plan cannot contain.',
            code="auto_in_plan",
            hint="Set it to a value, or use a recipe instead: ushape train DATA --recipe FILE.",
        )
    return Plan.from_dict(values, source=str(path))


def find_auto(values: Any, path: str = "") -> list[str]:
    """Return the paths of keys whose value is "auto" and that the planner does not leave so."""
    if isinstance(values, dict):
        return [
            found
            for key, value in values.items()
            for found in find_auto(value, f"{path}.{key}" if path else str(key))
        ]
    return [path] if values == AUTO and path not in MAY_BE_AUTO else []
