"""A folder of scores: scores.csv, scores.json, pictures/, and the pages made of these alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ushape import config
from ushape.errors import ConfigError, RunError
from ushape.evaluation.card import write_card
from ushape.evaluation.pictures import load_pictures, save_pictures
from ushape.evaluation.report import Report, write_report
from ushape.evaluation.score import CaseScore, pool_groups, read_scores, write_scores
from ushape.evaluation.summary import Summary
from ushape.evaluation.tables import Breakdown
from ushape.io.atomic import write_bytes
from ushape.words import reason

CASES, GROUPS, FACTS, PICTURES = "scores.csv", "groups.csv", "scores.json", "pictures"
PAGE, CARD = "report.html", "model_card.md"


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
    """Writes the scores, then the page and the card that are made of them, each whole or not at
    all; the page last."""
    write_scores(folder / CASES, report.scores)
    write_scores(folder / GROUPS, pool_groups(report.scores))
    save_pictures(folder / PICTURES, report.pictures)
    names = _Facts.__dataclass_fields__
    facts = config.to_dict(_Facts(**{name: getattr(report, name) for name in names}))
    write_bytes(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode())
    write_card(folder / CARD, report)
    write_report(folder / PAGE, report)


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
        facts = config.from_dict(_Facts, json.loads(path.read_text()), source=str(path))
    except (OSError, ValueError, TypeError, AttributeError, ConfigError) as error:
        raise RunError(
            f"{path}: no scores of ushape ({reason(error)}).",
            hint="ushape evaluate RUN writes them anew.",
        ) from None
    scores: list[CaseScore] = read_scores(folder / CASES)
    pictures = load_pictures(folder / PICTURES)
    values = {name: getattr(facts, name) for name in _Facts.__dataclass_fields__}
    return Report(**values, scores=scores, pictures=pictures)
