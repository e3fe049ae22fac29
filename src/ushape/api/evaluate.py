"""Evaluate a run on its test cases, or on other annotated data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ushape.api._remote import copies_restored
from ushape.api._score_run import KnownCases, score_and_report
from ushape.api.plan import scan
from ushape.console import Console
from ushape.data.classes.names import StatedClasses
from ushape.data.grouping import Grouping
from ushape.data.preprocessing import by_group
from ushape.data.scan import DatasetStats, with_groups
from ushape.data.slices import describe_missing
from ushape.errors import ConfigError, DataError, RunError
from ushape.evaluation.storage import refuse_existing
from ushape.evaluation.summary import Summary
from ushape.formatting import pluralize
from ushape.inference.predictor import Predictor
from ushape.interrupts import REPEAT, hint_after_interrupt
from ushape.io.files import real_path
from ushape.io.lock import locked
from ushape.labels import LabelSpace
from ushape.planning.custom_code import allow_code
from ushape.planning.data_settings import apply_data_settings
from ushape.planning.plan import Plan
from ushape.planning.processor import leave_cores_to_others, threads_restored
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run
from ushape.types import Case, select_cases


@threads_restored()
def evaluate(
    run: Path | str,
    data: Path | str | None = None,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    recipe: str | None = None,
    groups: str | None = None,
    quiet: bool = False,
) -> Summary:
    """Score a run on its test cases, or on other annotated data.

    Args:
        run: Run folder that `ushape train` wrote.
        data: Other annotated data, as for `train` (default: the test cases of the run).
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: Folder for scores and report (default: the run, or a folder in it for other data).
        overwrite: Replace existing outputs.
        device: Device: auto, cpu, cuda or mps.
        recipe: FILE.py:FUNCTION that defines the run's custom network or loss. The code runs only
            if you pass this option.
        groups: How to group the cases of other data: a regular expression matched against case IDs,
            a table column, or `none` to treat every image as its own group (default: as for the
            training data).
        quiet: Print nothing.

    Raises:
        RunError: if the folder is not a run, if the output exists, or if the test cases are
            missing.
        DataError: if the data cannot be used.
    """
    _refuse_masks_alone_and_folds(Path(run), data, masks)
    allow_code(recipe)
    console, opened = Console(quiet=quiet), Run.open(Path(run))
    predictor = Predictor.open(opened.folder, device)
    noun, mask_space = predictor.plan.group_noun, predictor.plan.preprocessing.space
    with nullcontext() if data is not None else copies_restored(opened, console.say):
        if data is None:
            cases, target, what = _test_cases(opened), opened.folder, "its own test cases"
        else:
            grouping, mask_space = _scan_other_data(data, masks, predictor.plan, groups, console)
            cases, noun = grouping.cases, grouping.noun
            target = opened.folder / "evaluations" / real_path(Path(data)).name
            what = f"{pluralize(len(cases), 'case')} of {data}"
        target = Path(output) if output else target
        with locked(target), hint_after_interrupt(REPEAT):
            if (data is not None or output) and not overwrite:
                refuse_existing(target)
            if note := leave_cores_to_others(device):
                console.say(note)
            _tell_missing_neighbors(predictor, cases, console)
            summary = score_and_report(
                opened,
                predictor,
                cases,
                KnownCases.load(opened),
                target,
                console,
                what=what,
                noun=noun,
                mask_space=mask_space,
            )
        console.say(f"Report: {target / opened.report_path.name}")
        return summary


def _tell_missing_neighbors(predictor: Predictor, cases: Sequence[Case], console: Console) -> None:
    """Print for how many images the nearest slice replaces a missing neighbor."""
    if not predictor.plan.preprocessing.needs_neighbors:
        return
    if line := describe_missing(list(by_group(cases).values())):
        console.say(f"{line} The neighbors of an image are images of the same group.")


def _refuse_masks_alone_and_folds(
    run: Path, data: Path | str | None, masks: Path | str | None
) -> None:
    if data is None and masks is not None:
        raise ConfigError(
            "Masks were specified without data.",
            code="missing_argument",
            hint="Specify both: ushape evaluate RUN DATA --masks MASKS.",
        )
    if (run / "folds.json").exists():
        raise RunError(
            f"{run} is a cross-validation; its scores are in {run / 'report.html'}.",
            code="not_a_single_run",
            hint=f"Evaluate one of its runs, for example {run / 'fold-1'}.",
        )


def _test_cases(run: Run) -> list[Case]:
    """Return the test cases of a run.

    Raises:
        RunError: if there is none.
    """
    cases = [fact.case for fact in select_cases(run.load_cases(), run.load_splits().test)]
    if not cases:
        raise RunError(
            f"{run.splits_path} does not list any test case of this run.",
            code="no_test_cases",
            hint="Evaluate it on other data: ushape evaluate RUN DATA.",
        )
    return cases


def _scan_other_data(
    data: Path | str,
    masks: Path | str | None,
    plan: Plan,
    groups: str | None,
    console: Console,
) -> tuple[Grouping, LabelSpace]:
    """Read other annotated data; return its cases in groups, and the classes of its masks."""
    space = plan.preprocessing.space
    recipe, note = apply_data_settings(Recipe(groups=groups), Path(data))
    if note:
        console.say(note)
    dims = plan.image_dims
    divided = plan.preprocessing.config.divide_above_px
    names = space.names if space.values == tuple(range(len(space.names))) else ()
    stats = scan(
        data,
        masks,
        recipe.labels,
        console,
        dims=dims,
        groups=recipe.groups,
        classes=names,
        divide_above_px=None if _needs_whole_images(plan) else divided,
        slide_mpp=plan.preprocessing.config.slide_mpp,
    )
    if recipe.groups is None and plan.recipe.groups is not None:
        try:
            stats = with_groups(stats, plan.recipe.groups)
        except DataError as error:
            console.say(f"Warning: {error.message} The groups are inferred instead.")
    console.say(stats.grouping.description)
    for line in stats.listing.notes:
        console.say(line)
    stats.raise_unreadable()
    mask_space, description = match_classes(space, stats)
    if description:
        console.say(description)
    else:
        refuse_other_classes(space, stats.listing.classes)
    return stats.grouping, mask_space


def _needs_whole_images(plan: Plan) -> bool:
    """Return whether large images must not be divided into parts that are predicted separately."""
    return plan.preprocessing.needs_whole_images or plan.recipe.predict.largest_component


def match_classes(space: LabelSpace, stats: DatasetStats) -> tuple[LabelSpace, str]:
    """Return the classes of the run with the values of other masks, if these differ.

    Two classes are matched by their order, more classes by their names or colors.

    Returns:
        The label space for the masks, and what was matched in words; '' if nothing differs.

    Raises:
        DataError: if the values of the masks differ, and their classes are not those of the run.
    """
    other, unknown = stats.label_space, set[int]()
    for case in stats.readable:
        unknown.update(space.unknown_values(case.value_counts, case.encoding))
    is_below = space.threshold is not None and 0 < max(stats.value_counts) < space.threshold
    if not unknown and not is_below:
        return space, ""
    order = _order_in(space, other) if other is not None and not space.regions else None
    if other is None or order is None:
        run_classes = ", ".join(
            f"{space.show_value(value)} = {name}"
            for value, name in zip(space.values, space.names, strict=True)
        )
        unknown_values = ", ".join(map(str, sorted(unknown)[:6]))
        raise DataError(
            f"The masks contain values that are not classes of the run: {unknown_values}.",
            code="unknown_mask_value",
            hint=f"Save the masks with the values of the run ({run_classes}).",
        )
    matched = replace(
        space,
        values=tuple(other.values[index] for index in order),
        colors=None if other.colors is None else tuple(other.colors[index] for index in order),
        further_values=tuple((value, order.index(index)) for value, index in other.further_values),
        threshold=other.threshold,
        nearest=other.nearest,
        ignore=other.ignore if space.ignore is None else space.ignore,
    )
    mask_classes = ", ".join(
        f"{matched.show_value(value)} = {name}"
        for value, name in zip(matched.values, space.names, strict=True)
    )
    notes = "".join(f"\n{note.text}" for note in stats.value_notes)
    description = f"The masks are encoded differently from the training masks: {mask_classes}."
    return matched, description + notes


def _order_in(space: LabelSpace, other: LabelSpace) -> list[int] | None:
    """Return the index in other data of each class of the run; None if the classes differ."""
    if len(space.values) != len(other.values):
        return None
    names = {space.names[1], other.names[1]} - {"foreground"}
    if len(space.values) == 2 and len(names) < 2:
        return [0, 1] if sorted(space.values) == list(space.values) else None
    if set(space.names) == set(other.names):
        return [other.names.index(name) for name in space.names]
    colors, other_colors = space.colors, other.colors
    if colors is not None and other_colors is not None and {*colors} == {*other_colors}:
        return [other_colors.index(color) for color in colors]
    return None


def refuse_other_classes(space: LabelSpace, stated: StatedClasses | None) -> None:
    """Check that the data do not define other names for the mask values of the run.

    Raises:
        DataError: if a mask value has another name.
    """
    if stated is None or not stated.names or stated.values is None:
        return
    ours = dict(zip(space.values, space.names, strict=False))
    for value, name in zip(stated.values, stated.names, strict=True):
        if ours.get(value, name) != name:
            raise DataError(
                f"The mask value {value} is named {name} in {stated.source}, but {ours[value]} in "
                "the run.",
                code="conflicting_class_names",
                hint="Use the classes of the training data, in the same order.",
            )
