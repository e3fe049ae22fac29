"""Findings of the data checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ushape.data.scan import DatasetStats

Severity = Literal["error", "warning", "note"]
"""error: training stops; warning: scores may be wrong or low; note: for information."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of problem, with all cases that have it."""

    check: str
    """Short name of the check, for example "transposed"."""

    severity: Severity
    text: str
    """Description of the problem, in full sentences."""

    fix: str
    """How to fix it."""

    cases: tuple[str, ...] = ()
    """Case ids, the worst first."""

    in_copy: Literal["", "corrected", "left out"] = ""
    """What `--fix` does with these cases in the copy; '' if they are copied unchanged."""


Check = Callable[[DatasetStats], Iterator[Finding]]
"""A data check: yields the problems that it finds."""
