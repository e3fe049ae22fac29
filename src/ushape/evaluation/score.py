"""Cases -> scores -> a summary that one can stand behind."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ushape.errors import RunError
from ushape.io.atomic import write_bytes
from ushape.labels import LabelSpace
from ushape.metrics import METRICS
from ushape.metrics.overlap import KINDS, Counts, Kind, count_overlap, dice, kind_of, pixel_error
from ushape.metrics.stats import Interval, bootstrap_mean


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """One class in one case, or in one group (case is then empty)."""

    case: str
    group: str
    class_name: str
    counts: Counts
    pixel_error: float
    """Share of the case's pixels with a wrong class, whichever."""

    @property
    def dice(self) -> float | None:
        return dice(self.counts)

    @property
    def kind(self) -> Kind:
        return kind_of(self.counts)


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """The scores of one foreground class.

    Means are over cases, or groups, that hold the class in truth; a missed one scores 0. False
    alarms and pairs of empty masks are counted, never averaged in.
    """

    name: str
    mean_dice: float | None
    """Over groups, the pixels of a group pooled (3D); None where no group holds the class."""

    interval: Interval | None
    mean_case_dice: float | None
    groups_with_truth: int
    missed_groups: int
    case_kinds: dict[Kind, int]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The scores of all cases."""

    classes: tuple[ClassSummary, ...]
    cases: int
    groups: int
    group_noun: str
    pixel_error: float
    """Mean over cases."""

    seen_cases: int = 0
    """Cases whose image was there in training; their scores say nothing about new ones."""

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes that occur."""
        found = [summary.mean_dice for summary in self.classes if summary.mean_dice is not None]
        return float(np.mean(found)) if found else None

    @property
    def verdict(self) -> str:
        """The result in a sentence or two."""
        return " ".join(_judge_class(summary, self) for summary in self.classes) + (
            f" Pixel error {self.pixel_error:.4f}."
        )


def score_case(
    case_id: str, group: str, predicted: np.ndarray, truth: np.ndarray, space: LabelSpace
) -> list[CaseScore]:
    """One score for each foreground class or region.

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
        )
        for region in space.scored
    ]


def pool_groups(scores: Sequence[CaseScore]) -> list[CaseScore]:
    """One score for each group and class: the pixels of all its cases together, as in 3D."""
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
        )
        for (group, class_name), own in pooled.items()
    ]


def summarise(
    scores: Sequence[CaseScore], *, noun: str, seed: int = 0, seen_cases: int = 0
) -> Summary:
    """Means, intervals and counts.

    Args:
        noun: What a group is, in the plural.
        seen_cases: Cases whose image was there in training.
        seed: Of the bootstrap.
    """
    groups = pool_groups(scores)
    names = list(dict.fromkeys(score.class_name for score in scores))
    by_case = {score.case: score.pixel_error for score in scores}
    return Summary(
        classes=tuple(_summarise_class(name, scores, groups, seed) for name in names),
        cases=len(by_case),
        groups=len({score.group for score in groups}),
        group_noun=noun,
        pixel_error=float(np.mean(list(by_case.values()))) if by_case else 0.0,
        seen_cases=seen_cases,
    )


def write_scores(path: Path, scores: Sequence[CaseScore]) -> None:
    """A row for each case and class; an empty field where a score has no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["truth_px", "predicted_px", "overlap_px", "counted_px", "pixel_error"]
    writer.writerow(["case", "group", "class", "kind", *METRICS, *columns])
    for score in scores:
        values = [metric(score.counts) for metric in METRICS.values()]
        writer.writerow(
            [
                score.case,
                score.group,
                score.class_name,
                score.kind,
                *("" if value is None else f"{value:.6f}" for value in values),
                score.counts.truth,
                score.counts.predicted,
                score.counts.overlap,
                score.counts.pixels,
                f"{score.pixel_error:.6f}",
            ]
        )
    write_bytes(path, text.getvalue().encode())


def read_scores(path: Path) -> list[CaseScore]:
    """What `write_scores` wrote.

    Raises:
        RunError: missing, or another file.
    """
    try:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        return [
            CaseScore(
                case=row["case"],
                group=row["group"],
                class_name=row["class"],
                counts=Counts(
                    overlap=int(row["overlap_px"]),
                    truth=int(row["truth_px"]),
                    predicted=int(row["predicted_px"]),
                    pixels=int(row["counted_px"]),
                ),
                pixel_error=float(row["pixel_error"]),
            )
            for row in rows
        ]
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"{path}: no scores of ushape: {error}.", hint="ushape evaluate RUN writes them anew."
        ) from None


def _summarise_class(
    name: str, scores: Sequence[CaseScore], groups: Sequence[CaseScore], seed: int
) -> ClassSummary:
    cases = [score for score in scores if score.class_name == name]
    own_groups = [score for score in groups if score.class_name == name]
    with_truth = [score for score in own_groups if score.counts.truth]
    group_dice = [score.dice or 0.0 for score in with_truth]
    case_dice = [score.dice or 0.0 for score in cases if score.counts.truth]
    kinds = Counter(score.kind for score in cases)
    return ClassSummary(
        name=name,
        mean_dice=float(np.mean(group_dice)) if group_dice else None,
        interval=bootstrap_mean(group_dice, seed=seed),
        mean_case_dice=float(np.mean(case_dice)) if case_dice else None,
        groups_with_truth=len(with_truth),
        missed_groups=sum(score.kind == "missed" for score in with_truth),
        case_kinds={kind: kinds[kind] for kind in KINDS},
    )


def _judge_class(own: ClassSummary, whole: Summary) -> str:
    """E.g. "On 9 groups never seen in training the mean Dice is 0.81 [0.74, 0.87]"."""
    label = "" if len(whole.classes) == 1 else f"{own.name}: "
    if own.mean_dice is None:
        return f"{label}None of the {whole.cases} cases holds any {own.name} to be found."
    noun = whole.group_noun.removesuffix("s") if own.groups_with_truth == 1 else whole.group_noun
    among = f"{own.groups_with_truth} {noun}"
    known = "never seen in training"
    if whole.seen_cases:
        known = f"({whole.seen_cases} of {whole.cases} images were there in training)"
    text = f"{label}On {among} {known} the mean Dice is {own.mean_dice:.3f}"
    if own.interval is not None:
        text += f" [{own.interval.low:.3f}, {own.interval.high:.3f}]"
    text += "."
    if own.interval is not None and not own.interval.is_reliable:
        text += (
            f" With {own.groups_with_truth} {whole.group_noun} the interval is not to be relied on."
        )
    elif own.interval is None:
        text += " One alone says nothing about the spread."
    if own.missed_groups:
        text += f" {own.missed_groups} of them missed."
    alarms = own.case_kinds["false alarm"]
    if empty := alarms + own.case_kinds["both empty"]:
        text += f" False alarms on {alarms} of {empty} images without {own.name}."
    return text
