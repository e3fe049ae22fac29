"""Model card: intended use, data, results and limitations of a model as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ushape._version import __version__
from ushape.evaluation.breakdowns import TextTable
from ushape.evaluation.storage import Report
from ushape.evaluation.summary import Summary
from ushape.formatting import group_label, pluralize
from ushape.io.files import write_bytes
from ushape.metrics.overlap import CASE_KINDS
from ushape.reports.tables import mean_table


def write_card(path: Path, report: Report) -> None:
    """Write the model card atomically.

    Source:
        Mitchell et al. 2019 (Model Cards for Model Reporting), arXiv 1810.03993.
    """
    sections = (
        ("Intended use", _intended_use(report.summary)),
        ("Data", _items([*report.split_lines, *report.leak_lines])),
        ("Results", _results(report.summary)),
        ("Limitations", _items(_limitations(report))),
        ("Model and training", _items(report.plan_lines)),
        ("Reproducibility", _items(report.reproduce_lines)),
    )
    lines = [f"# {_escape_markdown(report.title)}", "", report.summary.verdict, ""]
    for title, content in sections:
        lines += [f"## {title}", "", *content, ""]
    lines.append(f"Written by ushape {__version__}.")
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def _intended_use(summary: Summary) -> Iterator[str]:
    names = ", ".join(own.name for own in summary.classes)
    label = "class" if len(summary.classes) == 1 else "classes"
    yield (
        f"Segmentation of the {label} {names} in images that were acquired like the training "
        "images, i.e. with the same instrument, sample preparation and resolution. The model does "
        "not detect whether an image differs from the training data."
    )
    yield ""
    yield (
        "Predicted masks need review by an expert. The model is not a medical device and must not "
        "be the only basis of a clinical decision."
    )


def _results(summary: Summary) -> Iterator[str]:
    for own in summary.classes:
        yield f"### {own.name}"
        yield ""
        yield from _table(mean_table(own, summary))
        yield ""
        counts = ", ".join(f"{own.case_kinds[kind]} {kind}" for kind in CASE_KINDS)
        yield f"Detection in {pluralize(summary.cases, 'image')}: {counts}."
        yield ""
    yield f"Distances are in {summary.distance_unit}."


def _limitations(report: Report) -> Iterator[str]:
    """Return the limitations that follow from the results."""
    summary = report.summary
    for own in summary.classes:
        groups = group_label(own.groups_with_truth, summary.group_noun)
        if own.interval is None or not own.interval.is_reliable:
            yield f"{own.name}: the confidence interval is unreliable; it rests on only {groups}."
        if own.missed_groups:
            yield f"{own.name}: not found at all in {own.missed_groups} of {groups}."
        if own.false_positives:
            empty = pluralize(own.cases_without_truth, "image")
            yield f"{own.name}: false positives in {own.false_positives} of {empty} without it."
    if summary.seen_cases:
        yield (
            f"{summary.seen_cases} of {summary.cases} evaluated images were used in training; "
            "their scores do not apply to new images."
        )
    annotated = [score for score in report.scores if score.counts.truth]
    if annotated:
        worst = min(annotated, key=lambda score: score.dice or 0.0)
        yield f"The lowest Dice of an image is {worst.dice or 0.0:.3f} ({worst.case})."
    yield (
        "Confidence intervals reflect the variation between the evaluated groups, not between "
        "laboratories, instruments or repeated trainings."
    )


def _table(table: TextTable) -> Iterator[str]:
    yield f"| {' | '.join(table.columns)} |"
    yield "|" + "---|" * len(table.columns)
    for row in table.rows:
        yield f"| {' | '.join(map(_escape_markdown, row))} |"


def _items(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"- {_escape_markdown(line)}"


def _escape_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*<|" else c for c in text)
