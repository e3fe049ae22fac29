"""What a rule looks at, and what it says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

from ushape.planning.fingerprint import Fingerprint
from ushape.planning.hardware import Machine
from ushape.planning.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the rules look at."""

    data: Fingerprint
    machine: Machine


@dataclass(frozen=True)
class RuleResult:
    """What a rule decided, in words."""

    text: str
    """What was decided, a line for the plan."""

    fact: str = ""
    """What it follows from."""

    otherwise: str = ""
    """What would have been next."""

    source: str = ""
    """Why the rule is so: its own docstring."""


Rule = Callable[[Recipe, Situation], tuple[Recipe, RuleResult]]


def source_of(rule: Callable[..., object]) -> str:
    """A rule's docstring without its formal part, in one line."""
    text = inspect.getdoc(rule) or ""
    for part in ("Args:", "Raises:"):
        text = text.partition(part)[0]
    return " ".join(text.split())


def change(recipe: Recipe, section: str, **values: object) -> Recipe:
    """A copy with some values of one section changed."""
    return replace(recipe, **{section: replace(getattr(recipe, section), **values)})
