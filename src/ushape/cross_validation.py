"""The verb `cross_validate`: every group is tested once, by a network that never saw it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ushape import api
from ushape.console import Console
from ushape.errors import ConfigError, RunError
from ushape.evaluation.report import Report, write_report
from ushape.evaluation.score import Summary, read_scores, summarise, write_scores
from ushape.plan.recipe import Recipe
from ushape.plan.run import Run
from ushape.planning import DEFAULT_MINUTES


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

    After a kill the same call, with the same output, goes on where it ended.

    Args:
        folds: Number of runs, at least 2.
        output: Folder for the runs fold-1, fold-2, ... and for scores.csv and report.html of all;
            default runs/NAME-folds.
        minutes: Wall time of all folds together; 30 where neither minutes nor epochs are given.

    Raises:
        DataError: more folds than groups; the data cannot be used.
        ConfigError: fewer than two folds; an unknown key or an impossible value.
        RunError: the output holds something else.
    """
    if folds < 2:
        raise ConfigError(f"{folds} folds.", hint="At least 2; 5 is usual.")
    settings = list(settings)
    base = Path(output) if output else Path("runs") / f"{Path(data).resolve().name}-folds"
    runs = [Run(base / f"fold-{number}") for number in range(1, folds + 1)]
    _refuse_other_things(base, runs)
    each = (minutes or DEFAULT_MINUTES) / folds if epochs is None else None
    console = Console()
    for number, run in enumerate(runs, start=1):
        if run.report_path.exists():  # Written last: this fold is finished.
            continue
        console.say(f"Fold {number} of {folds}")
        if run.plan_path.exists():
            result = api.resume(run.folder)
        else:
            result = api.train(
                data,
                masks=masks,
                output=run.folder,
                recipe=recipe,
                minutes=each,
                epochs=epochs,
                device=device,
                seed=seed,
                settings=[*settings, f"split.folds={folds}", f"split.fold={number - 1}"],
            )
        if result.was_interrupted:
            console.say(f"Stopped in fold {number} of {folds}; the same command goes on.")
            runs = runs[:number]
            break
    return _sum_up(base, runs, console)


def _refuse_other_things(base: Path, runs: list[Run]) -> None:
    if base.exists():
        names = {run.folder.name for run in runs} | {"scores.csv", "report.html"}
        others = sorted({path.name for path in base.iterdir()} - names)
        if others:
            raise RunError(
                f"{base} holds {others[0]}, which is none of these {len(runs)} folds.",
                hint="Choose another folder with -o.",
            )
    for run in runs:
        if run.plan_path.exists() and run.load_plan().recipe.split.folds != len(runs):
            raise RunError(
                f"{run.folder} is a fold of another cross-validation.",
                hint="Continue with the same --folds, or choose another folder with -o.",
            )
        if run.folder.exists() and not run.plan_path.exists():
            # Killed before its plan was made: nothing in it is worth keeping.
            for path in (run.cases_path, run.splits_path):
                path.unlink(missing_ok=True)


def _sum_up(base: Path, runs: list[Run], console: Console) -> Summary:
    scores = [score for run in runs for score in read_scores(run.scores_path)]
    plan = runs[0].load_plan()
    summary = summarise(scores, noun=plan.group_noun, seed=plan.recipe.seed)
    scores_path, report_path = (
        base / runs[0].scores_path.name,
        base / runs[0].report_path.name,
    )
    write_scores(scores_path, scores)
    report = Report(
        title=f"{base.resolve().name}: {len(runs)} folds, each group tested once",
        summary=summary,
        scores=tuple(scores),
        epochs=(),
        split_lines=[f"{run.folder.name}: {run.load_splits().text}" for run in runs],
        plan_lines=plan.reasons,
        reproduce_lines=[f"Seed {plan.recipe.seed}; a report of each fold lies in its folder."],
        pictures=(),
    )
    write_report(report_path, report)
    console.say(summary.verdict)
    console.say(f"Report: {report_path}")
    return summary
