"""model_card.md: what a model is for, what it was made from, how good it is, and where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ushape._version import __version__
from ushape.evaluation.breakdowns import Breakdown
from ushape.evaluation.storage import Report
from ushape.formatting import group_label
from ushape.io.files import write_bytes
from ushape.metrics.overlap import KINDS
from ushape.reports.tables import mean_table


def write_card(path: Path, report: Report) -> None:
    """Writes the card, whole or not at all.

    Source:
        Mitchell et al. 2019 (Model Cards for Model Reporting), arXiv 1810.03993.
    """
    write_bytes(path, ("\n".join(_lines(report)) + "\n").encode())


def _lines(report: Report) -> Iterator[str]:
    summary = report.summary
    names = ", ".join(own.name for own in summary.classes)
    yield f"# {_plain(report.title)}"
    yield ""
    yield summary.verdict
    yield ""
    yield "## Intended use"
    yield ""
    yield (
        f"Finding {names} in images like those it was trained on: the same instrument, preparation "
        "and resolution. A U-Net decides each pixel; it knows nothing of what it never saw, and "
        "has no way to say that an image is of another kind."
    )
    yield (
        "Its masks are proposals to a person who can judge them. It is no medical device, and no "
        "decision about a patient may rest on it alone."
    )
    yield ""
    yield "## Data"
    yield ""
    yield from _items(report.split_lines)
    yield from _items(report.leak_lines)
    yield ""
    yield "## Scores"
    yield ""
    for own in summary.classes:
        yield f"### {own.name}"
        yield ""
        yield from _table(mean_table(own, summary))
        yield ""
        counts = ", ".join(f"{own.case_kinds[kind]} {kind}" for kind in KINDS)
        yield f"Of {summary.cases} images: {counts}. Distances are in {summary.distance_unit}."
        yield ""
    yield "## Limits"
    yield ""
    yield from _items(_limits(report))
    yield ""
    yield "## The network and its training"
    yield ""
    yield from _items(report.plan_lines)
    yield ""
    yield "## To make it again"
    yield ""
    yield from _items(report.reproduce_lines)
    yield ""
    yield f"Written by ushape {__version__}."


def _limits(report: Report) -> Iterator[str]:
    """What these scores themselves say against relying on it."""
    summary = report.summary
    for own in summary.classes:
        if own.interval is None or not own.interval.is_reliable:
            yield (
                f"{own.name}: tested on {group_label(own.groups_with_truth, summary.group_noun)}, "
                "too few for an interval that can be relied on."
            )
        if own.missed_groups:
            missed = group_label(own.missed_groups, summary.group_noun)
            yield f"{own.name}: missed altogether in {missed}."
        alarms = own.case_kinds["false alarm"]
        if alarms:
            empty = alarms + own.case_kinds["both empty"]
            yield f"{own.name}: found in {alarms} of {empty} images that hold none."
    if summary.seen_cases:
        yield f"{summary.seen_cases} of the tested images were there in training."
    ranked = [score for score in report.scores if score.counts.truth]
    if ranked:
        worst = min(ranked, key=lambda score: score.dice or 0.0)
        yield f"The worst image, {worst.case}, has a Dice of {worst.dice or 0.0:.3f}."
    yield "The interval knows the spread of the tested groups, not that of another hospital or lab."


def _table(table: Breakdown) -> Iterator[str]:
    yield f"| {' | '.join(table.columns)} |"
    yield "|" + "---|" * len(table.columns)
    for row in table.rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _items(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"- {_plain(line)}"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return "".join(f"\\{c}" if c in "\\`*<|" else c for c in text)
