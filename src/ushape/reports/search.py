"""Result of a search for settings as an HTML page, JSON and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ushape import config
from ushape.formatting import to_csv
from ushape.io.files import write_bytes, write_json
from ushape.reports import write_page

FILE_STEM = "search"

COLUMNS = ("trial", "settings", "state", "score", "seconds", "note")


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """A trial as a page shows it."""

    number: int
    settings: str
    """Settings that differ from the plan."""

    state: str
    score: float | None
    seconds: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """A search for settings."""

    verdict: str
    options: tuple[str, ...]
    """Chosen values of `--set`; none if the plan is kept."""

    command: str
    """Command that trains with them."""

    searched: tuple[str, ...]
    """Searched settings with their values, one line each."""

    trials: tuple[TrialLine, ...]
    best: int | None
    """Number of the best trial."""

    notes: tuple[str, ...]
    """Description of the method and its limitations, one paragraph each."""


def write_search(folder: Path, report: SearchReport, title: str) -> Path:
    """Write search.json, .csv and .html and return the path of the page."""
    write_json(folder / f"{FILE_STEM}.json", config.to_dict(report))
    write_bytes(folder / f"{FILE_STEM}.csv", to_csv(COLUMNS, _rows(report.trials)))
    page = folder / f"{FILE_STEM}.html"
    write_page(page, f"{FILE_STEM}.html.j2", title=title, search=report)
    return page


def _rows(trials: Sequence[TrialLine]) -> list[dict[str, object]]:
    return [
        {
            "trial": one.number,
            "settings": one.settings,
            "state": one.state,
            "score": "" if one.score is None else f"{one.score:.6f}",
            "seconds": one.seconds,
            "note": one.note,
        }
        for one in trials
    ]
