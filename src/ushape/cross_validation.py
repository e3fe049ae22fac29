"""The verb `cross_validate`: every group is tested once, by a network that never saw it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ushape import api, config
from ushape.console import Console
from ushape.errors import ConfigError, RunError
from ushape.evaluation.audit import PAGE, write_audit
from ushape.evaluation.breakdowns import break_down
from ushape.evaluation.pictures import CasePicture
from ushape.evaluation.report import Report
from ushape.evaluation.score import by_case
from ushape.evaluation.shelf import Shelf
from ushape.evaluation.stored import load_report, save_report
from ushape.evaluation.summary import Summary, join_summaries, summarise
from ushape.intent import Intent
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run, write_json
from ushape.words import reason

REQUEST = "folds.json"
"""What was asked for, and which fold was stopped before its time."""


def cross_validate(
    data: Path | str,
    *,
    folds: int,
    masks: Path | str | None = None,
    output: Path | str | None = None,
    recipe: Recipe | str = "auto",
    minutes: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int | None = None,
    settings: Iterable[str] = (),
) -> Summary:
    """Trains one run per fold, each tested on groups that it never saw; sums up over all groups.

    After a kill or Ctrl-C the same call, with the same output, goes on where it ended.

    Args:
        folds: Number of runs, at least 2.
        output: Folder for the runs fold-1, fold-2, ... and for scores.csv and report.html of all;
            default runs/NAME-folds.
        minutes: Wall time of all folds together; 30 where nobody says how long.
        epochs: Of each fold.

    Raises:
        DataError: more folds than groups; the data cannot be used.
        ConfigError: fewer than two folds; an unknown key or an impossible value.
        RunError: the output holds something else, or folds of another question.
    """
    if folds < 2:
        raise ConfigError(f"{folds} folds.", hint="At least 2; 5 is usual.")
    asked = Intent.of(recipe, minutes, epochs, seed, settings, None, None).recipe
    base = Path(output) if output else Path("runs") / f"{Path(data).resolve().name}-folds"
    runs = [Run(base / f"fold-{number}") for number in range(1, folds + 1)]
    stopped = _begin(base, runs, _request(data, masks, folds, asked))
    console = Console()
    for number, run in enumerate(runs, start=1):
        is_finished = run.report_path.exists() and number != stopped  # It is written last.
        console.say(f"Fold {number} of {folds}{': finished before' if is_finished else ''}")
        if is_finished:
            continue
        if run.plan_path.exists():
            result = api.resume(run.folder)
        else:
            own = _recipe_of_fold(asked, number, folds)
            result = api.train(data, masks=masks, output=run.folder, recipe=own, device=device)
        if result.was_interrupted:
            _note_stop(base, number)
            console.say(f"Stopped in fold {number} of {folds}; the same command goes on with it.")
            runs = runs[:number]
            break
        _note_stop(base, None)
    return _sum_up(base, runs, console)


def _recipe_of_fold(recipe: Recipe, number: int, folds: int) -> Recipe:
    """The minutes are for all folds together, epochs for each."""
    split = replace(recipe.split, folds=folds, fold=number - 1)
    train = recipe.train
    if train.minutes is not None:
        train = replace(train, minutes=train.minutes / folds)
    return replace(recipe, split=split, train=train)


def _request(
    data: Path | str, masks: Path | str | None, folds: int, recipe: Recipe
) -> dict[str, Any]:
    return {
        "data": str(Path(data).resolve()),
        "masks": str(Path(masks).resolve()) if masks else None,
        "folds": folds,
        "recipe": config.to_dict(recipe),
    }


def _begin(base: Path, runs: Sequence[Run], request: dict[str, Any]) -> int | None:
    """Starts or continues; returns the fold that Ctrl-C stopped, if any."""
    path = base / REQUEST
    if base.exists() and any(base.iterdir()):
        _refuse_other_questions(path, request)
        for run in runs:
            _drop_unplanned(run)
        stopped: int | None = json.loads(path.read_text())["stopped"]
        return stopped
    base.mkdir(parents=True, exist_ok=True)
    write_json(path, {**request, "stopped": None})
    return None


def _refuse_other_questions(path: Path, request: dict[str, Any]) -> None:
    if not path.exists():
        raise RunError(
            f"{path.parent} holds something that is no cross-validation.",
            hint="Choose another folder with -o.",
        )
    try:
        stored = json.loads(path.read_text())
        other = next((key for key, value in request.items() if stored.get(key) != value), None)
    except (ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: not readable: {reason(error)}.", hint="Choose another folder."
        ) from None
    if other is not None:
        raise RunError(
            f"{path.parent} holds another cross-validation: {other} was not the same.",
            hint="Continue with the command that began it, or choose another folder with -o.",
        )


def _drop_unplanned(run: Run) -> None:
    """Killed before its plan was made: nothing in it is worth keeping."""
    if run.folder.exists() and not run.plan_path.exists():
        for path in (run.cases_path, run.splits_path):
            path.unlink(missing_ok=True)


def _note_stop(base: Path, number: int | None) -> None:
    path = base / REQUEST
    write_json(path, {**json.loads(path.read_text()), "stopped": number})


def _sum_up(base: Path, runs: Sequence[Run], console: Console) -> Summary:
    reports, plan = [load_report(run.folder) for run in runs], runs[0].load_plan()
    scores = [score for report in reports for score in report.scores]
    cases = [fact.case for fact in runs[0].load_cases()]
    noun, seed = plan.group_noun, plan.recipe.seed
    summary = join_summaries(
        [report.summary for report in reports], summarise(scores, noun=noun, seed=seed)
    )
    title = f"{base.resolve().name}: {len(runs)} folds, each group tested once"
    report = Report(
        title=title,
        summary=summary,
        scores=tuple(scores),
        epochs=(),
        split_lines=[f"{run.folder.name}: {run.load_splits().text}" for run in runs],
        leak_lines=list(dict.fromkeys(line for one in reports for line in one.leak_lines)),
        plan_lines=plan.reasons,
        reproduce_lines=[
            *reports[0].reproduce_lines,
            f"Seed {seed}; a report of each fold lies in its folder.",
        ],
        pictures=_choose_pictures(reports),
        breakdowns=break_down(scores, cases, noun=noun, seed=seed),
    )
    write_audit(base, title, scores, report.pictures)
    save_report(base, report)
    console.say(summary.verdict)
    console.say(f"Report: {base / runs[0].report_path.name}; masks to check: {base / PAGE}")
    return summary


def _choose_pictures(reports: Sequence[Report]) -> list[CasePicture]:
    shelf = Shelf()
    for report in reports:
        scores = by_case(report.scores)
        for picture in report.pictures:
            shelf.add(scores[picture.case], picture)
    return shelf.pictures
