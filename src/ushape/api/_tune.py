"""Choose thresholds and cleaning on validation cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ushape.console import Console
from ushape.data.preprocessing import by_group, read_classes
from ushape.errors import DataError
from ushape.inference.predictor import Predictor
from ushape.inference.tuning import Tuning, Validated, choose_tuning, thin_out_cases
from ushape.types import CaseFacts

if TYPE_CHECKING:
    pass


def tune_on_validation(
    predictor: Predictor, facts: Sequence[CaseFacts], console: Console
) -> Tuning:
    """Chooses thresholds and cleaning on validation cases, and what Dice to expect."""
    plan, cases = predictor.plan, [fact.case for fact in facts]
    space, groups = plan.preprocessing.space, by_group(cases)
    held = thin_out_cases([sum(fact.class_pixels) for fact in facts], space.channels)
    requests = [(cases[i], cases[i], groups[cases[i].group]) for i in held]
    validated = []
    with console.progress("Validating") as on_progress:
        for case, prediction in predictor.predict_many(requests):
            if isinstance(prediction, DataError):
                raise prediction
            truth = read_classes(case, space)
            assert truth is not None, "a validation case has a mask"
            shares = np.rint(255 * prediction.probabilities).astype(np.uint8)
            validated.append(Validated(case.group, shares, truth))
            on_progress(len(validated), len(requests))
    predict = plan.recipe.predict
    is_chosen = predict.tune and not predict.largest_component
    return choose_tuning(validated, space, rule=is_chosen)
