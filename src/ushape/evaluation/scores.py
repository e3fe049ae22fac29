"""One case -> its scores, and the file that holds those of all cases."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ushape.errors import RunError
from ushape.formatting import reason
from ushape.io.files import write_bytes
from ushape.labels import LabelSpace
from ushape.metrics import METRICS
from ushape.metrics.overlap import Counts, Kind, count_overlap, dice, kind_of, pixel_error

COUNTED = ("truth_px", "predicted_px", "overlap_px", "counted_px", "pixel_error")
"""Columns of scores.csv from which the scores of pixels can be made again."""


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """One class in one case, or in one group (case is then empty)."""

    case: str
    group: str
    class_name: str
    counts: Counts
    pixel_error: float
    """Share of the case's pixels with a wrong class, whichever."""

    measures: Mapping[str, float | None] = field(default_factory=dict, hash=False)
    """What `measures.measure_case` found; None where a measure has no value."""

    @property
    def dice(self) -> float | None:
        return dice(self.counts)

    @property
    def kind(self) -> Kind:
        return kind_of(self.counts)


def score_case(
    case_id: str,
    group: str,
    predicted: np.ndarray,
    truth: np.ndarray,
    space: LabelSpace,
    measures: Sequence[Mapping[str, float | None]] = (),
) -> list[CaseScore]:
    """One score for each foreground class or region.

    Args:
        measures: What else was measured, for each of them.

    Shapes:
        predicted, truth: (*S) class indices; IGNORE in the truth counts nowhere.
    """
    error = pixel_error(predicted, truth)
    return [
        CaseScore(
            case=case_id,
            group=group,
            class_name=region.name,
            counts=count_overlap(predicted, truth, region),
            pixel_error=error,
            measures=measures[place] if measures else {},
        )
        for place, region in enumerate(space.scored)
    ]


def pool_groups(scores: Sequence[CaseScore]) -> list[CaseScore]:
    """One score for each group and class: the pixels of all its cases together, as in 3D; of
    measures that are no counts, the mean over its cases that hold the class, or over all where
    none does."""
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
            measures=_mean_measures([s for s in own if s.counts.truth] or own),
        )
        for (group, class_name), own in pooled.items()
    ]


def mean_dice(scores: Sequence[CaseScore]) -> float | None:
    """Of one case, over its classes; None where none is in the truth or the prediction."""
    known = [score.dice for score in scores if score.dice is not None]
    return sum(known) / len(known) if known else None


def by_case(scores: Sequence[CaseScore]) -> dict[str, list[CaseScore]]:
    """The scores of each case, one for each class."""
    found: dict[str, list[CaseScore]] = {}
    for score in scores:
        found.setdefault(score.case, []).append(score)
    return found


def mean_dice_by_case(scores: Sequence[CaseScore]) -> dict[str, float]:
    """`mean_dice` of the cases that have one."""
    dice = {case_id: mean_dice(own) for case_id, own in by_case(scores).items()}
    return {case_id: value for case_id, value in dice.items() if value is not None}


def write_scores(path: Path, scores: Sequence[CaseScore]) -> None:
    """A row for each case and class; an empty field where a score has no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measured = list(dict.fromkeys(name for score in scores for name in score.measures))
    writer.writerow(["case", "group", "class", "kind", *METRICS, *COUNTED, *measured])
    for score in scores:
        values = [metric(score.counts) for metric in METRICS.values()]
        writer.writerow(
            [
                score.case,
                score.group,
                score.class_name,
                score.kind,
                *map(_number_text, values),
                score.counts.truth,
                score.counts.predicted,
                score.counts.overlap,
                score.counts.pixels,
                _number_text(score.pixel_error),
                *(_number_text(score.measures.get(name)) for name in measured),
            ]
        )
    write_bytes(path, text.getvalue().encode())


def read_scores(path: Path) -> list[CaseScore]:
    """What `write_scores` wrote.

    Raises:
        RunError: missing, or another file.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
        known = {"case", "group", "class", "kind", *METRICS, *COUNTED}
        return [
            CaseScore(
                case=row["case"],
                group=row["group"],
                class_name=row["class"],
                counts=_counts_of(row),
                pixel_error=_number(row["pixel_error"]),
                measures={
                    name: _number(text) if text else None
                    for name, text in row.items()
                    if name not in known
                },
            )
            for row in rows
        ]
    except KeyError as error:
        raise RunError(
            f"{path}: no column {error.args[0]}.", hint="ushape evaluate RUN writes it anew."
        ) from None
    except (OSError, ValueError, TypeError, csv.Error) as error:  # TypeError: a cut row.
        raise RunError(
            f"{path}: no scores of ushape: {reason(error)}.",
            hint="ushape evaluate RUN writes them anew.",
        ) from None


def _counts_of(row: Mapping[str, str]) -> Counts:
    """Raises ValueError for counts that no case has."""
    counts = Counts(
        overlap=int(row["overlap_px"]),
        truth=int(row["truth_px"]),
        predicted=int(row["predicted_px"]),
        pixels=int(row["counted_px"]),
    )
    largest = max(counts.truth, counts.predicted)
    if not 0 <= counts.overlap <= min(counts.truth, counts.predicted) <= largest <= counts.pixels:
        raise ValueError(f"impossible counts of {row['case']}")
    return counts


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no score")
    return value


def _mean_measures(scores: Sequence[CaseScore]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for score in scores for name in score.measures):
        values = [v for score in scores if (v := score.measures.get(name)) is not None]
        found[name] = float(np.mean(values)) if values else None
    return found


def _number_text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
