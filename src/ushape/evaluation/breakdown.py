"""Scores by the columns of the metadata."""

from __future__ import annotations

from collections.abc import Sequence

from ushape.evaluation.scores import CaseScore, pool_groups
from ushape.formatting import TextTable, number_text
from ushape.metrics.stats import bootstrap_mean
from ushape.types import Case

MAX_CATEGORIES = 12
"""Maximum number of values of a metadata column that is treated as categorical."""


def break_down(
    scores: Sequence[CaseScore], cases: Sequence[Case], *, noun: str, seed: int
) -> list[TextTable]:
    """Return a table of scores for each metadata column with 2 to 12 different values.

    Args:
        noun: Plural noun for the groups, e.g. "patients".
    """
    found = []
    for column in dict.fromkeys(key for case in cases for key in case.metadata):
        value_of = {case.id: case.metadata.get(column, "") for case in cases}
        values = sorted(set(value_of.values()))
        if 2 <= len(values) <= MAX_CATEGORIES:
            rows = [
                row
                for value in values
                for row in _breakdown_rows(
                    value, [s for s in scores if value_of[s.case] == value], seed
                )
            ]
            found.append(
                TextTable(
                    title=f"By {column}",
                    columns=[column, "class", "images", noun, "mean Dice", "95% CI", "missed"],
                    rows=rows,
                )
            )
    return found


def _breakdown_rows(value: str, scores: Sequence[CaseScore], seed: int) -> list[list[str]]:
    """Return one row for each class."""
    by_class: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_class.setdefault(score.class_name, []).append(score)
    return [
        [value or "(none)", name, *_breakdown_cells(own, seed)] for name, own in by_class.items()
    ]


def _breakdown_cells(scores: Sequence[CaseScore], seed: int) -> list[str]:
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
