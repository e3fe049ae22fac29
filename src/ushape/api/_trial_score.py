"""Scores of short trials on the validation cases, comparable between different plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ushape.api._tune_run import validate_cases
from ushape.console import Console
from ushape.data.cache import SampleStore
from ushape.data.subsets import thin_out_cases
from ushape.inference.decision_rule import DecisionRule, apply_rule
from ushape.inference.object_search import thin_out
from ushape.inference.predictor import Predictor
from ushape.inference.separation import choose_comparable, object_precision
from ushape.inference.tuning import ValidatedCase
from ushape.metrics.instance import MAX_SEPARATED_PX
from ushape.metrics.overlap import Counts, count_classes
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.training.module import mean_group_dice
from ushape.types import CaseFacts


@dataclass(frozen=True, kw_only=True)
class TrialScore:
    """Scores of the best weights of a trial."""

    dice: float
    """Mean Dice of the validation groups."""

    precision: float | None
    """Average precision of the objects; None if they are not learned."""

    groups: Mapping[str, float]
    """Dice of each validation group in which a class is annotated, averaged over classes."""

    @property
    def value(self) -> float:
        """Score by which trials are compared."""
        return self.dice if self.precision is None else self.precision


def score_trial(
    plan: Plan, trial: Run, validation: Sequence[CaseFacts], store: SampleStore, console: Console
) -> TrialScore:
    """Score the best weights of a trial on the validation cases.

    They are scored on the grids of the files, since different plans work on different ones.

    Args:
        store: The validation cases as they were loaded for the trial.
    """
    predictor = Predictor.open(trial.folder, plan.machine.device)
    space, how = plan.preprocessing.space, plan.recipe.predict.objects
    # The same cases for all trials, whether they predict a distance or not.
    sizes = [sum(fact.class_pixels) for fact in validation]
    chosen = thin_out_cases(sizes, space.channels + 1)
    cases = validate_cases(predictor, store, chosen, console)
    counts = _count(plan, cases)
    precision = None
    if space.has_distance and how.separation == "learned_distance":
        compared = thin_out(cases, MAX_SEPARATED_PX)
        how = choose_comparable(compared, space, how)
        precision = object_precision(compared, space, how)
    return TrialScore(
        dice=mean_group_dice(list(counts.values())),
        precision=precision,
        groups={
            group: mean_group_dice([rows])
            for group, rows in counts.items()
            if any(truth for _, truth, _, _ in rows)
        },
    )


def _count(plan: Plan, cases: Sequence[ValidatedCase]) -> dict[str, list[list[int]]]:
    """Return overlap, truth, predicted and pixels of each class, by group."""
    space, groups = plan.preprocessing.space, dict[str, list[Counts]]()
    for case in cases:
        classes = apply_rule(DecisionRule(), case.probabilities, space)
        counts = count_classes(classes, case.truth, space.scored)
        before = groups.get(case.group)
        groups[case.group] = (
            counts if before is None else [a + b for a, b in zip(before, counts, strict=True)]
        )
    return {
        group: [[one.overlap, one.truth, one.predicted, one.pixels] for one in counts]
        for group, counts in groups.items()
    }
