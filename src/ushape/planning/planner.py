"""Planning: create a split and a plan from a scanned dataset and a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from ushape.config import AUTO, resolved
from ushape.data.cache import memory_of
from ushape.data.case_stats import at_spacing
from ushape.data.grouping.name_rule import find_name_rule
from ushape.data.preprocessing import Preprocessing, by_group
from ushape.data.scan import DatasetStats, writes_as_stored
from ushape.data.split_file import load_given_splits
from ushape.data.splits import Splits, split_dataset, with_missing_foreground
from ushape.data.subsets import thin_out_cases
from ushape.errors import DataError, PlanError
from ushape.labels import LabelSpace
from ushape.metrics.instance import MANY_OBJECTS, MAX_OBJECT_PX, MAX_SEPARATED_PX
from ushape.metrics.topology import MAX_TOPOLOGY_PX, MIN_CELL_FRACTION
from ushape.planning.encoder_weights import describe_encoder, refuse_changed
from ushape.planning.fingerprint import Fingerprint, at_common_spacing, take_fingerprint
from ushape.planning.hardware import Machine
from ushape.planning.loading import measure_loading_s, waiting_s
from ushape.planning.plan import Plan
from ushape.planning.recipe import Recipe
from ushape.planning.rules import apply_rules
from ushape.planning.rules.result import RuleResult, Situation, SplitFacts, TimeBudget
from ushape.planning.rules.slices import (
    choose_slices,
    reconsider_slices,
    refuse_without_neighbors,
    see_slices,
)
from ushape.planning.spacing import choose_target_spacing, refuse_unfit
from ushape.planning.start import describe_start, refuse_other_dimensions, start_of_given_plan
from ushape.planning.start_decision import TRIAL_SHARE
from ushape.planning.timing import (
    FORWARD_SHARE,
    Format,
    StepTime,
    fastest_format,
    measure_step,
    measure_step_s,
    predicted_pixels,
    with_format,
)
from ushape.transforms.tiling import Average, Symmetry, symmetries
from ushape.types import MaskEncoding, select_cases

BASELINE_CASES = 100
"""Maximum number of training cases on which trivial baselines are measured."""


PLANNING_SHARE = 0.03
"""Share of the user's minutes that measuring the speed may take."""

LOADING_SHARE = 0.01
"""Share of the user's minutes that measuring the loading of patches may take."""

FORMAT_SHARE = 0.02
"""Share of the user's minutes that measuring the number formats may take."""

MIRRORING_SHARE = 0.02
"""Share of the user's minutes that mirrored versions of validation and test cases may take. The
same time spent on training reduces 1 - Dice by less than 1.5%: from 2 to 5 minutes, it fell by 22%
on LGG, and by 47% on cells."""


@dataclass
class Measured:
    """What was measured for a plan, for a later plan of the same recipe and data."""

    format: tuple[Format, dict[Format, float]] | None = None
    """The fastest format, and the seconds of a step in each; None if it was not measured."""

    times: tuple[float, float | None] | None = None
    """Seconds of a training step, and of the loading of its patches."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan, the split that it was made for, and the decisions of its rules."""

    plan: Plan
    splits: Splits
    results: tuple[RuleResult, ...]
    compared: tuple[int | None, ...] = ()
    """Values of preprocessing.slices that short trials compare before training, if any."""

    measured: Measured = field(default_factory=Measured)


def make_plan(
    stats: DatasetStats,
    recipe: Recipe,
    machine: Machine,
    *,
    elapsed_s: Callable[[], float],
    given_splits: Path | None = None,
    measured: Measured | None = None,
) -> Planned:
    """Split the cases by group and decide everything that the recipe leaves open.

    Args:
        stats: Scanned dataset, which must be usable.
        elapsed_s: Returns how many seconds of the user's minutes have passed; called after the
            speed was measured, and only if the recipe leaves the number of epochs open.
        given_splits: A splits.json to use instead of a new split.
        measured: What was measured for an earlier plan of the same recipe; what it lacks is
            measured and added (default: everything is measured).

    Raises:
        DataError: if there are too few groups, if no training case has any foreground, or if the
            largest component of images is to be kept that are divided into parts.
        PlanError: if recipe, data and machine do not fit together.
        ConfigError: if `choose_slices` or a rule raises it.
    """
    measured = measured or Measured()
    _refuse_components_of_parts(stats, recipe)
    splits = _split(stats, recipe, given_splits)
    _refuse_empty_training(stats, splits)
    given = recipe
    recipe, fingerprint, first_results, compared = _see_images(recipe, stats, splits)
    seen = see_slices(fingerprint, recipe)
    refuse_other_dimensions(recipe, len(seen.median_shape))
    situation = Situation(
        data=seen,
        machine=machine,
        split=_split_facts(stats, splits),
        measure_time=lambda recipe: _measure_time(
            stats, splits, recipe, fingerprint, machine, elapsed_s, measured
        ),
        stored_bytes=partial(_stored_bytes, stats, splits, fingerprint),
        find_format=partial(_find_format, stats, machine, measured),
    )
    recipe, results = apply_rules(recipe, situation)
    if recipe.network.dims == 3 and not compared:
        first_results[0], compared = reconsider_slices(given, recipe, first_results[0])
    results = [*first_results, *results]
    space = space_for(stats.space, recipe)
    start, start_results = describe_start(recipe, seen.channels, space, stats, splits)
    results += start_results
    plan = Plan(
        recipe=recipe,
        preprocessing=_preprocessing(stats, recipe, fingerprint),
        encoding=_common_encoding(stats),
        machine=machine,
        evaluation_s=sum(result.evaluation_s for result in results),
        validation_s=sum(result.validation_s for result in results),
        group_noun=stats.grouping.noun,
        group_rule=_group_rule(stats),
        reasons=tuple(result.text for result in results),
        start=start,
        encoder=describe_encoder(recipe.network),
    )
    return Planned(
        plan=plan, splits=splits, results=tuple(results), compared=compared, measured=measured
    )


def _see_images(
    recipe: Recipe, stats: DatasetStats, splits: Splits
) -> tuple[Recipe, Fingerprint, list[RuleResult], tuple[int | None, ...]]:
    """Decide whether volumes are processed by slice, and at which spacing.

    Returns:
        The recipe, the properties of the training cases at this spacing, the decisions, and the
        values of preprocessing.slices to compare, if any.

    Raises:
        ConfigError: if `choose_slices` raises it.
    """
    training = set(splits.train)
    fingerprint = take_fingerprint(stats, training)
    groups = by_group([fact.case for fact in select_cases(stats.facts, splits.train)])
    recipe, dimensions, compared = choose_slices(recipe, fingerprint, list(groups.values()))
    recipe, spacing_results = choose_target_spacing(recipe, stats.case_stats, training)
    target = recipe.preprocessing.common_spacing_mm
    fingerprint = at_common_spacing(fingerprint, stats, training, target)
    return recipe, fingerprint, [*filter(None, [dimensions]), *spacing_results], compared


def space_for(space: LabelSpace, recipe: Recipe) -> LabelSpace:
    """Return the label space with the outputs that the recipe requests."""
    return replace(space, has_distance=recipe.labels.objects == "distance")


def _preprocessing(stats: DatasetStats, recipe: Recipe, fingerprint: Fingerprint) -> Preprocessing:
    is_data = recipe.preprocessing.intensity == "data"
    return Preprocessing(
        channels=fingerprint.channels,
        config=recipe.preprocessing,
        space=space_for(stats.space, recipe),
        normalization=fingerprint.normalization if is_data else None,
        by_slice=len(fingerprint.median_shape) > recipe.network.dims,
    )


def _stored_bytes(
    stats: DatasetStats, splits: Splits, fingerprint: Fingerprint, recipe: Recipe
) -> float:
    facts = select_cases(stats.facts, splits.train)
    preprocessing = _preprocessing(stats, recipe, fingerprint)
    return memory_of(facts, preprocessing, len(fingerprint.median_shape))


def _refuse_empty_training(stats: DatasetStats, splits: Splits) -> None:
    used = [stats.class_pixels(one) for one in select_cases(stats.case_stats, splits.train)]
    background, *foreground = np.sum(used, axis=0)
    if not background and any(foreground) and stats.space.ignore is not None:
        raise DataError(
            "All annotated pixels of the training cases are foreground, so a network would learn "
            "to predict foreground everywhere.",
            code="no_background",
            hint="Also mark some background, for example by a stroke next to an object.",
        )
    if not any(foreground):
        raise DataError(
            "No training case has any foreground.",
            code="no_foreground",
            hint="Check the masks, or list the classes with --set labels.values=[...].",
        )


def _group_rule(stats: DatasetStats) -> str | None:
    """Return how groups are derived from the names of images, unless they are specified."""
    return None if stats.grouping.is_stated else find_name_rule(stats.inferred_groups)


def _refuse_components_of_parts(stats: DatasetStats, recipe: Recipe) -> None:
    """Raise DataError if the largest component would be that of a part instead of the image."""
    divided = {one.case.image for one in stats.case_stats if one.case.box is not None}
    if recipe.predict.largest_component and divided:
        raise DataError(
            f"{min(divided)}: the recipe keeps the largest component of each class "
            "(predict.largest_component), but the image is divided into parts because of its size, "
            "and each part would keep its own component.",
            code="image_too_large",
            hint="Keep images whole with --set preprocessing.divide_above_px=null, or all "
            "components with --set predict.largest_component=false.",
        )


def _split_facts(stats: DatasetStats, splits: Splits) -> SplitFacts:
    group_of = stats.group_of
    return SplitFacts(
        kind=stats.grouping.kind,
        images=len(group_of),
        groups=len(set(group_of.values())),
        test_groups=len({group_of[case_id] for case_id in splits.test}),
        validated=len(splits.validated),
    )


def adopt_plan(stats: DatasetStats, plan: Plan, given_splits: Path | None = None) -> Planned:
    """Use an existing plan, possibly edited, for a scanned dataset.

    Raises:
        PlanError: if the plan is for other channels, dimensions or mask values than the data have.
        DataError: if there are too few groups, if a file lacks the spacing that the plan needs, or
            if the largest component of images is to be kept that are divided into parts.
        ConfigError: if no training image has the neighbors that the plan needs.
        RunError: if the weights to start from are missing or have changed.
    """
    first, space = stats.case_stats[0], stats.space
    for what, planned, found in (
        ("channels", plan.preprocessing.channels, first.channels),
        ("dimensions", plan.image_dims, len(first.shape)),
        ("mask values", plan.preprocessing.space.values, space.values),
    ):
        if planned != found:
            raise PlanError(
                f"The plan is for {planned} {what}, but the data have {found}.",
                code="plan_mismatch",
                hint="Create a plan for these data: ushape plan DATA -o plan.json.",
            )
    if (target := plan.preprocessing.config.common_spacing_mm) is not None:
        refuse_unfit(stats.case_stats, target)
    _refuse_components_of_parts(stats, plan.recipe)
    splits = _split(stats, plan.recipe, given_splits)
    if plan.preprocessing.needs_neighbors:
        groups = by_group([fact.case for fact in select_cases(stats.facts, splits.train)])
        refuse_without_neighbors(list(groups.values()))
    if plan.encoder is not None:
        refuse_changed(plan.encoder, plan.recipe.network)
    start = start_of_given_plan(plan, stats, splits)
    encoder = describe_encoder(plan.recipe.network)
    plan = replace(plan, start=start, group_rule=_group_rule(stats), encoder=encoder)
    return Planned(plan=plan, splits=splits, results=())


def _split(stats: DatasetStats, recipe: Recipe, given_splits: Path | None) -> Splits:
    """Load the split that the user specified, or otherwise make a new one."""
    if given_splits is not None:
        needed = ("train", *recipe.split.parts)
        splits = load_given_splits(given_splits, stats.grouping.cases, needed)
        return with_missing_foreground(splits, stats)
    return split_dataset(stats, recipe.split, seed=recipe.seed)


def _find_format(
    stats: DatasetStats,
    machine: Machine,
    measured: Measured,
    recipe: Recipe,
    formats: Sequence[Format],
) -> tuple[Format, dict[Format, float]]:
    """Measure a training step in several formats, for a small share of the user's minutes."""
    if measured.format is not None:
        return measured.format
    assert recipe.train.minutes is not None, "formats are measured only with a time limit"
    limit_s = FORMAT_SHARE * 60 * recipe.train.minutes
    channels = recipe.preprocessing.input_channels(stats.case_stats[0].channels)

    def measure(one: Format, seconds: float) -> StepTime:
        tried = with_format(recipe, one)
        space = space_for(stats.space, recipe)
        return measure_step(tried, channels, space, machine.device, seconds)

    measured.format = fastest_format(formats, measure, limit_s)
    return measured.format


def _measure_time(
    stats: DatasetStats,
    splits: Splits,
    recipe: Recipe,
    fingerprint: Fingerprint,
    machine: Machine,
    elapsed_s: Callable[[], float],
    measured: Measured,
) -> TimeBudget:
    """Measure a training step and its loading, and share the user's minutes among their uses."""
    assert recipe.train.minutes is not None, "either epochs or minutes are set"
    minutes_s = 60 * recipe.train.minutes
    if measured.times is None:
        measured.times = _measure_step_and_loading_s(stats, splits, recipe, fingerprint, machine)
    step_s, loading_s = measured.times
    target = recipe.preprocessing.common_spacing_mm
    shapes = {one.case.id: at_spacing(one, target).shape for one in stats.case_stats}
    validated, tested = (
        [shapes[case_id] for case_id in some] for some in (splits.validated, splits.test)
    )
    outputs = space_for(stats.space, recipe).outputs
    validated = [validated[n] for n in thin_out_cases(list(map(math.prod, validated)), outputs)]
    evaluation_s = expected_evaluation_s(recipe, step_s, [*validated, *tested], bool(tested))
    evaluation_s += expected_scoring_s(fingerprint, len(stats.space.scored), tested)
    if tested:
        evaluation_s += expected_baselines_s([shapes[case_id] for case_id in splits.train])
    if fingerprint.objects_per_case > MANY_OBJECTS and recipe.predict.tune_metric != "dice":
        evaluation_s += expected_objects_s(validated)
    mirroring_s = expected_mirroring_s(recipe, step_s, validated, tested)
    is_short = mirroring_s <= MIRRORING_SHARE * minutes_s
    tries_mirroring = is_short or recipe.predict.tta == "validated"
    if tries_mirroring:
        evaluation_s += mirroring_s
    before_s = elapsed_s()
    has_trials = recipe.start_from is not None and recipe.train.compare_start
    parts = 1 + 2 * TRIAL_SHARE if has_trials else 1.0
    return TimeBudget(
        step_s=step_s,
        waiting_s=None
        if loading_s is None
        else waiting_s(loading_s, step_s, resolved(recipe.train.workers)),
        training_s=max(step_s, (minutes_s - before_s - evaluation_s) / parts),
        evaluation_s=evaluation_s,
        before_s=before_s,
        tries_mirroring=tries_mirroring,
    )


def _measure_step_and_loading_s(
    stats: DatasetStats,
    splits: Splits,
    recipe: Recipe,
    fingerprint: Fingerprint,
    machine: Machine,
) -> tuple[float, float | None]:
    """Measure both for a small share of the user's minutes."""
    assert recipe.train.minutes is not None, "either epochs or minutes are set"
    minutes_s = 60 * recipe.train.minutes
    step_s = measure_step_s(
        recipe,
        recipe.preprocessing.input_channels(fingerprint.channels),
        space_for(stats.space, recipe),
        machine.device,
        PLANNING_SHARE * minutes_s,
    )
    loading_s = measure_loading_s(
        recipe,
        _preprocessing(stats, recipe, fingerprint),
        select_cases(stats.facts, splits.train),
        machine,
        LOADING_SHARE * minutes_s,
    )
    return step_s, loading_s


def expected_evaluation_s(
    recipe: Recipe, step_s: float, shapes: Sequence[tuple[int, ...]], has_report: bool = True
) -> float:
    """Estimate the seconds for predicting cases of these shapes, tuning, and the report.

    Args:
        has_report: Whether there are test cases, and so a report.
    """
    # Seconds per report, file and pixel: benchmarks/README.md.
    report_s, reading_s, tuning_s = 8.0 if has_report else 1.0, 0.02, 0.15e-6
    files = tuning_s * sum(math.prod(shape) for shape in shapes)
    predicting_s = _expected_prediction_s(recipe, step_s, shapes)
    tta = recipe.predict.tta
    if tta != AUTO and tta != "validated":
        predicting_s *= len(_versions(recipe, tta))
    return report_s + reading_s * len(shapes) + files + predicting_s


def expected_mirroring_s(
    recipe: Recipe,
    step_s: float,
    validated: Sequence[tuple[int, ...]],
    tested: Sequence[tuple[int, ...]],
) -> float:
    """Estimate the seconds that mirrored predictions add, if validation decides about them.

    Args:
        validated: Shapes of the validation cases that are compared, in all versions.
        tested: Shapes of the test cases.
    """
    if recipe.predict.tta not in (AUTO, "validated"):
        return 0.0
    versions = len(_versions(recipe, "mirrored"))
    comparing_s = versions * _expected_prediction_s(recipe, step_s, validated)
    if recipe.labels.objects == "distance" and recipe.predict.tune_metric is None:
        # Two predictions, whose objects are separated with three values of h, and then with the
        # best one compared by groups, and by images of few groups.
        separating_s = 0.35e-6  # Per pixel: for 1000 x 1000 pixels of disks that touch.
        comparing_s += 10 * separating_s * min(sum(map(math.prod, validated)), MAX_SEPARATED_PX)
    return comparing_s + (versions - 1) * _expected_prediction_s(recipe, step_s, tested)


def _versions(recipe: Recipe, average: Average) -> tuple[Symmetry, ...]:
    return symmetries(average, resolved(recipe.predict.mirror_axes), recipe.network.dims)


def _expected_prediction_s(
    recipe: Recipe, step_s: float, shapes: Sequence[tuple[int, ...]]
) -> float:
    """Estimate the seconds in which the network predicts images once."""
    batch, patch = resolved(recipe.train.batch_size), resolved(recipe.sampling.patch_shape)
    pixel_s = step_s * FORWARD_SHARE / (batch * math.prod(patch))
    working = predicted_pixels(recipe, map(recipe.preprocessing.working_shape, shapes))
    return pixel_s * working


def expected_scoring_s(data: Fingerprint, classes: int, shapes: Sequence[tuple[int, ...]]) -> float:
    """Estimate the seconds for scoring test cases of these shapes in one thread."""
    measuring_s, topology_s = 0.5e-6, 4e-6  # Per pixel: benchmarks/README.md.
    pixels = sum(math.prod(shape) for shape in shapes)
    are_cells = (
        len(data.median_shape) == 2 and classes == 1 and data.foreground_share >= MIN_CELL_FRACTION
    )
    topology = topology_s * min(pixels, MAX_TOPOLOGY_PX) if are_cells else 0.0
    return measuring_s * classes * pixels + topology


def expected_baselines_s(shapes: Sequence[tuple[int, ...]]) -> float:
    """Estimate the seconds for measuring trivial baselines on training cases of these shapes."""
    reading_s, pixel_s = 0.02, 20e-9
    step = max(1, math.ceil(len(shapes) / BASELINE_CASES))
    return sum(reading_s + pixel_s * math.prod(shape) for shape in shapes[::step])


def expected_objects_s(shapes: Sequence[tuple[int, ...]]) -> float:
    """Estimate the seconds for choosing a threshold that separates objects in validation cases."""
    pixel_s = 3e-6  # All thresholds: as the topology of as many, without its warping error.
    return pixel_s * min(sum(map(math.prod, shapes)), MAX_OBJECT_PX)


def _common_encoding(stats: DatasetStats) -> MaskEncoding:
    """Return the encoding of most masks, able to hold every class value."""
    is_stored = writes_as_stored(stats)
    encoding = replace(stats.encoding, orientation="stored" if is_stored else "displayed")
    highest = max(stats.space.values)
    if encoding.kind == "values" and highest > 1 and encoding.dtype == "bool":
        encoding = replace(encoding, dtype="uint8")
    if encoding.kind == "values" and highest > 255 and encoding.dtype == "uint8":
        encoding = replace(encoding, dtype="uint16", suffix=".png")
    return encoding
