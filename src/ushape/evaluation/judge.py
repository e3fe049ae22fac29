"""A predictor and annotated cases -> scores, on the files' own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ushape.data.prepare import companions_of, mask_size_error, read_classes, read_image
from ushape.evaluation.report import CasePicture
from ushape.evaluation.score import CaseScore, score_case
from ushape.prediction.predictor import Predictor
from ushape.types import Case


def judge_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CaseScore]:
    """Predicts each case and compares with its mask, one case in memory at a time.

    Raises:
        DataError: a file that cannot be read, a mask of another size, an unknown mask value.
    """
    scores: list[CaseScore] = []
    space = predictor.plan.preparation.space
    companions = companions_of(cases)
    for done, case in enumerate(cases, start=1):
        truth = read_classes(case, space)
        assert truth is not None, "only annotated cases are judged"
        predicted = predictor.predict(case, companions[case.group]).classes
        if predicted.shape != truth.shape:
            raise mask_size_error(case, predicted.shape, truth.shape)
        scores += score_case(case.id, case.group, predicted, truth, space)
        on_progress(done, len(cases))
    return scores


def take_pictures(
    predictor: Predictor, cases: Sequence[Case], scores: Sequence[CaseScore], each: int = 2
) -> list[CasePicture]:
    """The worst, the median and the best cases, so many of each, with truth and prediction.

    Cases whose truth and prediction are both empty show nothing and are left out.
    """
    by_id, companions = {case.id: case for case in cases}, companions_of(cases)
    dice = mean_dice_by_case(scores)
    ranked = sorted(dice, key=lambda case_id: (dice[case_id], case_id))
    middle = max(0, len(ranked) // 2 - each // 2)
    chosen: dict[str, str] = {}
    for label, ids in (
        ("worst", ranked[:each]),
        ("best", ranked[::-1][:each]),
        ("median", ranked[middle : middle + each]),
    ):
        for case_id in ids:
            chosen.setdefault(case_id, label)
    order = {"worst": 0, "median": 1, "best": 2}
    return [
        _picture(predictor, by_id[case_id], companions, dice[case_id], label)
        for case_id, label in sorted(chosen.items(), key=lambda item: order[item[1]])
    ]


def mean_dice_by_case(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Mean over the classes that are in the truth or the prediction; other cases are left out."""
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.dice is not None:
            found.setdefault(score.case, []).append(score.dice)
    return {case_id: sum(values) / len(values) for case_id, values in found.items()}


def _picture(
    predictor: Predictor,
    case: Case,
    companions: Mapping[str, Sequence[Path]],
    dice: float,
    label: str,
) -> CasePicture:
    truth = read_classes(case, predictor.plan.preparation.space)
    assert truth is not None
    return CasePicture(
        case=case.id,
        group=case.group,
        dice=dice,
        image=read_image(case),
        truth=truth,
        predicted=predictor.predict(case, companions[case.group]).classes,
        label=label,
    )
