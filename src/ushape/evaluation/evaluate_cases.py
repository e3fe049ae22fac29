"""Evaluation of a predictor on annotated cases: scores and pictures, on the grid of the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

import numpy as np

from ushape.data.preprocessing import by_group
from ushape.data.reading import mask_size_error, read_classes, read_objects
from ushape.errors import DataError
from ushape.evaluation.baselines import BaselineName, Baselines, score_baselines
from ushape.evaluation.case_images import CasePicture, ImageSelection, make_picture
from ushape.evaluation.case_metrics import (
    CaseTruth,
    OnObjects,
    Unit,
    common_unit,
    compute_case_metrics,
)
from ushape.evaluation.object_pictures import ObjectPicture, ObjectSelection
from ushape.evaluation.pixel_counts import Confusion, PixelCounts, ThresholdPoint
from ushape.evaluation.scores import CaseScore, dice_by_case, score_case
from ushape.evaluation.summary import BestScore
from ushape.formatting import natural_order
from ushape.inference.predictor import Predictor
from ushape.inference.uncertainty import rank_correlation
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

MIN_RANK_CASES = 5
"""Number of cases below which no rank correlation is reported: any order of 4 cases may be chance
(p >= 2 / 4! = 0.08)."""


@dataclass
class Evaluation:
    """Scores and pictures of annotated cases."""

    unit: Unit
    scores: list[CaseScore] = field(default_factory=list)
    confidence: dict[str, float] = field(default_factory=dict)
    """Confidence of the prediction, by case id."""

    reliability: dict[str, Reliability] = field(default_factory=dict)
    """Reliability by class name, over the pixels of all cases."""

    pictures: Sequence[CasePicture] = ()
    """Pictures of some of the cases, from the worst to the best."""

    object_pictures: Sequence[ObjectPicture] = ()
    """Pictures of missed, merged and split objects, from the most errors to the fewest."""

    is_about_objects: bool = False
    """Whether masks number the objects, or contain many that touch, or the run divides them."""

    topology: dict[str, BestScore] = field(default_factory=dict)
    baselines: dict[BaselineName, list[CaseScore]] = field(default_factory=dict)
    """Scores of the trivial baselines, by name."""

    confusion: Confusion | None = None
    curves: dict[str, tuple[ThresholdPoint, ...]] = field(default_factory=dict)
    """Scores at each threshold, by class name."""

    @property
    def rank_cases(self) -> int:
        """Number of cases with a Dice."""
        return len(dice_by_case(self.scores))

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's correlation of confidence and true Dice; None for fewer than 5 cases."""
        if self.rank_cases < MIN_RANK_CASES:
            return None
        true = dice_by_case(self.scores)
        return rank_correlation(
            list(self.confidence.values()), [true.get(case_id) for case_id in self.confidence]
        )


def evaluate_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    baselines: Baselines | None = None,
    mask_space: LabelSpace | None = None,
) -> Evaluation:
    """Predict each case and compare it with its mask, one case in memory at a time.

    Args:
        baselines: Baselines chosen on the training cases (default: only constant ones).
        mask_space: The classes of the run, with the mask values of these cases if they are encoded
            differently (default: as in training).

    Raises:
        DataError: if a file cannot be read, a mask differs in size from its image, or a mask has an
            unknown value.
    """
    space = predictor.plan.preprocessing.space
    mask_space = mask_space or space
    evaluation = Evaluation(common_unit([case.image for case in cases]))
    selection, sections, pixels = ImageSelection(), SectionScores(space), PixelCounts(space)
    objects, is_numbered = ObjectSelection(), False
    baselines = baselines or Baselines()
    for group in by_group(cases).values():
        for case, prediction in _group_predictions(predictor, group):
            source = prediction.source
            assert source is not None, "predicted from a file"
            truth = read_truth(case, mask_space, evaluation.unit.convert(source.spacing_mm))
            if prediction.classes.shape != truth.classes.shape:
                raise mask_size_error(case, prediction.classes.shape, truth.classes.shape)
            if not np.isfinite(prediction.probabilities).all():
                raise DataError(
                    f"{case.id}: the network computes probabilities that are NaN or infinite.",
                    code="probabilities_not_finite",
                    hint="Train again with a lower train.learning_rate.",
                )
            is_numbered |= truth.objects is not None
            on_objects = partial(objects.add, case.id, source.array)
            scores = _score_prediction(evaluation, predictor, case, prediction, truth, on_objects)
            sections.add(prediction, truth.classes)
            pixels.add(case.group, prediction.probabilities, prediction.classes, truth.classes)
            trivial = score_baselines(baselines, case, source.array, truth.classes, space)
            for name, own in trivial.items():
                evaluation.baselines.setdefault(name, []).extend(own)
            rule = predictor.tuning.rule
            picture = make_picture(
                case.id, case.group, source.array, truth.classes, prediction, space, rule
            )
            selection.add(scores, picture)
            on_progress(len(evaluation.confidence), len(cases))
    evaluation.pictures, evaluation.topology = selection.pictures, sections.scores()
    evaluation.confusion, evaluation.curves = pixels.confusion, pixels.curves
    evaluation.object_pictures = objects.pictures
    are_divided = predictor.plan.recipe.predict.objects.separation != "none"
    evaluation.is_about_objects = is_numbered or are_divided or objects.are_many_touching
    return evaluation


def read_truth(case: Case, space: LabelSpace, spacing: Sequence[float] | None) -> CaseTruth:
    """Read the mask of an annotated case, and its objects if the mask numbers them.

    Args:
        spacing: Pixel spacing of the image in the unit of the distances.

    Raises:
        DataError: if `read_classes` raises it.
    """
    classes = read_classes(case, space)
    assert classes is not None, "only annotated cases are evaluated"
    return CaseTruth(classes=classes, objects=read_objects(case, space), spacing=spacing)


def _group_predictions(
    predictor: Predictor, cases: Sequence[Case]
) -> Iterator[tuple[Case, Prediction]]:
    """Predict each case of one group.

    If the recipe keeps the largest component, slices of one size form a volume in the order of the
    numbers in their names; all predictions of the group are then in memory at the same time.
    """
    found = _readable(predictor.predict_many(cases))
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


def _score_prediction(
    evaluation: Evaluation,
    predictor: Predictor,
    case: Case,
    prediction: Prediction,
    truth: CaseTruth,
    on_objects: OnObjects,
) -> list[CaseScore]:
    """Score the prediction of a case, and add it to the evaluation."""
    space, how = predictor.plan.preprocessing.space, predictor.plan.recipe.predict.objects
    measured = compute_case_metrics(prediction, truth, space, how=how, on_objects=on_objects)
    for region, own in zip(space.scored, measured, strict=True):
        known = evaluation.reliability.get(region.name)
        evaluation.reliability[region.name] = known + own.reliability if known else own.reliability
    values = [own.values for own in measured]
    scores = score_case(
        case.id, case.group, prediction.classes, truth.classes, space, metrics=values
    )
    evaluation.scores += scores
    evaluation.confidence[case.id] = prediction.confidence
    return scores


def _readable(
    predicted: Iterable[tuple[Case, Prediction | DataError]],
) -> Iterator[tuple[Case, Prediction]]:
    """Yield the predictions; raise the first error, because no case may be left out."""
    for case, prediction in predicted:
        if isinstance(prediction, DataError):
            raise prediction
        yield case, prediction


MIN_CELLS = 10
"""Smallest mean number of cells per image for which topology is scored."""

TOPOLOGY_SCORES: tuple[ScoreName, ...] = get_args(ScoreName)


@dataclass
class SectionScores:
    """Topology scores of 2D sections of one foreground class, up to a total number of pixels."""

    space: LabelSpace
    _probabilities: list[np.ndarray] = field(default_factory=list)
    _predicted: list[np.ndarray] = field(default_factory=list)
    _truths: list[np.ndarray] = field(default_factory=list)
    _pixels: int = 0

    def add(self, prediction: Prediction, truth: np.ndarray) -> None:
        """Add a case, if it is such a section and the number of pixels allows it.

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
        """Return the best value over thresholds by name; empty if cells do not fill the images."""
        if not self._are_cells():
            return {}
        found = score_thresholds(self._probabilities, self._truths)
        pairs = zip(self._predicted, self._truths, strict=True)
        at_rule = mean_scores([score_section(predicted, truth) for predicted, truth in pairs])
        best = {name: best_threshold(found, name) for name in TOPOLOGY_SCORES}
        return {
            name: BestScore(
                value=getattr(found[threshold], name),
                threshold=threshold,
                at_rule=getattr(at_rule, name),
                images=len(self._truths),
                at_default=getattr(found[0.5], name),
            )
            for name, threshold in best.items()
        }

    def _are_cells(self) -> bool:
        if not self._truths:
            return False
        share = np.mean([truth.mean() for truth in self._truths])
        cells = np.mean([label_cells(truth).max() for truth in self._truths])
        return bool(share >= MIN_CELL_FRACTION and cells >= MIN_CELLS)
