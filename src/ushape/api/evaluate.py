"""Evaluate a run on its test cases, or on other annotated data."""

from __future__ import annotations

from pathlib import Path

from ushape.api._score_run import count_seen, judge_and_report
from ushape.console import Console
from ushape.data.layouts.names import StatedClasses
from ushape.data.scan import scan_dataset
from ushape.errors import ConfigError, DataError, RunError
from ushape.evaluation.storage import refuse_existing
from ushape.evaluation.summary import Summary
from ushape.formatting import pluralize
from ushape.inference.predictor import Predictor
from ushape.labels import LabelConfig, LabelSpace
from ushape.planning.custom_code import allow_code
from ushape.planning.hardware import inspect_machine
from ushape.planning.run import Run


def evaluate(
    run: Path | str,
    data: Path | str | None = None,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    recipe: str | None = None,
) -> Summary:
    """Score a run on its test cases, or on other annotated data.

    Args:
        run: Run folder.
        data: Other annotated data, in any layout that `train` reads.
        masks: Folder of the masks, if `data` holds only the images.
        output: Folder for scores.csv and report.html; default: a folder in the run named after the
            data, or the run itself for its test cases.
        overwrite: Replace existing scores of other data.
        device: auto, cpu, cuda or mps.
        recipe: Python file and function, FILE.py:FUNCTION, of a run with its own network or loss;
            it is executed only if it is named here.

    Raises:
        RunError: if the folder is not a run, if the output exists, or if the test cases are gone.
        DataError: if the data cannot be used.
    """
    if data is None and masks is not None:
        raise ConfigError(
            "Masks were given without data.",
            code="missing_argument",
            hint="Name both: ushape evaluate RUN DATA --masks MASKS.",
        )
    if (Path(run) / "folds.json").exists():
        raise RunError(
            f"{run} is a cross-validation; its scores are in {Path(run) / 'report.html'}.",
            code="not_a_single_run",
            hint=f"Evaluate one of its runs, for example {Path(run) / 'fold-1'}.",
        )
    allow_code(recipe)
    console, opened = Console(), Run.open(Path(run))
    predictor = Predictor.open(opened.folder, device)
    noun = predictor.plan.group_noun
    if data is None:
        test = set(opened.load_splits().test)
        cases = [fact.case for fact in opened.load_cases() if fact.case.id in test]
        target, what = (Path(output) if output else opened.folder), "its own test cases"
        if not cases:
            raise RunError(
                f"{opened.splits_path} does not name any test case of this run.",
                code="no_test_cases",
                hint="Evaluate it on other data: ushape evaluate RUN DATA.",
            )
    else:
        with console.progress("Reading") as on_progress:
            stats = scan_dataset(
                Path(data),
                Path(masks) if masks else None,
                LabelConfig(),  # The run decides what the mask values mean.
                workers=inspect_machine("cpu").cores,
                on_progress=on_progress,
            )
        refuse_other_classes(predictor.plan.preprocessing.space, stats.listing.classes)
        for line in stats.listing.notes:
            console.say(line)
        stats.raise_unreadable()
        cases, noun = stats.grouping.cases, stats.grouping.noun
        target = (
            Path(output) if output else opened.folder / "evaluations" / Path(data).resolve().name
        )
        what = f"{pluralize(len(cases), 'case')} of {data}"
    if (data is not None or output) and not overwrite:
        refuse_existing(target)
    seen = count_seen(opened, cases)
    summary = judge_and_report(
        opened, predictor, cases, target, console, what, noun=noun, seen_cases=seen
    )
    console.say(summary.verdict)
    console.say(f"Report: {target / opened.report_path.name}")
    return summary


def refuse_other_classes(space: LabelSpace, stated: StatedClasses | None) -> None:
    """Check that the data do not state other names for the mask values of the run.

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
