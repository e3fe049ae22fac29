"""Scores of one case or group, and the CSV file that stores those of all cases."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ushape.errors import RunError
from ushape.formatting import read_csv, reason, to_csv
from ushape.io.files import write_bytes
from ushape.labels import LabelSpace
from ushape.metrics import METRICS
from ushape.metrics.overlap import (
    CaseKind,
    Counts,
    case_kind,
    count_classes,
    dice,
    mean_known,
    pixel_error,
)

COUNT_COLUMNS = ("truth_px", "predicted_px", "overlap_px", "counted_px", "pixel_error")
"""Columns of scores.csv from which all overlap metrics can be recomputed."""

RENAMED_METRICS = {"mask_doubt": "label_error_score"}
"""Current names of metrics that earlier versions stored under another name."""


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """Scores of one class in one case, or in one group (then `case` is empty)."""

    case: str
    group: str
    class_name: str
    counts: Counts
    pixel_error: float
    """Fraction of the pixels of the case with a wrong class, whichever class it is."""

    metrics: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """Results of `compute_case_metrics` by name; None where a metric is undefined."""

    @property
    def dice(self) -> float | None:
        """Dice; None if the class is neither annotated nor predicted."""
        return dice(self.counts)

    @property
    def kind(self) -> CaseKind:
        """Whether the class is present in annotation and prediction."""
        return case_kind(self.counts)


def score_case(
    case_id: str,
    group: str,
    predicted: np.ndarray,
    truth: np.ndarray,
    space: LabelSpace,
    metrics: Sequence[Mapping[str, float | None]] = (),
) -> list[CaseScore]:
    """Score each foreground class or region of a case.

    Args:
        metrics: Further metrics of each class, in the order of `space.scored`.

    Shapes:
        predicted, truth: (*S) class indices; pixels marked IGNORE in the truth are excluded.
    """
    error = pixel_error(predicted, truth)
    counts = count_classes(predicted, truth, space.scored)
    return [
        CaseScore(
            case=case_id,
            group=group,
            class_name=region.name,
            counts=counts[place],
            pixel_error=error,
            metrics=metrics[place] if metrics else {},
        )
        for place, region in enumerate(space.scored)
    ]


def pool_groups(scores: Sequence[CaseScore]) -> list[CaseScore]:
    """Return one score for each group and class.

    The pixel counts of all cases of a group are added, as for the slices of a volume. Other
    metrics are averaged over the cases in which the class is annotated, or over all cases if
    there is none.
    """
    pooled: dict[tuple[str, str], list[CaseScore]] = {}
    for score in scores:
        pooled.setdefault((score.group, score.class_name), []).append(score)
    return [
        CaseScore(
            case="",
            group=group,
            class_name=class_name,
            counts=sum((s.counts for s in own[1:]), own[0].counts),
            pixel_error=float(np.mean([s.pixel_error for s in own])),
            metrics=_mean_metrics([s for s in own if s.counts.truth] or own),
        )
        for (group, class_name), own in pooled.items()
    ]


def case_dice(scores: Sequence[CaseScore]) -> float | None:
    """Return the mean Dice of one case over the classes annotated in it; None if there are none.

    Classes that are predicted but not annotated are counted as false positives, never averaged.

    Args:
        scores: Scores of the case, one for each class.
    """
    return mean_known(score.dice for score in scores if score.counts.truth)


def false_positive_px(scores: Sequence[CaseScore]) -> int:
    """Return the number of predicted pixels of a case in which no class is annotated, or else 0.

    Args:
        scores: Scores of the case, one for each class.
    """
    is_annotated = any(score.counts.truth for score in scores)
    return 0 if is_annotated else sum(score.counts.predicted for score in scores)


def by_case(scores: Sequence[CaseScore]) -> dict[str, list[CaseScore]]:
    """Return the scores of each case, one for each class, by case identifier."""
    found: dict[str, list[CaseScore]] = {}
    for score in scores:
        found.setdefault(score.case, []).append(score)
    return found


def dice_by_case(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Return `case_dice` by case identifier, without the cases that have none."""
    dice = {case_id: case_dice(own) for case_id, own in by_case(scores).items()}
    return {case_id: value for case_id, value in dice.items() if value is not None}


def write_scores(path: Path, scores: Sequence[CaseScore]) -> None:
    """Write one row for each case and class; undefined values are empty fields."""
    names = dict.fromkeys(name for score in scores for name in score.metrics)
    columns = ["case", "group", "class", "kind", *METRICS, *COUNT_COLUMNS, *names]
    write_bytes(path, to_csv(columns, [_to_row(score) for score in scores]))


def read_scores(path: Path) -> list[CaseScore]:
    """Read a file of `write_scores`.

    Raises:
        RunError: if the file is missing, damaged, or not a table of scores.
    """
    return [score for _, score in _read_rows(path)]


def write_baseline_scores(path: Path, scores: Iterable[tuple[str, Sequence[CaseScore]]]) -> None:
    """Write one row for each baseline, case and class.

    Args:
        scores: Name and scores of each baseline.
    """
    columns = ["baseline", "case", "group", "class", "kind", *METRICS, *COUNT_COLUMNS]
    rows = [{"baseline": name, **_to_row(one)} for name, own in scores for one in own]
    write_bytes(path, to_csv(columns, rows))


def read_baseline_scores(path: Path) -> dict[str, list[CaseScore]]:
    """Read a file of `write_baseline_scores`; empty if it does not exist, as in older runs.

    Raises:
        RunError: if the file is damaged.
    """
    found: dict[str, list[CaseScore]] = {}
    if path.exists():
        for name, score in _read_rows(path):
            found.setdefault(name, []).append(score)
    return found


def _read_rows(path: Path) -> list[tuple[str, CaseScore]]:
    """Read the rows of a table of scores, each with the name of its baseline ('' without one).

    Raises:
        RunError: if the file is missing, damaged, or not a table of scores.
    """
    try:
        rows = read_csv(path.read_bytes())
        return [(row.pop("baseline", ""), _from_row(row)) for row in rows]
    except KeyError as error:
        problem = f"column {error.args[0]} is missing"
    except (OSError, ValueError, TypeError, csv.Error) as error:  # TypeError: a truncated row.
        problem = reason(error)
    raise RunError(
        f"{path} is not a table of scores written by ushape: {problem}.",
        code="invalid_scores",
        hint="Run `ushape evaluate RUN` to write it again.",
    )


def _to_row(score: CaseScore) -> dict[str, Any]:
    counts = score.counts
    return {
        "case": score.case,
        "group": score.group,
        "class": score.class_name,
        "kind": score.kind,
        "truth_px": counts.truth,
        "predicted_px": counts.predicted,
        "overlap_px": counts.overlap,
        "counted_px": counts.pixels,
        "pixel_error": _field(score.pixel_error),
        **{name: _field(metric(counts)) for name, metric in METRICS.items()},
        **{name: _field(value) for name, value in score.metrics.items()},
    }


def _from_row(row: Mapping[str, str]) -> CaseScore:
    known = {"case", "group", "class", "kind", *METRICS, *COUNT_COLUMNS}
    return CaseScore(
        case=row["case"],
        group=row["group"],
        class_name=row["class"],
        counts=_counts_of(row),
        pixel_error=_finite(row["pixel_error"]),
        metrics={
            RENAMED_METRICS.get(name, name): _finite(text) if text else None
            for name, text in row.items()
            if name not in known
        },
    )


def _counts_of(row: Mapping[str, str]) -> Counts:
    """Read the pixel counts of a row.

    Raises:
        ValueError: if the counts contradict each other.
    """
    counts = Counts(
        overlap=int(row["overlap_px"]),
        truth=int(row["truth_px"]),
        predicted=int(row["predicted_px"]),
        pixels=int(row["counted_px"]),
    )
    largest = max(counts.truth, counts.predicted)
    if not 0 <= counts.overlap <= min(counts.truth, counts.predicted) <= largest <= counts.pixels:
        raise ValueError(f"the pixel counts of {row['case']} contradict each other")
    return counts


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _field(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _mean_metrics(scores: Sequence[CaseScore]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for score in scores for name in score.metrics):
        values = [v for score in scores if (v := score.metrics.get(name)) is not None]
        found[name] = float(np.mean(values)) if values else None
    return found
