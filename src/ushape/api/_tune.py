"""Choose thresholds and cleaning on validation cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ushape.console import Console
from ushape.data.preprocessing import read_classes
from ushape.errors import DataError
from ushape.inference.predictor import Predictor
from ushape.inference.tuning import Tuning, ValidatedCase, choose_tuning, thin_out_cases
from ushape.types import CaseFacts


def tune_on_validation(
    predictor: Predictor, facts: Sequence[CaseFacts], console: Console
) -> Tuning:
    """Choose thresholds and cleaning on validation cases, and calibrate the expected Dice."""
    plan, cases = predictor.plan, [fact.case for fact in facts]
    space = plan.preprocessing.space
    sizes = [sum(fact.class_pixels) for fact in facts]
    chosen = [cases[index] for index in thin_out_cases(sizes, space.channels)]
    validated = []
    with console.progress("Validating") as on_progress:
        for case, prediction in predictor.predict_many(chosen, among=cases):
            if isinstance(prediction, DataError):
                raise prediction
            truth = read_classes(case, space)
            assert truth is not None, "a validation case has a mask"
            shares = np.rint(255 * prediction.probabilities).astype(np.uint8)
            validated.append(ValidatedCase(case.group, shares, truth))
            on_progress(len(validated), len(chosen))
    predict = plan.recipe.predict
    is_chosen = predict.tune and not predict.largest_component
    return choose_tuning(validated, space, rule=is_chosen)
