"""A predictor and annotated cases -> scores and pictures, on the files' own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from ushape.data.preprocessing import by_group, mask_size_error, read_classes, read_image
from ushape.errors import DataError
from ushape.evaluation.case_images import CasePicture, ImageSelection, make_picture
from ushape.evaluation.case_metrics import CaseTruth, Unit, common_unit, compute_case_metrics
from ushape.evaluation.scores import CaseScore, dice_by_case, score_case
from ushape.evaluation.summary import BestScore
from ushape.formatting import natural_order
from ushape.inference.predictor import Predictor
from ushape.inference.uncertainty import rank_correlation
from ushape.io.annotations import read_annotation
from ushape.labels import IGNORE, LabelSpace
from ushape.metrics.probability import Reliability
from ushape.metrics.topology import (
    MAX_TOPOLOGY_PX,
    MIN_CELL_FRACTION,
    ScoreName,
    best_threshold,
    label_cells,
    mean_scores,
    score_section,
    score_thresholds,
)
from ushape.transforms.morphology import keep_largest
from ushape.types import Case, Prediction


@dataclass
class Judged:
    """Annotated cases, predicted and compared."""

    unit: Unit
    scores: list[CaseScore] = field(default_factory=list)
    confidence: dict[str, float] = field(default_factory=dict)
    """How sure the networks are, by case id."""

    reliability: dict[str, Reliability] = field(default_factory=dict)
    """By class name, the pixels of all cases together."""

    pictures: Sequence[CasePicture] = ()
    """Of some of the cases, from the worst to the best."""

    topology: dict[str, BestScore] = field(default_factory=dict)

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of confidence and true Dice; None where there are too few cases."""
        true = dice_by_case(self.scores)
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
    space = predictor.plan.preprocessing.space
    judged = Judged(common_unit([case.image for case in cases]))
    shelf, sections = ImageSelection(), Sections(space)
    for group in by_group(cases).values():
        for case, prediction in predict_group(predictor, group):
            truth = read_truth(case, space, judged.unit)
            if prediction.classes.shape != truth.classes.shape:
                raise mask_size_error(case, prediction.classes.shape, truth.classes.shape)
            if not np.isfinite(prediction.probabilities).all():
                raise DataError(
                    f"{case.id}: the network gives probabilities that are no numbers.",
                    hint="Train again with a lower train.learning_rate.",
                )
            scores = _judge_case(judged, predictor, case, prediction, truth)
            sections.add(prediction, truth.classes)
            rule = predictor.tuning.rule
            shelf.add(
                scores,
                make_picture(
                    case.id, case.group, read_image(case), truth.classes, prediction, space, rule
                ),
            )
            on_progress(len(judged.confidence), len(cases))
    judged.pictures, judged.topology = shelf.pictures, sections.scores()
    return judged


def read_truth(case: Case, space: LabelSpace, unit: Unit) -> CaseTruth:
    """The mask of an annotated case, and its objects where it numbers them.

    Raises:
        DataError: as `read_classes`.
    """
    classes = read_classes(case, space)
    assert classes is not None, "only annotated cases are judged"
    assert case.mask is not None, "as above"
    objects = None
    if space.threshold == 1:  # So masks of object numbers are read (labels.threshold).
        codes = read_annotation(case.mask).codes
        if len(np.unique(codes[codes > 0])) > 1:
            objects = codes
    return CaseTruth(classes=classes, objects=objects, spacing=unit.spacing_of(case.image))


def predict_group(predictor: Predictor, cases: Sequence[Case]) -> Iterator[tuple[Case, Prediction]]:
    """Each case of one group, predicted.

    Where the recipe keeps the largest component, slices of one size are one volume, in the order
    of the numbers in their names; then all of the group's predictions are in memory at once.
    """
    found = _readable(predictor.predict_many((case, case, cases) for case in cases))
    if not predictor.plan.recipe.predict.largest_component:
        yield from found
        return
    ordered = sorted(found, key=lambda one: natural_order(one[0].id))
    masks = [prediction.classes for _, prediction in ordered]
    if len({mask.shape for mask in masks}) == 1 and masks[0].ndim == 2:
        masks = list(keep_largest(np.stack(masks)))
    else:
        masks = [keep_largest(mask) for mask in masks]
    for (case, prediction), mask in zip(ordered, masks, strict=True):
        yield case, replace(prediction, classes=mask)


def _judge_case(
    judged: Judged, predictor: Predictor, case: Case, prediction: Prediction, truth: CaseTruth
) -> list[CaseScore]:
    """Scores one case, and adds it to what is known of all."""
    space, how = predictor.plan.preprocessing.space, predictor.plan.recipe.predict.objects
    measured = compute_case_metrics(prediction, truth, space, how=how)
    for region, own in zip(space.scored, measured, strict=True):
        known = judged.reliability.get(region.name)
        judged.reliability[region.name] = known + own.reliability if known else own.reliability
    values = [own.values for own in measured]
    scores = score_case(
        case.id, case.group, prediction.classes, truth.classes, space, metrics=values
    )
    judged.scores += scores
    judged.confidence[case.id] = prediction.confidence
    return scores


def _readable(
    predicted: Iterable[tuple[Case, Prediction | DataError]],
) -> Iterator[tuple[Case, Prediction]]:
    """Raises the first error: a score must not leave cases out."""
    for case, prediction in predicted:
        if isinstance(prediction, DataError):
            raise prediction
        yield case, prediction


MIN_CELLS = 10
"""In an image, on average."""

SCORES: tuple[ScoreName, ...] = get_args(ScoreName)


@dataclass
class Sections:
    """Collects 2D cases of one foreground class, as many as there is room for; others are left
    alone."""

    space: LabelSpace
    _probabilities: list[np.ndarray] = field(default_factory=list)
    _predicted: list[np.ndarray] = field(default_factory=list)
    _truths: list[np.ndarray] = field(default_factory=list)
    _pixels: int = 0

    def add(self, prediction: Prediction, truth: np.ndarray) -> None:
        """Takes a case for which there is room.

        Shapes:
            truth: (y, x) class indices.
        """
        fits = truth.ndim == 2 and len(self.space.scored) == 1 and not (truth == IGNORE).any()
        if not fits or self._pixels + truth.size > MAX_TOPOLOGY_PX:
            return
        (probability,) = prediction.probabilities[self.space.foreground]
        self._probabilities.append(np.rint(255 * probability).astype(np.uint8))
        self._predicted.append(prediction.classes > 0)
        self._truths.append(truth > 0)
        self._pixels += truth.size

    def scores(self) -> dict[str, BestScore]:
        """The best value over thresholds, by name; none where cells do not fill the images."""
        if not self._are_cells():
            return {}
        found = score_thresholds(self._probabilities, self._truths)
        pairs = zip(self._predicted, self._truths, strict=True)
        at_rule = mean_scores([score_section(predicted, truth) for predicted, truth in pairs])
        best = {name: best_threshold(found, name) for name in SCORES}
        return {
            name: BestScore(
                value=getattr(found[threshold], name),
                threshold=threshold,
                at_rule=getattr(at_rule, name),
                images=len(self._truths),
            )
            for name, threshold in best.items()
        }

    def _are_cells(self) -> bool:
        if not self._truths:
            return False
        share = np.mean([truth.mean() for truth in self._truths])
        cells = np.mean([label_cells(truth).max() for truth in self._truths])
        return bool(share >= MIN_CELL_FRACTION and cells >= MIN_CELLS)
