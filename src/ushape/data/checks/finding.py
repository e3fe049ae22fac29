"""Findings of the data checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from ushape.data.case_stats import CaseStats, sum_values
from ushape.data.discovery import Discovery
from ushape.data.duplicates import Duplicates
from ushape.data.grouping import Kind
from ushape.labels import LabelConfig, LabelSpace

Severity = Literal["error", "warning", "note"]
"""Training stops; the score will be wrong or low; worth knowing."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of problem, with all cases that have it."""

    check: str
    """Short name, e.g. transposed."""

    severity: Severity
    text: str
    """What was found, a sentence."""

    fix: str
    """What to do about it."""

    cases: tuple[str, ...] = ()
    """Case ids or file names, the worst first."""

    in_copy: Literal["", "corrected", "left out"] = ""
    """What becomes of these cases in the copy that `--fix` makes; '': they stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the checks look at."""

    discovery: Discovery
    exams: Sequence[CaseStats]
    """In the order of the cases."""

    labels: LabelConfig
    groups: Mapping[str, str]
    """Group of each case id; of cases that could be read."""

    kind: Kind
    """How the groups were found."""

    duplicates: Sequence[Duplicates] = ()
    """Cases whose images are equal, or nearly."""

    part_of: Mapping[str, str] = field(default_factory=dict)
    """train, validation or test, of each case id, where a split could be made."""

    space: LabelSpace | None = None
    """None where the mask values make no sense."""

    @property
    def meaning_is_laid_down(self) -> bool:
        """The user, or the data set itself, says what the mask values mean."""
        return self.labels.threshold is not None or self.labels.values is not None

    @cached_property
    def readable(self) -> list[CaseStats]:
        """Exams of cases whose image and mask could be read."""
        return [exam for exam in self.exams if exam.error is None]

    @cached_property
    def fitting(self) -> list[CaseStats]:
        """Those whose mask has the image's size, and lies on it."""
        return [
            exam
            for exam in self.readable
            if exam.shape == exam.mask_shape and not (exam.mask_is_image or exam.is_turned_apart)
        ]

    @cached_property
    def value_counts(self) -> Counter[int]:
        """Pixels of each mask value over all cases."""
        return sum_values(self.readable)

    def class_pixels(self, exam: CaseStats) -> np.ndarray:
        """(classes,) pixels; only where there is a space."""
        assert self.space is not None
        space, counts = self.space, exam.value_counts
        if space.threshold is None:  # Values that are no class have a finding of their own.
            counts = {v: n for v, n in counts.items() if v in (*space.values, space.ignore)}
        return np.asarray(space.class_pixels(counts))


Check = Callable[[Evidence], Iterator[Finding]]
