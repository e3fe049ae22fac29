"""Pages of an evaluation: report, model card and label audit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ushape._version import __version__
from ushape.evaluation.case_images import MAX_SUSPECT_PICTURES, CasePicture, label_error_score
from ushape.evaluation.scores import (
    CaseScore,
    by_case,
    case_dice,
    dice_by_case,
    false_positive_px,
    pool_groups,
)
from ushape.evaluation.storage import CARD, PAGE, Report
from ushape.evaluation.summary import Summary
from ushape.formatting import TextTable, group_label, number_text, one_line, pluralize, to_csv
from ushape.io.files import write_bytes
from ushape.metrics.overlap import CASE_KINDS
from ushape.reports import printable_values, write_page
from ushape.reports.gallery import (
    class_stills,
    draw_object_stills,
    draw_still,
    make_gallery,
    plot_data,
)
from ushape.reports.tables import (
    baseline_table,
    epoch_table,
    kind_table,
    mean_table,
    mean_tables,
    object_count_table,
    object_table,
    reliability_table,
    score_table,
    size_table,
    threshold_table,
    topology_table,
    worst_first,
)

SCRIPTS = (
    "vendor/plot.js",
    *(f"report/{name}.js" for name in ("rasters", "card", "chooser", "plots", "tables", "start")),
)
"""JavaScript files of the page, in this order."""


def write_pages(folder: Path, report: Report) -> None:
    """Write model_card.md and then report.html into a folder."""
    write_card(folder / CARD, report)
    write_report(folder / PAGE, report)


def write_report(path: Path, report: Report) -> None:
    """Write the report page atomically."""
    summary, scores = report.summary, worst_first(report.scores)
    false_positives = {case: false_positive_px(own) for case, own in by_case(scores).items()}
    gallery = make_gallery(report.pictures, dice_by_case(scores), false_positives)
    page = plot_data(scores, summary, report.epochs, gallery)
    places = {case["id"]: place for place, case in enumerate(page["cases"])}
    write_page(
        path,
        "report.html.j2",
        styles=("report/report.css",),
        scripts=SCRIPTS,
        title=report.title,
        report=report,
        summary=summary,
        gallery=gallery,
        page=printable_values(page),
        means=[mean_tables(own, summary) for own in summary.classes],
        baselines=[baseline_table(own, summary) for own in summary.classes if own.baselines],
        topology=topology_table(summary),
        kinds=kind_table(summary),
        confusion=summary.confusion,
        thresholds=[own for own in map(threshold_table, summary.classes) if own.rows],
        objects=object_table(summary),
        object_counts=object_count_table(report.scores),
        object_stills=draw_object_stills(report.object_pictures),
        stills=class_stills(report.pictures, scores),
        epochs=epoch_table(page["epochs"]),
        reliability=[table for own in summary.classes if (table := reliability_table(own))],
        sizes=[table for own in summary.classes if (table := size_table(scores, own.name)).rows],
        groups=_group_table(scores, summary),
        places=[places[score.case] for score in scores],
        cases=score_table(
            "Results of all images", scores, of_cases=True, unit=summary.distance_unit
        ),
    )


def _group_table(scores: Sequence[CaseScore], summary: Summary) -> TextTable | None:
    """Return the scores of the groups; None if each case is its own group."""
    if summary.groups == summary.cases:
        return None
    groups, title = worst_first(pool_groups(scores)), f"Results of all {summary.group_noun}"
    return score_table(title, groups, of_cases=False, unit=summary.distance_unit)


def write_card(path: Path, report: Report) -> None:
    """Write the model card atomically."""
    lines = [
        f"# {escape_markdown(report.title)}",
        "",
        escape_markdown(report.summary.verdict),
        "",
    ]
    for title, content in card_sections(report).items():
        lines += [f"## {title}", "", *content, ""]
    lines.append(f"Written by ushape {__version__}.")
    write_bytes(path, ("\n".join(lines) + "\n").encode(errors="backslashreplace"))


def card_sections(report: Report) -> dict[str, list[str]]:
    """Return the lines of each section of the model card, in Markdown, by its title.

    Source:
        Mitchell et al. 2019 (Model Cards for Model Reporting), arXiv 1810.03993.
    """
    return {
        "Intended use": list(_intended_use(report.summary)),
        "Data": list(_items([*report.split_lines, *report.leak_lines])),
        "Results": list(_results(report.summary)),
        "Limitations": list(_items(_limitations(report))),
        "Model and training": list(_items(report.plan_lines)),
        "Reproducibility": list(_items(report.reproduce_lines)),
    }


def _intended_use(summary: Summary) -> Iterator[str]:
    names = ", ".join(escape_markdown(own.name) for own in summary.classes)
    label = "class" if len(summary.classes) == 1 else "classes"
    yield (
        f"Segmentation of the {label} {names} in images that were acquired in the same way as the "
        "training images, i.e. with the same instrument, sample preparation and resolution. The "
        "model does not detect whether an image differs from the training data."
    )
    yield ""
    yield (
        "Predicted masks need review by an expert. The model is not a medical device and must not "
        "be the only basis of a clinical decision."
    )


def _results(summary: Summary) -> Iterator[str]:
    for own in summary.classes:
        yield f"### {escape_markdown(own.name)}"
        yield ""
        yield from _table(mean_table(own, summary))
        yield ""
        if own.baselines:
            yield "Trivial baselines, evaluated in the same way:"
            yield ""
            yield from _table(baseline_table(own, summary))
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
            yield (
                f"{own.name}: the confidence interval is unreliable; it is based on only {groups}."
            )
        if own.missed_groups:
            yield f"{own.name}: not found at all in {own.missed_groups} of {groups}."
        if own.false_positives:
            empty = pluralize(own.cases_without_truth, "image")
            yield f"{own.name}: false positives in {own.false_positives} of {empty} without it."
    if summary.seen_cases:
        yield (
            f"{summary.seen_cases} of {summary.cases} evaluated images were used in training "
            "or validation; their scores are not representative of new images."
        )
    annotated = [score for score in report.scores if score.counts.truth]
    if annotated:
        worst = min(annotated, key=lambda score: score.dice or 0.0)
        yield f"The lowest Dice of any image is {worst.dice or 0.0:.3f} ({worst.case})."
    yield (
        "Confidence intervals reflect the variation between the evaluated groups, not between "
        "laboratories, instruments or repeated training runs."
    )


def _table(table: TextTable) -> Iterator[str]:
    yield f"| {' | '.join(map(escape_markdown, table.columns))} |"
    yield "|" + "---|" * len(table.columns)
    for row in table.rows:
        yield f"| {' | '.join(map(escape_markdown, row))} |"


def _items(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"- {escape_markdown(line)}"


def escape_markdown(text: str) -> str:
    """Escape what Markdown or HTML would interpret; a line break of a name would end the line."""
    special = r"[\\`*\[\]<>|~&$!]|^[#+=-]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(special, r"\\\g<0>", one_line(text))


AUDIT_TABLE, AUDIT_PAGE = "audit.csv", "audit.html"


def write_audit(
    folder: Path, title: str, scores: Sequence[CaseScore], pictures: Sequence[CasePicture]
) -> None:
    """Write audit.csv with all cases by decreasing label error score, and audit.html.

    Args:
        folder: Existing folder for both files.
        scores: Scores from networks that were not trained on the case. Networks rarely contradict
            the masks that they were trained on.
        pictures: Pictures of some of the cases.
    """
    cases = by_case(scores)
    error_scores = {case: label_error_score(own) for case, own in cases.items()}
    ranked = sorted(cases, key=lambda case: (-error_scores[case], case))
    rows = [
        {
            "case": case,
            "group": cases[case][0].group,
            "label_error_score": round(error_scores[case], 6),
            "dice": case_dice(cases[case]),
        }
        for case in ranked
    ]
    write_bytes(folder / AUDIT_TABLE, to_csv(["case", "group", "label_error_score", "dice"], rows))
    shown = {picture.case: picture for picture in pictures}
    suspects = [case for case in ranked if error_scores[case] > 0]
    write_page(
        folder / AUDIT_PAGE,
        "audit.html.j2",
        title=title,
        cases=len(cases),
        suspects=len(suspects),
        tiles=[
            {
                "case": case,
                "error_score": number_text(error_scores[case]),
                "dice": number_text(case_dice(cases[case])),
                "data": draw_still(shown[case]),
            }
            for case in [case for case in suspects if case in shown][:MAX_SUSPECT_PICTURES]
        ],
    )
