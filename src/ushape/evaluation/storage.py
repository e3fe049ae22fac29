"""A folder of scores: scores.csv, scores.json, pictures/, and the pages made of these alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ushape import config
from ushape.errors import ConfigError, RunError
from ushape.evaluation.breakdowns import Breakdown
from ushape.evaluation.case_images import CasePicture, load_pictures, save_pictures
from ushape.evaluation.scores import (
    CaseScore,
    pool_groups,
    read_scores,
    write_scores,
)
from ushape.evaluation.summary import Summary
from ushape.formatting import reason
from ushape.io.files import write_bytes
from ushape.metrics.overlap import KINDS
from ushape.metrics.probability import BINS
from ushape.metrics.topology import ScoreName

CASES, GROUPS, FACTS, PICTURES = "scores.csv", "groups.csv", "scores.json", "pictures"
PAGE, CARD = "report.html", "model_card.md"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that stands in a report. Where something is empty, its section is left out."""

    title: str
    summary: Summary
    scores: Sequence[CaseScore]
    epochs: Sequence[Mapping[str, str]]
    """Rows of metrics.csv."""

    split_lines: Sequence[str]
    leak_lines: Sequence[str]
    """What could have let the networks know test cases."""

    plan_lines: Sequence[str]
    reproduce_lines: Sequence[str]
    pictures: Sequence[CasePicture]
    breakdowns: Sequence[Breakdown] = ()


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What scores.json holds: all of a report but its cases and pictures."""

    title: str
    summary: Summary
    epochs: Sequence[Mapping[str, str]]
    split_lines: Sequence[str]
    leak_lines: Sequence[str]
    plan_lines: Sequence[str]
    reproduce_lines: Sequence[str]
    breakdowns: Sequence[Breakdown] = ()


def save_report(folder: Path, report: Report) -> None:
    """Write the scores and pictures of a report, each file whole or not at all.

    The pages made of them are written by `ushape.reports`.
    """
    write_scores(folder / CASES, report.scores)
    write_scores(folder / GROUPS, pool_groups(report.scores))
    save_pictures(folder / PICTURES, report.pictures)
    names = _Facts.__dataclass_fields__
    facts = config.to_dict(_Facts(**{name: getattr(report, name) for name in names}))
    write_bytes(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode())


def refuse_existing(folder: Path) -> None:
    """Raises RunError where `save_report` would replace something."""
    for name in (CASES, GROUPS, FACTS, PICTURES, CARD, PAGE):
        if (folder / name).exists():
            raise RunError(f"{folder / name} exists.", hint="--overwrite replaces it; or name -o.")


def load_report(folder: Path) -> Report:
    """What `save_report` wrote; neither the data nor the network are needed.

    Raises:
        RunError: something is missing or damaged.
    """
    path = folder / FACTS
    try:
        values = json.loads(path.read_text(), parse_constant=_refuse_constant)
        facts = config.from_dict(_Facts, values, source=str(path))
        _check_summary(facts.summary)
        _check_tables(facts.breakdowns)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise RunError(
            f"{path}: no scores of ushape ({reason(error)}).",
            hint="ushape evaluate RUN writes them anew.",
        ) from None
    scores: list[CaseScore] = read_scores(folder / CASES)
    _check_scores(folder / CASES, scores, facts.summary)
    pictures = load_pictures(folder / PICTURES)
    values = {name: getattr(facts, name) for name in _Facts.__dataclass_fields__}
    return Report(**values, scores=scores, pictures=pictures)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no score")


def _check_summary(summary: Summary) -> None:
    """Raises ValueError where a part is missing that every summary has."""
    for own in summary.classes:
        bins = own.reliability
        lengths = [] if bins is None else [bins.pixels, bins.probability_sum, bins.positives]
        if "dice" not in own.means or set(own.case_kinds) != set(KINDS):
            raise ValueError(f"the class {own.name} lacks Dice, or a kind of case")
        if any(len(one) != BINS for one in lengths):
            raise ValueError(f"the reliability of {own.name} has not {BINS} bins")
    if summary.topology and set(summary.topology) != set(get_args(ScoreName)):
        raise ValueError("scores of topology are missing")


def _check_tables(tables: Sequence[Breakdown]) -> None:
    for table in tables:
        if any(len(row) != len(table.columns) for row in table.rows):
            raise ValueError(f"the table {table.title} has rows of another length")


def _check_scores(path: Path, scores: Sequence[CaseScore], summary: Summary) -> None:
    """Raises RunError where the table is not that of the summary."""
    keys = {(score.case, score.class_name) for score in scores}
    cases, names = {case for case, _ in keys}, {own.name for own in summary.classes}
    is_whole = len(cases) == summary.cases and len(scores) == len(cases) * len(names)
    if not is_whole or keys != {(case, name) for case in cases for name in names}:
        raise RunError(
            f"{path}: {len(scores)} rows of {len(cases)} cases, where {FACTS} has {summary.cases} "
            f"cases and {len(names)} classes.",
            hint="The file was changed or cut off: ushape evaluate RUN writes it anew.",
        )
