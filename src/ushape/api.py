"""The verbs: train, resume, evaluate, predict, recipes, example. The command line calls these."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from ushape import config
from ushape.console import Console
from ushape.cookbook import RECIPES, load_recipe
from ushape.data.discover import discover
from ushape.data.exam import thumbnail_of
from ushape.data.groups import infer_groups
from ushape.data.layouts.classes import StatedClasses
from ushape.data.synthetic import SyntheticConfig, write_data_set
from ushape.errors import ConfigError, DataError, RunError
from ushape.evaluation.stored import refuse_existing
from ushape.evaluation.summary import Summary
from ushape.intent import Intent, plan_data
from ushape.judging import count_seen, judge_and_report
from ushape.labels import LabelSpace
from ushape.planning.machine import inspect_machine, keep_memory
from ushape.planning.recipe import AUTO, Recipe
from ushape.planning.run import Run
from ushape.prediction.predictor import Predictor
from ushape.words import counted
from ushape.workflow import Clock, TrainResult, finish_run


def train(
    data: Path | str,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    recipe: Recipe | str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    settings: Iterable[str] = (),
    plan: Path | str | None = None,
    splits: Path | str | None = None,
) -> TrainResult:
    """Trains on a folder, evaluates on cases that were set aside, writes a run.

    Args:
        data: Folder of images and masks.
        masks: Folder of the masks, where `data` holds the images only.
        output: Run folder, new or empty; default runs/NAME, numbered if that exists.
        recipe: A recipe, its name, or a YAML file.
        minutes: Wall time for everything, from this call to the report.
        epochs: Train so many epochs, whatever time they take.
        device: auto, cpu, cuda or mps.
        seed: Fixes the split, the first weights and every patch; default: the recipe's.
        settings: "key.path=value" changes of the recipe.
        plan: A file that `plan` wrote, edited or not, in place of a recipe.
        splits: A splits.json, edited or not, in place of a new split.

    Raises:
        DataError: the data cannot be used; says which files and why.
        ConfigError: an unknown key or an impossible value.
        PlanError: a plan that does not fit the data.
        RunError: the output exists.
    """
    clock, console = Clock(), Console()
    intent = Intent.of(recipe, minutes, epochs, seed, settings, plan, splits)
    folder = Path(data)
    run = Run.create(Path(output) if output else _free_folder(Path("runs") / _name_of(folder)))
    with run.left_whole_or_not_at_all():
        _plan_run(run, folder, masks, intent, device, clock, console)
    console.say(f"Run: {run.folder}")
    return finish_run(run, console, clock, resume=False)


def _plan_run(
    run: Run,
    folder: Path,
    masks: Path | str | None,
    intent: Intent,
    device: str,
    clock: Clock,
    console: Console,
) -> None:
    """Everything before training: look, split, plan, write it down."""
    found, planned = plan_data(folder, masks, intent, device, clock, console)
    made = planned.plan
    if intent.recipe.train.learning_rate == AUTO:
        from ushape.looking import search_rate  # Imports Lightning, which the other verbs spare.

        training = set(planned.splits.train)
        facts = [fact for fact in found.facts if fact.case.id in training]
        made = search_rate(made, facts, run.folder)
    for line in made.reasons:
        console.say(line)
    run.save_cases(folder, found.facts)
    planned.splits.save(run.splits_path)
    run.save_plan(made)  # Last: a run with a plan is complete enough to be resumed.


def resume(run: Path | str) -> TrainResult:
    """Continues a training after any kill, to the weights it would have reached without.

    Raises:
        RunError: not a run folder, or its data are no longer there.
    """
    clock, console = Clock(), Console()
    opened = Run(Path(run))
    plan = opened.load_plan()
    if plan.recipe.train.keep_memory:
        keep_memory()
    inspect_machine(plan.machine.device)
    return finish_run(opened, console, clock, resume=True)


def evaluate(
    run: Path | str,
    data: Path | str | None = None,
    *,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Summary:
    """Scores a run on its test cases, or on other annotated data.

    Args:
        data: Other annotated data, in any form that `train` reads.
        output: Folder for scores.csv and report.html; default: a folder in the run, named
            after the data, or the run itself for its test cases.
        overwrite: Replace scores of other data that exist.

    Raises:
        RunError: not a run; the output exists; the test cases are no longer there.
        DataError: the data cannot be used.
    """
    if data is None and masks is not None:
        raise ConfigError("Masks without data.", hint="ushape evaluate RUN DATA --masks MASKS")
    if (Path(run) / "folds.json").exists():
        raise RunError(
            f"{run} is a cross-validation; its scores are in {Path(run) / 'report.html'}.",
            hint=f"Evaluate one of its runs, e.g. {Path(run) / 'fold-1'}.",
        )
    console, opened = Console(), Run.open(Path(run))
    predictor = Predictor.open(opened.folder, device)
    noun = predictor.plan.group_noun
    if data is None:
        test = set(opened.load_splits().test)
        cases = [fact.case for fact in opened.load_cases() if fact.case.id in test]
        target, what = (Path(output) if output else opened.folder), "its own test cases"
        if not cases:
            raise RunError(
                f"{opened.splits_path} names no test case of this run.",
                hint="Score it on other data: ushape evaluate RUN DATA.",
            )
    else:
        discovered = discover(Path(data), Path(masks) if masks else None)
        refuse_other_classes(predictor.plan.preparation.space, discovered.classes)
        for line in discovered.notes:
            console.say(line)
        grouping = infer_groups(discovered.cases, thumbnail_of)
        cases, noun = grouping.cases, grouping.noun
        target = Path(output) if output else opened.folder / "evaluations" / _name_of(Path(data))
        what = f"{counted(len(cases), 'case')} of {data}"
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
    """Refuses data that name the same mask values differently.

    Raises:
        DataError: they do.
    """
    if stated is None or not stated.names or stated.values is None:
        return
    ours = dict(zip(space.values, space.names, strict=False))
    for value, name in zip(stated.values, stated.names, strict=True):
        if ours.get(value, name) != name:
            raise DataError(
                f"{stated.source} calls the mask value {value} {name}; in the run it is "
                f"{ours[value]}.",
                hint="Give the data the classes of the training, in the same order.",
            )


def recipes(name: str | None = None) -> str:
    """The names of all recipes with their first line; or one recipe as an editable YAML file."""
    if name is not None:
        return config.explain(load_recipe(name))
    width = max(map(len, RECIPES))
    firsts = {key: (make.__doc__ or "").split("\n")[0] for key, make in RECIPES.items()}
    return "".join(f"{key:{width}}  {line}\n" for key, line in firsts.items())


def example(folder: Path | str, *, count: int = 48, seed: int = 0) -> Path:
    """Writes microscopy-like images of cells with exact masks, to try ushape on."""
    write_data_set(Path(folder), count, SyntheticConfig(), seed)
    Console().say(f"{counted(count, 'image')} with masks in {folder}")
    return Path(folder)


def _name_of(folder: Path) -> str:
    return folder.resolve().name


def _free_folder(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that is not there."""
    names = itertools.chain([folder], (Path(f"{folder}-{n}") for n in itertools.count(2)))
    return next(path for path in names if not path.exists())
