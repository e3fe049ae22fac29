"""Storage of evaluation results: scores.csv, groups.csv, scores.json and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import InstanceOf

from ushape import config
from ushape.errors import ConfigError, RunError
from ushape.evaluation.baselines import BASELINE_TEXTS, BaselineName
from ushape.evaluation.case_images import CasePicture, load_pictures, save_pictures
from ushape.evaluation.object_pictures import (
    ObjectPicture,
    load_object_pictures,
    save_object_pictures,
)
from ushape.evaluation.scores import (
    CaseScore,
    pool_groups,
    read_baseline_scores,
    read_scores,
    write_baseline_scores,
    write_scores,
)
from ushape.evaluation.summary import Summary
from ushape.formatting import TextTable, reason
from ushape.io.files import read_sealed_json, refuse_existing_output, write_sealed_json
from ushape.metrics.overlap import CASE_KINDS
from ushape.metrics.probability import BINS
from ushape.metrics.topology import ScoreName

CASES, GROUPS, FACTS, PICTURES = "scores.csv", "groups.csv", "scores.json", "pictures"
BASELINE_SCORES, OBJECT_PICTURES = "baseline_scores.csv", "object_pictures"
PAGE, CARD = "report.html", "model_card.md"

TABLES = "tables"
"""Key of the checksums of the tables in scores.json."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the report of an evaluation shows. Sections without content are omitted."""

    title: str
    summary: Summary
    epochs: Sequence[Mapping[str, str]]
    split_lines: Sequence[str]
    leak_lines: Sequence[str]
    """Statements on leakage between training and test data."""

    plan_lines: Sequence[str]
    """Description of the network and its training."""

    reproduce_lines: Sequence[str]
    """Software versions, machine, seed and commands."""

    breakdowns: Sequence[TextTable] = ()
    """Scores by the columns of the metadata."""

    scores: Sequence[CaseScore] = ()
    """Scores of all cases, stored in scores.csv."""

    baselines: Mapping[BaselineName, Sequence[CaseScore]] = field(default_factory=dict)
    """Scores of trivial baselines for all cases, stored in baseline_scores.csv."""

    pictures: Sequence[InstanceOf[CasePicture]] = ()
    """Pictures of some cases, stored in pictures/."""

    object_pictures: Sequence[InstanceOf[ObjectPicture]] = ()
    """Pictures of missed, merged and split objects, stored in object_pictures/."""


def save_report(folder: Path, report: Report) -> None:
    """Write the scores and pictures of a report, each file atomically.

    The pages are written by `ushape.reports`.
    """
    write_scores(folder / CASES, report.scores)
    write_scores(folder / GROUPS, pool_groups(report.scores))
    write_baseline_scores(folder / BASELINE_SCORES, report.baselines.items())
    save_pictures(folder / PICTURES, report.pictures)
    save_object_pictures(folder / OBJECT_PICTURES, report.object_pictures)
    stored_apart: dict[str, Any] = {
        "scores": (),
        "baselines": {},
        "pictures": (),
        "object_pictures": (),
    }
    facts = config.to_dict(replace(report, **stored_apart))
    facts = {name: value for name, value in facts.items() if name not in stored_apart}
    facts[TABLES] = {name: _checksum_of(folder / name) for name in (CASES, BASELINE_SCORES)}
    write_sealed_json(folder / FACTS, facts)


def refuse_existing(folder: Path) -> None:
    """Check that a folder contains no results of an evaluation.

    Raises:
        RunError: if it contains a file that an evaluation writes.
    """
    for name in (CASES, GROUPS, BASELINE_SCORES, FACTS, PICTURES, OBJECT_PICTURES, CARD, PAGE):
        refuse_existing_output(folder / name, overwrite=False)


def load_report(folder: Path) -> Report:
    """Load the files of `save_report`; neither the data nor the network is needed.

    Raises:
        RunError: if a file is missing or damaged, or scores.csv and scores.json do not match.
    """
    path = folder / FACTS
    if not path.exists():
        raise RunError(
            f"{folder} contains no scores: it has no file {FACTS}.",
            code="invalid_scores",
            hint="Specify a run folder; if it has no scores yet, run `ushape evaluate RUN` first.",
        )
    hint = "Run `ushape evaluate RUN` to write the scores again."
    values = read_sealed_json(path, RunError, code="invalid_scores", hint=hint)
    try:
        checksums = values.pop(TABLES, {})
        report = config.from_dict(Report, values, source=str(path))
        _check_summary(report.summary)
        _check_tables(report.breakdowns)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise RunError(
            f"{path} does not contain scores written by ushape: {reason(error)}.",
            code="invalid_scores",
            hint=hint,
        ) from None
    scores = read_scores(folder / CASES)
    _check_scores(folder / CASES, scores, report.summary)
    _check_tables_of_scores(folder, checksums)
    return replace(
        report,
        scores=scores,
        baselines=_load_baselines(folder / BASELINE_SCORES),
        pictures=load_pictures(folder / PICTURES),
        object_pictures=load_object_pictures(folder / OBJECT_PICTURES),
    )


def _load_baselines(path: Path) -> dict[BaselineName, list[CaseScore]]:
    """Load the scores of the baselines that this version knows; older runs have none."""
    found = read_baseline_scores(path)
    return {name: found[name] for name in BASELINE_TEXTS if name in found}


def _checksum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_tables_of_scores(folder: Path, checksums: Mapping[str, str]) -> None:
    """Check that the tables are those that were written together with the summary.

    Args:
        checksums: SHA-256 of each table; empty in older folders.

    Raises:
        RunError: if a table was changed or is missing.
    """
    for name in (CASES, BASELINE_SCORES) if checksums else ():
        path = folder / name
        if not path.is_file() or _checksum_of(path) != checksums.get(name):
            raise RunError(
                f"{path} is missing, or was changed after it was written.",
                code="invalid_scores",
                hint="Run `ushape evaluate RUN` to write the scores again.",
            )


def _check_summary(summary: Summary) -> None:
    """Check that a summary is complete.

    Raises:
        ValueError: if it is not.
    """
    for own in summary.classes:
        bins = own.reliability
        lengths = [] if bins is None else [bins.pixels, bins.probability_sum, bins.positives]
        if "dice" not in own.means or set(own.case_kinds) != set(CASE_KINDS):
            raise ValueError(f"the Dice or the case counts of {own.name} are missing")
        if any(len(one) != BINS for one in lengths):
            raise ValueError(f"the reliability of {own.name} does not have {BINS} bins")
    if summary.topology and set(summary.topology) != set(get_args(ScoreName)):
        raise ValueError("some topology metrics are missing")


def _check_tables(tables: Sequence[TextTable]) -> None:
    for table in tables:
        if any(len(row) != len(table.columns) for row in table.rows):
            raise ValueError(f"a row of the table {table.title} has the wrong number of cells")


def _check_scores(path: Path, scores: Sequence[CaseScore], summary: Summary) -> None:
    """Check that scores.csv has one row for each case and class of the summary.

    Raises:
        RunError: if it does not.
    """
    keys = {(score.case, score.class_name) for score in scores}
    cases, names = {case for case, _ in keys}, {own.name for own in summary.classes}
    is_complete = len(cases) == summary.cases and len(scores) == len(cases) * len(names)
    if not is_complete or keys != {(case, name) for case in cases for name in names}:
        raise RunError(
            f"{path} has {len(scores)} rows of {len(cases)} cases, but {FACTS} describes "
            f"{summary.cases} cases and {len(names)} classes.",
            code="scores_mismatch",
            hint="The file was edited or truncated. Run `ushape evaluate RUN` to write it again.",
        )
