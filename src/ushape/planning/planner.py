"""A folder and a recipe -> a plan: discover, survey, group, split, fingerprint, apply the rules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape.config import resolved
from ushape.data.preprocessing import Preprocessing
from ushape.data.scan import Data, Survey
from ushape.data.splits import Splits, load_given_splits, make_splits
from ushape.errors import DataError, PlanError
from ushape.metrics.topology import FULL, MAX_PX
from ushape.models import network_sizes
from ushape.planning.fingerprint import Fingerprint, take_fingerprint
from ushape.planning.hardware import Machine
from ushape.planning.plan import Plan
from ushape.planning.recipe import Recipe
from ushape.planning.rules import RULES
from ushape.planning.rules.result import RuleResult, Situation, source_of
from ushape.planning.rules.schedule import judge_split, plan_duration
from ushape.planning.step_time import FORWARD_SHARE, measure_step_s
from ushape.transforms.tiling import symmetries
from ushape.types import MaskEncoding

Say = Callable[[str], None]
"""Takes one line for the user."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan, the split it was made for, and how each of its rules decided."""

    plan: Plan
    splits: Splits
    results: tuple[RuleResult, ...]


def make_plan(
    data: Data,
    recipe: Recipe,
    machine: Machine,
    *,
    elapsed_s: Callable[[], float],
    given_splits: Path | None = None,
) -> Planned:
    """Splits the cases by group and decides everything that the recipe leaves open.

    Args:
        given_splits: A splits.json to use in place of a new split.
        elapsed_s: Seconds of the user's minutes that are used up; asked when the speed has
            been measured. Not used when the recipe gives epochs.

    Raises:
        DataError: too few groups for an honest split.
    """
    survey = data.survey
    splits = _split(data, recipe, given_splits)
    training = set(splits.train)
    looks = [look for look in survey.looks if look.case.id in training]
    if not any(survey.foreground_share(look) > 0 for look in looks):
        raise DataError(
            "No training case holds any foreground.",
            hint="Check the masks, or name the classes with --set labels.values=[...].",
        )
    fingerprint = take_fingerprint(survey, looks, data.grouping)
    situation = Situation(data=fingerprint, machine=machine)
    recipe, results = plan_recipe(recipe, situation)

    step_s = training_s = evaluation_s = 0.0
    if recipe.train.epochs is None:
        assert recipe.train.minutes is not None, "either epochs or minutes are set"
        step_s = measure_step_s(recipe, fingerprint.channels, survey.space, machine.device)
        shapes = {look.case.id: look.shape for look in survey.looks}
        judged = [shapes[i] for i in (*splits.validation, *splits.test)]
        evaluation_s = expected_evaluation_s(recipe, step_s, judged) + expected_scoring_s(
            fingerprint, len(survey.space.scored), [shapes[i] for i in splits.test]
        )
        training_s = max(5.0, 60 * recipe.train.minutes - elapsed_s() - evaluation_s)
    recipe, last = plan_duration(recipe, fingerprint, training_s, step_s)
    results = [judge_split(recipe, fingerprint, data.grouping, splits), *results, last]
    plan = Plan(
        recipe=recipe,
        preprocessing=_preprocessing(recipe, fingerprint, survey),
        encoding=_common_encoding(survey),
        machine=machine,
        evaluation_s=evaluation_s,
        group_noun=data.grouping.noun,
        reasons=tuple(decision.text for decision in results),
    )
    return Planned(plan=plan, splits=splits, results=tuple(results))


def adopt_plan(data: Data, plan: Plan, given_splits: Path | None = None) -> Planned:
    """A plan that was made before, perhaps edited, for these data.

    Raises:
        PlanError: the data have other channels, dimensions or mask values than the plan is for.
        DataError: too few groups for an honest split.
    """
    look, space = data.survey.looks[0], data.survey.space
    for what, planned, found in (
        ("channels", plan.preprocessing.channels, look.channels),
        ("dimensions", plan.recipe.network.dims, len(look.shape)),
        ("mask values", plan.preprocessing.space.values, space.values),
    ):
        if planned != found:
            raise PlanError(
                f"The plan is for {planned} {what}, the data have {found}.",
                hint="Make a plan of these data: ushape plan DATA -o plan.json.",
            )
    splits = _split(data, plan.recipe, given_splits)
    return Planned(plan=plan, splits=splits, results=())


def _split(data: Data, recipe: Recipe, given_splits: Path | None) -> Splits:
    """The split that was laid down, else a new one."""
    if given_splits is not None:
        return load_given_splits(given_splits, data.grouping.cases)
    survey = data.survey
    return make_splits(
        data.grouping.cases,
        {look.case.id: survey.foreground_share(look) for look in survey.looks},
        recipe.split,
        kind=data.grouping.kind,
        seed=recipe.seed,
        classes_present={look.case.id: survey.foreground_classes(look) for look in survey.looks},
    )


def expected_evaluation_s(
    recipe: Recipe, step_s: float, shapes: Sequence[tuple[int, ...]]
) -> float:
    """Seconds to predict validation and test cases of these file shapes, to choose thresholds, and
    to write the report."""
    report_s, reading_s, choosing_s = 8.0, 0.02, 0.15e-6  # Of a pixel: benchmarks/README.md.
    batch, patch = resolved(recipe.train.batch_size), resolved(recipe.sampling.patch_shape)
    predict = recipe.predict
    versions = symmetries(resolved(predict.tta), predict.mirror_axes, recipe.network.dims)
    pixel_s = step_s * FORWARD_SHARE / (batch * math.prod(patch))
    margin = network_sizes(recipe.network).margin
    working = sum(
        math.prod(size + 2 * margin for size in recipe.preprocessing.working_shape(shape))
        for shape in shapes
    )
    files = choosing_s * sum(math.prod(shape) for shape in shapes)
    predicting_s = 1.3 * pixel_s * working * len(versions)
    return report_s + reading_s * len(shapes) + files + predicting_s


def expected_scoring_s(data: Fingerprint, classes: int, shapes: Sequence[tuple[int, ...]]) -> float:
    """Seconds to measure test cases of these file shapes, one thread: benchmarks/README.md."""
    measuring_s, topology_s = 0.5e-6, 4e-6  # Of a pixel.
    pixels = sum(math.prod(shape) for shape in shapes)
    are_cells = len(data.median_shape) == 2 and classes == 1 and data.foreground_share >= FULL
    topology = topology_s * min(pixels, MAX_PX) if are_cells else 0.0
    return measuring_s * classes * pixels + topology


def _preprocessing(recipe: Recipe, fingerprint: Fingerprint, survey: Survey) -> Preprocessing:
    return Preprocessing(
        channels=fingerprint.channels,
        config=recipe.preprocessing,
        space=survey.space,
        normalization=fingerprint.normalization
        if recipe.preprocessing.intensity == "data"
        else None,
    )


def _common_encoding(survey: Survey) -> MaskEncoding:
    """The encoding of most masks, able to hold every class value."""
    kinds = Counter(look.encoding for look in survey.looks)
    encoding = kinds.most_common(1)[0][0]
    if encoding.kind == "values" and max(survey.space.values) > 255 and encoding.dtype == "uint8":
        encoding = replace(encoding, dtype="uint16", suffix=".png")
    return encoding


def plan_recipe(recipe: Recipe, situation: Situation) -> tuple[Recipe, list[RuleResult]]:
    """Applies all rules but the last, `plan_duration`, which needs the measured speed."""
    results = []
    for rule in RULES:
        recipe, decision = rule(recipe, situation)
        results.append(replace(decision, source=source_of(rule)))
    return recipe, results
