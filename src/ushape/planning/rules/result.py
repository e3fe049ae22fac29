"""Input and output of the planning rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ushape.data.grouping import GroupingKind
from ushape.planning.fingerprint import Fingerprint
from ushape.planning.hardware import Machine
from ushape.planning.recipe import Recipe
from ushape.planning.timing import Format


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """Measured speed and available time, in seconds."""

    step_s: float
    """One training step alone, with all of its batches, once they are loaded."""

    waiting_s: float | None = 0.0
    """Time for which a step waits until its batches are loaded; None: not known."""

    training_s: float
    """Time left for training, validation included."""

    evaluation_s: float
    """Time reserved for the evaluation and the report."""

    before_s: float = 0.0
    """Time that has passed before the training, for reading the data and planning."""

    tries_mirroring: bool = True
    """Whether mirrored versions of the images can be predicted in the time that is reserved."""


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """Sizes of the split that was made."""

    kind: GroupingKind
    images: int
    groups: int
    test_groups: int
    validated: int
    """Number of cases on which the weights are selected."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that the rules depend on."""

    data: Fingerprint
    machine: Machine
    split: SplitFacts
    measure_time: Callable[[Recipe], TimeBudget]
    """Measures the speed of an otherwise complete recipe; called only if its epochs are open."""

    stored_bytes: Callable[[Recipe], float]
    """Returns about how many bytes the preprocessed training cases take."""

    find_format: Callable[[Recipe, Sequence[Format]], tuple[Format, dict[Format, float]]]
    """Measures a step of a recipe in several formats, and returns the fastest one and the times."""


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """Decision of a rule, in words."""

    text: str
    """The decision, as one line of the plan."""

    fact: str
    """Fact about data or machine that the decision follows from."""

    alternative: str = ""
    """The next best choice."""

    source: str
    """Rationale of the rule, with its source."""

    evaluation_s: float = 0.0
    """Seconds of the user's minutes that the rule reserves for the evaluation."""

    validation_s: float = 0.0
    """Expected seconds of each validation, if the rule plans them for a time limit."""


Rule = Callable[[Recipe, Situation], tuple[Recipe, RuleResult]]
"""Completes the settings of a recipe that are still "auto"."""


def change(recipe: Recipe, section: str, **values: object) -> Recipe:
    """Return a copy with some values of one section changed."""
    return replace(recipe, **{section: replace(getattr(recipe, section), **values)})
