"""Tables of the report: scores as text, and the display names of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ushape.evaluation.baselines import BASELINE_TEXTS
from ushape.evaluation.case_metrics import AP_IOUS
from ushape.evaluation.class_scores import ClassScores, Mean
from ushape.evaluation.scores import CaseScore
from ushape.evaluation.summary import Summary
from ushape.formatting import TextTable, count_text, number_text
from ushape.metrics.overlap import CASE_KINDS
from ushape.metrics.stats import RELIABLE_FROM

MAX_ROWS = 1000
"""Maximum number of rows of a table; scores.csv contains all of them."""

MAIN_METRICS = (
    *("dice", "iou", "precision", "recall", "hausdorff95", "average_surface_distance"),
    *("surface_dice", "object_f1"),
)
"""Metrics of the main table; the others are in a collapsed table."""

OBJECT_METRICS = (
    *("object_f1", "object_ap_mean", "object_average_precision", "panoptic_quality", "seg"),
    *("true_objects", "predicted_objects", "missed_objects", "false_positive_objects"),
    *("object_splits", "object_merges", "object_count_error"),
)
"""Metrics that come first in the main table if the masks are about objects."""

CASE_METRICS = (
    *("hausdorff95", "surface_dice", "object_f1", "calibration_error", "label_error_score"),
)
"""Columns of a table of cases in addition to Dice; scores.csv contains all metrics."""

SIZE_BINS = 5
"""Maximum number of bins of equally many cases in the table of Dice by object size."""

MIN_BIN_CASES = 4
"""Minimum number of cases in a bin: a median of fewer says nothing about a size."""


@dataclass(frozen=True)
class MetricName:
    """Display name of a metric."""

    text: str
    explanation: str = "1 is best"
    """Unit and interpretation; {unit} stands for the unit of distances."""

    short: str = ""
    """Abbreviation for the columns of wide tables; '' for `text`."""


METRIC_NAMES: Mapping[str, MetricName] = {
    "dice": MetricName("Dice"),
    "iou": MetricName("IoU"),
    "precision": MetricName("Precision", "fraction of the predicted pixels that are correct"),
    "recall": MetricName("Recall", "fraction of the annotated pixels that are found"),
    "volume_difference": MetricName(
        "Volume difference", "relative to the annotation; negative if too small"
    ),
    "balanced_accuracy": MetricName("Balanced accuracy", "mean of recall and specificity"),
    "hausdorff95": MetricName(
        "Hausdorff distance (95th percentile)", "{unit}; 0 is best", short="HD95"
    ),
    "average_surface_distance": MetricName("Average surface distance", "{unit}; 0 is best"),
    "surface_dice": MetricName("Surface Dice", "fraction of both surfaces within 2 pixels"),
    "object_f1": MetricName("Object F1", "objects matched at IoU 0.5; 1 is best"),
    "object_ap_mean": MetricName(
        "Object AP (StarDist)", "mean over IoU 0.5 to 0.9; 1 is best", short="Object AP"
    ),
    "object_average_precision": MetricName(
        "Object AP (Data Science Bowl 2018)", "mean over IoU 0.5 to 0.95; 1 is best"
    ),
    "panoptic_quality": MetricName("Panoptic quality (PQ)", "object F1 times SQ; 1 is best"),
    "segmentation_quality": MetricName(
        "Segmentation quality (SQ)", "mean IoU of the objects found; 1 is best"
    ),
    "seg": MetricName(
        "SEG (Cell Tracking Challenge)", "mean IoU of the annotated objects; 1 is best"
    ),
    "true_objects": MetricName("Annotated objects", "mean number per image"),
    "predicted_objects": MetricName("Predicted objects", "mean number per image"),
    "missed_objects": MetricName("Missed objects", "mean number per image; 0 is best"),
    "false_positive_objects": MetricName(
        "False positive objects", "mean number per image; 0 is best"
    ),
    "object_splits": MetricName("Splits", "mean number of split objects per image; 0 is best"),
    "object_merges": MetricName(
        "Merges",
        "mean number of predicted objects per image that merge several annotated objects; "
        "0 is best",
    ),
    "object_count_error": MetricName(
        "Count error", "absolute difference in objects per image; 0 is best"
    ),
    "object_count_difference": MetricName(
        "Count difference", "relative to the annotated objects; negative if too few"
    ),
    "rand": MetricName("V_rand"),
    "information": MetricName("V_info"),
    "variation": MetricName("Variation of information", "bits; 0 is best"),
    "warping_error": MetricName("Warping error", "fraction of pixels; 0 is best"),
    "auroc": MetricName("AUROC", "pixel-wise; 0.5 is chance level, 1 is best"),
    "average_precision": MetricName("Average precision", "pixel-wise; 1 is best"),
    "brier": MetricName("Brier score", "0 is best"),
    "calibration_error": MetricName("Expected calibration error", "0 is best", short="ECE"),
    "label_error_score": MetricName("Label error score", "high values indicate annotation errors"),
}


def metric_name(name: str) -> MetricName:
    """Return the display name of a metric; for an unknown one, made of its name."""
    return METRIC_NAMES.get(name) or MetricName(name.replace("_", " ").capitalize(), "")


def mean_table(own: ClassScores, summary: Summary, names: Iterable[str] | None = None) -> TextTable:
    """Return the mean metrics of a class, without undefined ones and the points of curves.

    Args:
        names: Metrics in the order of the rows; None: all.
    """
    found = {name: mean for name, mean in own.means.items() if mean.value is not None}
    listed = [
        name
        for name in (found if names is None else names)
        if name in found and name not in AP_IOUS
    ]
    return TextTable(
        title=own.name,
        columns=["metric", "mean", "95% CI", summary.group_noun, "interpretation"],
        rows=[
            [
                metric_name(name).text,
                number_text(found[name].value),
                _interval_text(found[name]),
                str(found[name].groups),
                metric_name(name).explanation.format(unit=summary.distance_unit),
            ]
            for name in listed
        ],
    )


def mean_tables(own: ClassScores, summary: Summary) -> tuple[TextTable, TextTable]:
    """Return the table of the main metrics and that of all others."""
    first = (*OBJECT_METRICS, *MAIN_METRICS) if summary.is_about_objects else MAIN_METRICS
    others = [name for name in own.means if name not in first]
    return mean_table(own, summary, dict.fromkeys(first)), mean_table(own, summary, others)


def baseline_table(own: ClassScores, summary: Summary) -> TextTable:
    """Return the Dice of the trivial baselines and its difference to that of the network."""
    rows = [
        [
            BASELINE_TEXTS[base.name].format(name=own.name),
            number_text(base.mean_dice),
            f"{base.difference.value or 0:+.3f}",
            _signed_interval(base.difference),
            "yes" if base.is_exceeded else "no",
        ]
        for base in sorted(own.baselines, key=lambda one: -one.mean_dice)
    ]
    return TextTable(
        title=f"{own.name}: trivial baselines",
        columns=["baseline", "mean Dice", "gain of the network", "95% CI", "better"],
        rows=rows,
        note=f"Evaluated on the same {summary.group_noun} and averaged in the same way; gains are "
        f"paired by group. {summary.baseline_note}".rstrip(),
    )


def topology_table(summary: Summary) -> TextTable:
    """Return the topology metrics, each at its optimal threshold and for the predicted masks."""
    return TextTable(
        title="Topology of cells and membranes",
        columns=[
            "metric",
            "predicted masks",
            "at threshold 0.5",
            "at optimal threshold",
            "optimal threshold",
        ],
        rows=[
            [
                metric_name(name).text,
                f"{best.at_rule:.4f}",
                "" if best.at_default is None else f"{best.at_default:.4f}",
                f"{best.value:.4f}",
                f"{best.threshold:.2f}",
            ]
            for name, best in summary.topology.items()
        ],
        note=_topology_note(summary),
    )


def _topology_note(summary: Summary) -> str:
    images = max((best.images for best in summary.topology.values()), default=0)
    if images == summary.cases:
        return ""
    return f"Computed for {images} of the {summary.cases} images."


def kind_table(summary: Summary) -> TextTable:
    """Return the number of images of each kind for each class."""
    rows = []
    for own in summary.classes:
        found, empty = own.false_positives, own.cases_without_truth
        rate = f"{found} of {empty} ({found / empty:.0%})" if empty else ""
        rows.append([own.name, *(str(own.case_kinds[kind]) for kind in CASE_KINDS), rate])
    return TextTable(
        title="Detection per image",
        columns=["class", *CASE_KINDS, "false positive rate"],
        rows=rows,
        note="Missed: the class is annotated, but no predicted pixel overlaps the annotation; the "
        "Dice is 0 and included in the mean. Images without annotation (false positive, both "
        "empty) are reported here and excluded from the mean.",
    )


def score_table(
    title: str, scores: Sequence[CaseScore], *, of_cases: bool, unit: str = "px"
) -> TextTable:
    """Return a table with one row for each score, at most `MAX_ROWS`.

    The class and the group are omitted if they are the same, or the case, in all rows.

    Args:
        scores: Scores in the order of the rows.
        of_cases: Whether the scores are those of cases (True) or groups (False).
    """
    columns: dict[str, Callable[[CaseScore], str]] = {}
    if of_cases:
        columns["image"] = lambda score: score.case
    if not of_cases or any(score.group != score.case for score in scores):
        columns["group"] = lambda score: score.group
    if len({score.class_name for score in scores}) > 1:
        columns["class"] = lambda score: score.class_name
    columns["result"] = lambda score: score.kind
    columns["Dice"] = lambda score: number_text(score.dice if score.counts.truth else None)
    metrics = [
        name for name in CASE_METRICS if any(s.metrics.get(name) is not None for s in scores)
    ]
    for name in metrics:
        columns[_short_name(name, unit)] = partial(_metric_text, name)
    columns["annotated px"] = lambda score: count_text(score.counts.truth)
    columns["predicted px"] = lambda score: count_text(score.counts.predicted)

    hidden = len(scores) - MAX_ROWS
    notes = [f"{m.short}: {m.text}." for name in metrics if (m := metric_name(name)).short]
    if hidden > 0:
        notes.append(f"{count_text(hidden)} more rows are in scores.csv.")
    return TextTable(
        title=title,
        columns=tuple(columns),
        rows=[[text(score) for text in columns.values()] for score in scores[:MAX_ROWS]],
        note=" ".join(notes),
    )


def _metric_text(name: str, score: CaseScore) -> str:
    return number_text(score.metrics.get(name))


def _short_name(name: str, unit: str) -> str:
    metric = metric_name(name)
    short = metric.short or metric.text
    return f"{short} ({unit})" if "{unit}" in metric.explanation else short


def size_table(scores: Sequence[CaseScore], class_name: str) -> TextTable:
    """Return the Dice by annotated size, in bins of equally many cases.

    No rows if there are too few cases for two bins.
    """
    own = [score for score in scores if score.class_name == class_name and score.counts.truth]
    own.sort(key=lambda score: score.counts.truth)
    rows = []
    bins = min(SIZE_BINS, len(own) // MIN_BIN_CASES)
    for part in np.array_split(np.arange(len(own)), bins) if bins > 1 else ():
        members = [own[place] for place in part]
        sizes = [score.counts.truth for score in members]
        dice = [score.dice or 0.0 for score in members]
        rows.append(
            [
                f"{count_text(sizes[0])} to {count_text(sizes[-1])}",
                str(len(members)),
                number_text(float(np.median(dice))),
                number_text(min(dice)),
                str(sum(score.kind == "missed" for score in members)),
            ]
        )
    return TextTable(
        title=f"{class_name}: Dice by annotated size",
        columns=["annotated px", "images", "median Dice", "lowest Dice", "missed"],
        rows=rows,
        note=f"Bins of fewer than {RELIABLE_FROM} images are unreliable."
        if 0 < len(own) < RELIABLE_FROM * bins
        else "",
    )


def epoch_table(epochs: Sequence[Mapping[str, float | None]]) -> TextTable:
    """Return losses and Dice of each epoch, given as by `gallery.epoch_data`."""
    names = ("loss", "validationLoss", "dice")
    return TextTable(
        title="Epochs",
        columns=["epoch", "training loss", "validation loss", "validation Dice"],
        rows=[
            [f"{row['epoch'] or 0:.0f}", *(number_text(row[name]) for name in names)]
            for row in epochs
        ],
    )


def reliability_table(own: ClassScores) -> TextTable | None:
    """Return the points of the reliability diagram; None if there are no measurements."""
    if own.reliability is None:
        return None
    error, brier = own.reliability.expected_calibration_error, own.reliability.brier
    return TextTable(
        title=f"{own.name}: expected calibration error {number_text(error) or '-'}, "
        f"Brier score {number_text(brier) or '-'}",
        columns=["mean probability", "observed frequency", "pixels"],
        rows=[
            [
                number_text(point.mean_probability),
                number_text(point.positive_fraction),
                count_text(point.pixels),
            ]
            for point in own.reliability.curve
        ],
    )


def threshold_table(own: ClassScores) -> TextTable:
    """Return Dice, precision and recall at some thresholds; no rows for older runs."""
    return TextTable(
        title=f"{own.name}: scores at each probability threshold",
        columns=["threshold", "mean Dice", "precision", "recall"],
        rows=[
            [f"{one.threshold:.2f}", *map(number_text, (one.dice, one.precision, one.recall))]
            for one in own.threshold_curve[4::5]  # 0.1, 0.2, ..., 0.9.
        ],
    )


def object_count_table(scores: Sequence[CaseScore]) -> TextTable:
    """Return the numbers of objects of each class in all images; no rows for older runs."""
    columns = {
        "annotated": "true_objects",
        "missed": "missed_objects",
        "splits": "object_splits",
        "predicted": "predicted_objects",
        "false positives": "false_positive_objects",
        "merges": "object_merges",
    }
    rows = []
    for class_name in dict.fromkeys(score.class_name for score in scores):
        own = [score.metrics for score in scores if score.class_name == class_name]
        if all(name in metrics for metrics in own for name in columns.values()):
            sums = [sum(metrics[name] or 0 for metrics in own) for name in columns.values()]
            rows.append([class_name, *(count_text(round(total)) for total in sums)])
    return TextTable(
        title="Objects in all images",
        columns=["class", *columns],
        rows=rows,
        note="A split is an annotated object that contains more than half of each of at least two "
        "predicted objects, each of which covers at least a tenth of it. A merge is a predicted "
        "object that contains more than half of each of at least two annotated objects. Missed "
        "objects and false positives have no IoU above 0.5 and are not part of a split or merge.",
    )


def object_table(summary: Summary) -> TextTable:
    """Return the average precision of objects at each IoU threshold; a column for each class."""
    found = [own for own in summary.classes if _mean_value(own, "object_ap_50") is not None]
    return TextTable(
        title="Average precision of objects by IoU threshold",
        columns=["IoU threshold", *(own.name for own in found)],
        rows=[
            [f"{iou:.2f}", *(number_text(_mean_value(own, name)) for own in found)]
            for name, iou in AP_IOUS.items()
        ]
        if found
        else [],
    )


def _mean_value(own: ClassScores, name: str) -> float | None:
    return own.means[name].value if name in own.means else None


def worst_first(scores: Sequence[CaseScore]) -> list[CaseScore]:
    """Return the scores by increasing Dice, then false positives by size, then empty cases.

    Only the Dice of annotated classes is compared: that of any false positive is 0.
    """

    def rank(score: CaseScore) -> tuple[int, float]:
        if score.counts.truth:
            return 0, score.dice or 0.0
        return (1, -score.counts.predicted) if score.counts.predicted else (2, 0.0)

    return sorted(scores, key=rank)


def _signed_interval(mean: Mean) -> str:
    interval = mean.interval
    return "" if interval is None else f"{interval.low:+.3f} to {interval.high:+.3f}"


def _interval_text(mean: Mean) -> str:
    """Return the interval as text; '' for fewer than two groups."""
    if mean.interval is None:
        return ""
    ends = (mean.interval.low, mean.interval.high)
    return " to ".join(number_text(end, like=mean.value) for end in ends)
