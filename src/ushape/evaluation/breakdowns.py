"""Tables of scores by a column of the metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ushape.evaluation.case_metrics import number_text
from ushape.evaluation.scores import (
    CaseScore,
    pool_groups,
)
from ushape.metrics.stats import bootstrap_mean
from ushape.types import Case


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """A table: of scores by a column of the metadata, by size, or by case."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    """As many texts in each as there are columns; '' where there is no value."""

    note: str = ""

    @property
    def is_number(self) -> tuple[bool, ...]:
        """Whether a column holds numbers only."""
        return tuple(
            all(_is_number(row[place]) for row in self.rows) for place in range(len(self.columns))
        )


def _is_number(text: str) -> bool:
    """Also of a range, `1.2 to 3.4`."""
    parts = text.replace("\u202f", "").removesuffix("%").split(" to ")
    return not text or all(re.fullmatch(r"-?\d+(\.\d+)?", part.strip()) for part in parts)


MAX_VALUES = 12
"""Of a column; one with more is no category."""


def break_down(
    scores: Sequence[CaseScore], cases: Sequence[Case], *, noun: str, seed: int
) -> list[Breakdown]:
    """A table for each column of the metadata that divides the cases into 2 to 12 parts.

    Args:
        noun: What a group is, in the plural.
        seed: Of the bootstrap.
    """
    found = []
    for column in dict.fromkeys(key for case in cases for key in case.metadata):
        value_of = {case.id: case.metadata.get(column, "") for case in cases}
        values = sorted(set(value_of.values()))
        if 2 <= len(values) <= MAX_VALUES:
            rows = [
                row
                for value in values
                for row in _rows(value, [s for s in scores if value_of[s.case] == value], seed)
            ]
            found.append(
                Breakdown(
                    title=f"By {column}",
                    columns=[column, "class", "images", noun, "mean Dice", "95 %", "missed"],
                    rows=rows,
                )
            )
    return found


def _rows(value: str, scores: Sequence[CaseScore], seed: int) -> list[list[str]]:
    by_class: Mapping[str, list[CaseScore]] = {score.class_name: [] for score in scores}
    for score in scores:
        by_class[score.class_name].append(score)
    return [[value or "(none)", name, *_columns(own, seed)] for name, own in by_class.items()]


def _columns(scores: Sequence[CaseScore], seed: int) -> list[str]:
    groups = [score for score in pool_groups(scores) if score.counts.truth]
    dice = [score.dice or 0.0 for score in groups]
    interval = bootstrap_mean(dice, seed=seed)
    return [
        str(len(scores)),
        str(len(groups)),
        number_text(sum(dice) / len(dice) if dice else None),
        f"{interval.low:.3f} to {interval.high:.3f}" if interval else "",
        str(sum(score.kind == "missed" for score in groups)),
    ]
