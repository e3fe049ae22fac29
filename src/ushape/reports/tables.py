"""Scores -> tables of text, ready to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ushape.evaluation.breakdowns import Breakdown
from ushape.evaluation.case_metrics import count_text, number_text, title_of
from ushape.evaluation.scores import CaseScore
from ushape.evaluation.summary import ClassSummary, Mean, Summary
from ushape.metrics.overlap import KINDS

MAX_ROWS = 1000
"""Rows of a table; scores.csv has the rest."""

FIRST_MEASURES = (
    *("dice", "iou", "precision", "recall", "hausdorff95", "average_surface_distance"),
    *("surface_dice", "object_f1"),
)
"""In the table that everybody sees; the others are folded."""

CASE_MEASURES = ("hausdorff95", "surface_dice", "object_f1", "calibration_error", "mask_doubt")
"""Columns beside Dice in a table of cases; scores.csv has the others."""

BANDS = 5
"""Parts of equally many cases, from small to large objects."""


def mean_table(
    own: ClassSummary, summary: Summary, names: Iterable[str] | None = None
) -> Breakdown:
    """The means of a class and how to read them; what has none is left out.

    Args:
        names: Of measures, in this order; None: all.
    """
    found = {name: mean for name, mean in own.means.items() if mean.value is not None}
    listed = [name for name in (found if names is None else names) if name in found]
    return Breakdown(
        title=own.name,
        columns=["measure", "mean", "95 % interval", summary.group_noun, "how to read it"],
        rows=[
            [
                title_of(name).text,
                number_text(found[name].value),
                _interval_text(found[name]),
                str(found[name].groups),
                title_of(name).reading.format(unit=summary.distance_unit),
            ]
            for name in listed
        ],
    )


def mean_tables(own: ClassSummary, summary: Summary) -> tuple[Breakdown, Breakdown]:
    """The measures that everybody asks for, and the others."""
    others = [name for name in own.means if name not in FIRST_MEASURES]
    return mean_table(own, summary, FIRST_MEASURES), mean_table(own, summary, others)


def topology_table(summary: Summary) -> Breakdown:
    """Scores of cells that fill the image, at the threshold that is best for each."""
    return Breakdown(
        title="Cells that fill the image",
        columns=["score", "best over thresholds", "at threshold", "of the masks as predicted"],
        rows=[
            [
                title_of(name).text,
                f"{best.value:.4f}",
                f"{best.threshold:.2f}",
                f"{best.at_rule:.4f}",
            ]
            for name, best in summary.topology.items()
        ],
        note=_topology_note(summary),
    )


def _topology_note(summary: Summary) -> str:
    images = max((best.images for best in summary.topology.values()), default=0)
    return "" if images == summary.cases else f"Of {images} of the {summary.cases} images."


def kind_table(summary: Summary) -> Breakdown:
    """How many cases of each kind a class has; what is empty is averaged in nowhere."""
    rows = []
    for own in summary.classes:
        alarms = own.case_kinds["false alarm"]
        empty = alarms + own.case_kinds["both empty"]
        rate = f"{alarms} of {empty} ({alarms / empty:.0%})" if empty else "no empty cases"
        rows.append([own.name, *(str(own.case_kinds[kind]) for kind in KINDS), rate])
    return Breakdown(
        title="Cases by kind",
        columns=["class", *KINDS, "false alarms on empty cases"],
        rows=rows,
        note="Missed: in the truth, and the prediction nowhere meets it; its Dice is 0 and counts "
        "in the mean. False alarms and cases empty in both are counted here, never averaged in.",
    )


def score_table(title: str, scores: Sequence[CaseScore], *, of_cases: bool) -> Breakdown:
    """A row for each score, in the order given.

    Args:
        of_cases: The scores are of single cases; else of groups.
    """
    measured = {
        name for score in scores for name, value in score.measures.items() if value is not None
    }
    measures = [name for name in CASE_MEASURES if name in measured]
    titles = [title_of(name).text for name in measures]
    names = ["case", "group"] if of_cases else ["group"]
    hidden = len(scores) - MAX_ROWS
    return Breakdown(
        title=title,
        columns=[*names, "class", "kind", "Dice", *titles, "truth px", "predicted px"],
        rows=[
            [
                *([score.case, score.group] if of_cases else [score.group]),
                score.class_name,
                score.kind,
                number_text(score.dice),
                *(number_text(score.measures.get(name)) for name in measures),
                count_text(score.counts.truth),
                count_text(score.counts.predicted),
            ]
            for score in scores[:MAX_ROWS]
        ],
        note=f"{count_text(hidden)} more rows are in scores.csv." if hidden > 0 else "",
    )


def size_bands(scores: Sequence[CaseScore], class_name: str) -> Breakdown:
    """Dice by the size of the truth: parts of equally many cases, from small to large."""
    own = [score for score in scores if score.class_name == class_name and score.counts.truth]
    own.sort(key=lambda score: score.counts.truth)
    rows = []
    for part in np.array_split(np.arange(len(own)), min(BANDS, len(own))) if own else ():
        band = [own[place] for place in part]
        dice = [score.dice or 0.0 for score in band]
        rows.append(
            [
                f"{count_text(band[0].counts.truth)} to {count_text(band[-1].counts.truth)}",
                str(len(band)),
                number_text(float(np.median(dice))),
                number_text(min(dice)),
                str(sum(score.kind == "missed" for score in band)),
            ]
        )
    return Breakdown(
        title=f"{class_name}: Dice by the size of the truth",
        columns=["truth px", "cases", "median Dice", "lowest Dice", "missed"],
        rows=rows,
    )


def epoch_table(epochs: Sequence[Mapping[str, float | None]]) -> Breakdown:
    """Loss and Dice of each epoch, as `plots.epoch_data` has them."""
    return Breakdown(
        title="Epochs",
        columns=["epoch", "training loss", "validation Dice"],
        rows=[
            [f"{row['epoch'] or 0:.0f}", number_text(row["loss"]), number_text(row["dice"])]
            for row in epochs
        ],
    )


def reliability_table(own: ClassSummary) -> Breakdown | None:
    """How often pixels of similar probability are of the class; None where nobody measured."""
    if own.reliability is None:
        return None
    error, brier = own.reliability.expected_calibration_error, own.reliability.brier
    return Breakdown(
        title=f"{own.name}: expected calibration error {number_text(error) or '-'}, "
        f"Brier score {number_text(brier) or '-'}",
        columns=["mean probability", "share that is true", "pixels"],
        rows=[
            [
                number_text(point.mean_probability),
                number_text(point.truth_share),
                count_text(point.pixels),
            ]
            for point in own.reliability.curve
        ],
    )


def worst_first(scores: Sequence[CaseScore]) -> list[CaseScore]:
    """By Dice; those without one at the end."""
    return sorted(scores, key=lambda score: (score.dice is None, score.dice or 0.0))


def _interval_text(mean: Mean) -> str:
    """'' where one group alone says nothing about the spread."""
    if mean.interval is None:
        return ""
    ends = (mean.interval.low, mean.interval.high)
    return " to ".join(number_text(end, like=mean.value) for end in ends)
