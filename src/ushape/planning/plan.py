"""Plan: a recipe without "auto", and the facts about data and machine that it depends on."""

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
        plan = config.from_dict(cls, values, source=source)
        if plan.preprocessing.channels < 1 or not is_writable(plan.encoding.suffix):
            raise RunError(
                f"{source} is not a plan of ushape: it has {plan.preprocessing.channels} channels "
                f"and writes masks as {plan.encoding.suffix!r}.",
                code="invalid_plan",
                hint="Copy the complete run folder again.",
            )
        return plan


def load_plan(path: Path) -> Plan:
    """Read a plan that `ushape plan` wrote, edited or not.

    Raises:
        RunError: if the file cannot be read, or was written by another version.
        ConfigError: if a value is impossible or "auto".
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"{path} cannot be read: {reason(error)}.",
            code="unreadable_plan",
            hint="Write a plan with `ushape plan DATA -o plan.json`.",
        ) from None
    if not isinstance(values, dict):
        raise RunError(
            f"{path} does not contain a plan.",
            code="invalid_plan",
            hint="Write a plan with `ushape plan DATA -o plan.json`.",
        )
    if left := find_auto(values.get("recipe")):
        raise ConfigError(
            f'{path}: {", ".join(left)} is "auto", which a plan cannot contain.',
            code="auto_in_plan",
            hint="Give it a value, or use a recipe instead: ushape train DATA --recipe FILE.",
        )
    return Plan.from_dict(values, source=str(path))


def find_auto(values: Any, path: str = "") -> list[str]:
    """Return the paths of keys whose value is "auto", except for the name of the recipe."""
    if isinstance(values, dict):
        return [
            found
            for key, value in values.items()
            for found in find_auto(value, f"{path}.{key}" if path else str(key))
        ]
    return [path] if values == AUTO and path != "name" else []
