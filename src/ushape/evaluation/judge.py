"""A predictor and annotated cases -> scores, on the files' own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ushape.data.prepare import by_group, mask_size_error, read_classes, read_image
from ushape.errors import DataError
from ushape.evaluation.report import CasePicture
from ushape.evaluation.score import CaseScore, score_case
from ushape.prediction.predictor import Predictor
from ushape.prediction.uncertainty import rank_correlation
from ushape.spatial.components import keep_largest
from ushape.types import Case, Prediction
from ushape.words import natural_order


@dataclass(frozen=True)
class Judged:
    """Annotated cases, predicted and compared."""

    scores: list[CaseScore]
    confidence: dict[str, float]
    """How sure the networks are, by case id."""

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of confidence and true Dice; None where there are too few cases."""
        true = mean_dice_by_case(self.scores)
        return rank_correlation(
            list(self.confidence.values()), [true.get(case_id) for case_id in self.confidence]
        )


def judge_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """Predicts each case and compares with its mask, one case in memory at a time.

    Raises:
        DataError: a file that cannot be read, a mask of another size, an unknown mask value.
    """
    scores: list[CaseScore] = []
    confidence: dict[str, float] = {}
    space = predictor.plan.preparation.space
    for group in by_group(cases).values():
        for case, predicted, sure in predict_group(predictor, group):
            truth = read_classes(case, space)
            assert truth is not None, "only annotated cases are judged"
            if predicted.shape != truth.shape:
                raise mask_size_error(case, predicted.shape, truth.shape)
            scores += score_case(case.id, case.group, predicted, truth, space)
            confidence[case.id] = sure
            on_progress(len(confidence), len(cases))
    return Judged(scores, confidence)


def predict_group(
    predictor: Predictor, cases: Sequence[Case]
) -> Iterator[tuple[Case, np.ndarray, float]]:
    """Each case of one group with its predicted classes (*S), and the confidence in them.

    Where the recipe keeps the largest component, slices of one size are one volume, in the order
    of the numbers in their names; then all of the group's masks are in memory at once.
    """
    predicted = predictor.predict_many((case, case, cases) for case in cases)
    found = ((case, one.classes, one.confidence) for case, one in _readable(predicted))
    if not predictor.plan.recipe.predict.largest_component:
        yield from found
        return
    ordered = sorted(found, key=lambda one: natural_order(one[0].id))
    masks = [classes for _, classes, _ in ordered]
    if len({mask.shape for mask in masks}) == 1 and masks[0].ndim == 2:
        masks = list(keep_largest(np.stack(masks)))
    else:
        masks = [keep_largest(mask) for mask in masks]
    for (case, _, sure), mask in zip(ordered, masks, strict=True):
        yield case, mask, sure


def _readable(
    predicted: Iterable[tuple[Case, Prediction | DataError]],
) -> Iterator[tuple[Case, Prediction]]:
    """Raises the first error: a score must not leave cases out."""
    for case, prediction in predicted:
        if isinstance(prediction, DataError):
            raise prediction
        yield case, prediction


def take_pictures(
    predictor: Predictor, cases: Sequence[Case], scores: Sequence[CaseScore], each: int = 2
) -> list[CasePicture]:
    """The worst, the median and the best cases, so many of each, with truth and prediction.

    Cases whose truth and prediction are both empty show nothing and are left out.
    """
    by_id, groups = {case.id: case for case in cases}, by_group(cases)
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
        _picture(predictor, by_id[case_id], groups, dice[case_id], label)
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
    groups: Mapping[str, Sequence[Case]],
    dice: float,
    label: str,
) -> CasePicture:
    truth = read_classes(case, predictor.plan.preparation.space)
    assert truth is not None
    group = groups[case.group]
    if predictor.plan.recipe.predict.largest_component:
        predicted = next(mask for one, mask, _ in predict_group(predictor, group) if one == case)
    else:
        predicted = predictor.predict(case, group).classes
    return CasePicture(
        case=case.id,
        group=case.group,
        dice=dice,
        image=read_image(case),
        truth=truth,
        predicted=predicted,
        label=label,
    )
