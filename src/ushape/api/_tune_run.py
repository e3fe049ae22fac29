"""Choose on validation cases how a trained run predicts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ushape.config import resolved
from ushape.console import Console
from ushape.data.cache import SampleStore
from ushape.data.reading import read_classes, read_objects
from ushape.data.subsets import thin_out_cases
from ushape.inference.mirror_choice import choose_mirroring
from ushape.inference.predictor import Predictor
from ushape.inference.tuning import Tuning, ValidatedCase, choose_tuning, save_tuning
from ushape.labels import LabelSpace
from ushape.planning.plan import Plan
from ushape.planning.recipe import Tta
from ushape.planning.run import Run
from ushape.transforms.tiling import Average
from ushape.types import Case, CaseFacts

MIN_MASKS, MAX_MASKS = 3, 50
"""Number of training masks that cleaning must leave as they are."""

MAX_MASK_PX = 1 << 26
"""Largest number of their pixels in all, from MIN_MASKS on: each candidate reads them once."""

_Outputs = tuple[np.ndarray, np.ndarray | None]
"""Probabilities (K, *S), and distances (*S) if they are predicted, as uint8."""


def tune_run(
    run: Run,
    predictor: Predictor,
    validation: Sequence[CaseFacts],
    training: Sequence[CaseFacts],
    store: SampleStore,
    console: Console,
) -> Predictor:
    """Choose the prediction and postprocessing on validation cases, unless this was done before.

    Args:
        store: The validation cases as they were loaded for the training.
    """
    if not run.tuning_path.exists():
        sizes = [sum(fact.class_pixels) for fact in validation]
        masks = TrainingMasks.some_of(training, predictor.plan.preprocessing.space)
        tuning = _choose_tuning(predictor, store, sizes, masks, console)
        save_tuning(run, tuning)
        tta: Tta = resolved(predictor.plan.recipe.predict.tta)
        predictor = replace(predictor, tuning=tuning).with_average(tuning.average_for(tta))
    for line in predictor.tuning.report:
        console.say(line)
    return predictor


@dataclass(frozen=True)
class TrainingMasks:
    """Annotated label maps (*S) of training cases, read from their files in each iteration."""

    cases: Sequence[Case]
    space: LabelSpace

    @classmethod
    def some_of(cls, training: Sequence[CaseFacts], space: LabelSpace) -> TrainingMasks:
        """Select cases at random: at most MAX_MASKS, and after MIN_MASKS at most MAX_MASK_PX."""
        chosen: list[Case] = []
        left_px = MAX_MASK_PX
        for fact in random.Random(0).sample(training, len(training)):
            size_px = sum(fact.class_pixels)
            if len(chosen) < MIN_MASKS or (size_px <= left_px and len(chosen) < MAX_MASKS):
                chosen.append(fact.case)
                left_px -= size_px
        return cls(chosen, space)

    def __iter__(self) -> Iterator[np.ndarray]:
        for case in self.cases:
            classes = read_classes(case, self.space)
            assert classes is not None, "training cases are annotated"
            yield classes


def _choose_tuning(
    predictor: Predictor,
    store: SampleStore,
    sizes: Sequence[int],
    masks: TrainingMasks,
    console: Console,
) -> Tuning:
    """Choose test-time augmentation, thresholds and cleaning, and calibrate the expected Dice.

    Args:
        sizes: Number of pixels of each case.
    """
    predict, space = predictor.plan.recipe.predict, predictor.plan.preprocessing.space
    chosen = thin_out_cases(sizes, space.outputs)
    validated = validate_cases(predictor, store, chosen, console)
    mirrored, lines = None, tuple[str, ...]()
    if predict.tta == "validated":
        averaging = predictor.with_average("mirrored")
        versions = _predict(averaging, store, chosen, console, "Validating mirrored versions")
        mirrored, line = _compare(predictor.plan, validated, list(versions))
        lines = (line,)
    tuning = choose_tuning(
        mirrored or validated,
        space,
        rule=predict.tune and not predict.largest_component,
        tune_metric=predict.tune_metric,
        how=predict.objects,
        annotated=masks,
    )
    tta: Average = "mirrored" if mirrored else "none"
    return replace(tuning, tta=tta, report=(*lines, *tuning.report))


def validate_cases(
    predictor: Predictor, store: SampleStore, chosen: Sequence[int], console: Console
) -> list[ValidatedCase]:
    """Predict the chosen cases of a store on the grids of their files, along with their masks."""
    space = predictor.plan.preprocessing.space
    validated = []
    predicted = _predict(predictor, store, chosen, console, "Validating")
    for index, (shares, distance) in zip(chosen, predicted, strict=True):
        case, truth = store.cases[index], store.file_classes(index)
        objects = read_objects(case, space)
        validated.append(ValidatedCase(case.group, shares, truth, objects, distance))
    return validated


def _compare(
    plan: Plan, plain: Sequence[ValidatedCase], predicted: Sequence[_Outputs]
) -> tuple[list[ValidatedCase] | None, str]:
    """Return the cases with mirrored prediction if it is clearly better, and the reason in words.

    Args:
        predicted: Averages over mirrored versions of the cases.
    """
    predict, space = plan.recipe.predict, plan.preprocessing.space
    is_about_objects = (
        space.has_distance
        and predict.objects.separation == "learned_distance"
        and predict.tune_metric is None
    )
    mirrored = [
        replace(case, probabilities=shares, distance=distance)
        for case, (shares, distance) in zip(plain, predicted, strict=True)
    ]
    choice = choose_mirroring(
        plain,
        mirrored,
        space,
        versions=2 ** len(resolved(predict.mirror_axes)),
        objects=predict.objects if is_about_objects else None,
    )
    return mirrored if choice.is_accepted else None, choice.line


def _predict(
    predictor: Predictor, store: SampleStore, chosen: Sequence[int], console: Console, label: str
) -> Iterator[_Outputs]:
    """Yield the predictions of the chosen cases."""
    with console.progress(label) as on_progress:
        for done, (_, one) in enumerate(predictor.predict_samples(store, chosen), 1):
            distance = one.distance
            if distance is not None:
                distance = np.rint(255 * distance).astype(np.uint8)
            yield np.rint(255 * one.probabilities).astype(np.uint8), distance
            on_progress(done, len(chosen))
