"""Plan: a recipe in which nothing is "auto" any more, and what was found in the data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ushape import config
from ushape.config import AUTO, resolved
from ushape.data.preprocessing import Preprocessing
from ushape.errors import ConfigError, RunError
from ushape.formatting import reason
from ushape.io import is_writable
from ushape.planning.hardware import Machine
from ushape.planning.recipe import Recipe
from ushape.transforms.augment import AugmentConfig
from ushape.types import MaskEncoding

PLAN_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that training and prediction need to know."""

    RENAMED: ClassVar = {"preparation": "preprocessing"}

    recipe: Recipe
    preprocessing: Preprocessing
    encoding: MaskEncoding
    """How predictions are written: as the user's own masks."""

    machine: Machine
    """Where the plan was made."""

    evaluation_s: float
    """Seconds of the user's minutes that are kept for evaluation and report."""

    group_noun: str
    """What the data's groups are, for the report: "patients", "images"."""

    reasons: tuple[str, ...]
    """The plan in words, a line each."""

    version: int = PLAN_VERSION

    def __post_init__(self) -> None:
        left = find_auto(config.to_dict(self.recipe))
        assert not left, f"the planner left {left} open"

    @property
    def augment(self) -> AugmentConfig:
        return resolved(self.recipe.augment)

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
        """Raises RunError where the file was written by another version."""
        if not isinstance(values, dict):
            raise RunError(f"{source} holds no plan.", hint="Copy the run folder again, whole.")
        if values.get("version") != PLAN_VERSION:
            raise RunError(
                f"{source} has version {values.get('version')}, this ushape reads {PLAN_VERSION}.",
                hint="Use the ushape version that trained the run, or train again.",
            )
        plan = config.from_dict(cls, values, source=source)
        if plan.preprocessing.channels < 1 or not is_writable(plan.encoding.suffix):
            raise RunError(
                f"{source}: {plan.preprocessing.channels} channels, masks as "
                f"{plan.encoding.suffix!r}: no plan of ushape.",
                hint="Copy the run folder again, whole.",
            )
        return plan


def load_plan(path: Path) -> Plan:
    """Reads a plan that `ushape plan` wrote, edited or not.

    Raises:
        RunError: not readable, or of another version.
        ConfigError: a value that is impossible, or still "auto".
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: not readable: {reason(error)}.", hint="A plan is what `ushape plan -o` wrote."
        ) from None
    if not isinstance(values, dict):
        raise RunError(f"{path} holds no plan.", hint="A plan is what `ushape plan -o` wrote.")
    if left := find_auto(values.get("recipe")):
        raise ConfigError(
            f'{path}: {", ".join(left)} is "auto": in a plan nothing is left open.',
            hint="Give it a value; or leave it to a recipe: ushape train DATA --recipe FILE.",
        )
    return Plan.from_dict(values, source=str(path))


def find_auto(values: Any, path: str = "") -> list[str]:
    """Key paths whose value is "auto"; the recipe's name may be."""
    if isinstance(values, dict):
        return [
            found
            for key, value in values.items()
            for found in find_auto(value, f"{path}.{key}" if path else str(key))
        ]
    return [path] if values == AUTO and path != "name" else []
