"""The verb `cross_validate`: every group is tested once, by a network that never saw it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import config
from ushape.api._devices import Devices, Job
from ushape.api._series import Series, ask, drop_unplanned, is_finished
from ushape.api.plan import Intent
from ushape.api.train import train
from ushape.console import Console
from ushape.errors import ConfigError
from ushape.evaluation.breakdowns import break_down
from ushape.evaluation.case_images import CasePicture, ImageSelection
from ushape.evaluation.scores import by_case
from ushape.evaluation.storage import Report, load_report, save_report
from ushape.evaluation.summary import Summary, join_summaries, summarize
from ushape.io.files import write_bytes
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run
from ushape.reports.label_audit import PAGE, write_audit
from ushape.reports.report import write_pages

REQUEST = "folds.json"
"""What was asked for."""


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
        device: As for `train`; several, as cuda:0,cuda:1, train folds side by side.

    Raises:
        DataError: more folds than groups; the data cannot be used.
        ConfigError: fewer than two folds; an unknown key or an impossible value.
        RunError: the output holds something else, or folds of another question.
    """
    if folds < 2:
        raise ConfigError(f"{folds} folds.", hint="At least 2; 5 is usual.")
    devices = Devices.parse(device)
    asked = Intent.of(recipe, minutes, epochs, seed, settings, None, None).recipe
    base = Path(output) if output else Path("runs") / f"{Path(data).resolve().name}-folds"
    runs = [Run(base / f"fold-{number}") for number in range(1, folds + 1)]
    series = Series(base / REQUEST, "cross-validation")
    asking = ask(data, masks, asked, folds=folds)
    if series.find(asking) is None:
        series.begin(asking)
    series.refuse_changed_data(Path(data), Path(masks) if masks else None, runs)
    question = _Question(Path(data), Path(masks) if masks else None, asked, devices, len(runs))
    console = Console()
    if len(devices.names) > 1 or ":" in device:
        if asked.code is not None:
            raise ConfigError(
                f"The folds of {asked.code.name} cannot be trained on several devices.",
                code="custom_code_several_devices",
                hint="A recipe of a Python file is trained in one process: name one device.",
            )
        _train_side_by_side(question, runs, console)
        return _sum_up(base, runs, folds, console)
    stopped = series.train(
        runs,
        lambda place: train(
            data,
            masks=masks,
            output=runs[place].folder,
            recipe=question.recipe_of(place + 1),
            device=device,
        ),
        console,
        titles=[f"fold {number} of {folds}" for number in range(1, folds + 1)],
    )
    return _sum_up(base, runs if stopped is None else runs[: stopped + 1], folds, console)


@dataclass(frozen=True)
class _Question:
    """What all folds are to answer."""

    data: Path
    masks: Path | None
    recipe: Recipe
    devices: Devices
    folds: int

    def recipe_of(self, number: int) -> Recipe:
        """The minutes are for all folds together, epochs for each."""
        split = replace(self.recipe.split, folds=self.folds, fold=number - 1)
        own = self.recipe.train
        if own.minutes is not None:
            rounds = math.ceil(self.folds / len(self.devices.names))
            own = replace(own, minutes=own.minutes / rounds)
        return replace(self.recipe, split=split, train=own)

    def job_of(self, number: int, run: Run) -> Job:
        """The same as a call of the command line."""
        name, log = f"Fold {number} of {self.folds}", run.folder.with_suffix(".log")
        if run.plan_path.exists():
            return Job(name, ["train", "--resume", str(run.folder)], log)
        drop_unplanned(run)
        recipe = run.folder.with_suffix(".yaml")
        write_bytes(recipe, config.explain(self.recipe_of(number)).encode())
        arguments = ["train", str(self.data), "-o", str(run.folder), "--recipe", str(recipe)]
        return Job(name, arguments + (["--masks", str(self.masks)] if self.masks else []), log)


def _train_side_by_side(question: _Question, runs: Sequence[Run], console: Console) -> None:
    left = [(number, run) for number, run in enumerate(runs, start=1) if not is_finished(run)]
    for number in sorted({*range(1, len(runs) + 1)} - {number for number, _ in left}):
        console.say(f"Fold {number} of {len(runs)}: finished before")
    try:
        question.devices.run([question.job_of(number, run) for number, run in left], console.say)
    except KeyboardInterrupt:
        console.say("Stopped; the same command goes on.")
        raise


def _sum_up(base: Path, runs: Sequence[Run], folds: int, console: Console) -> Summary:
    reports, plan = [load_report(run.folder) for run in runs], runs[0].load_plan()
    scores = [score for report in reports for score in report.scores]
    cases = [fact.case for fact in runs[0].load_cases()]
    noun, seed = plan.group_noun, plan.recipe.seed
    summary = join_summaries(
        [report.summary for report in reports], summarize(scores, noun=noun, seed=seed)
    )
    is_whole = len(runs) == folds
    tested = "each group tested once" if is_whole else "the others are not trained yet"
    title = f"{base.resolve().name}: {len(runs)} of {folds} folds, {tested}"
    report = Report(
        title=title,
        summary=summary,
        scores=tuple(scores),
        epochs=(),
        split_lines=[f"{run.folder.name}: {run.load_splits().text}" for run in runs],
        leak_lines=_leak_lines(runs, reports),
        # What the first line says of one fold's scores is not so of all.
        plan_lines=[line for line in plan.reasons if not line.startswith("Scores:")],
        reproduce_lines=[
            *(line for line in reports[0].reproduce_lines if not line.startswith("Seed ")),
            f"Seed {seed}; the weights' epochs stand in the report of each fold.",
        ],
        pictures=_choose_pictures(reports),
        breakdowns=break_down(scores, cases, noun=noun, seed=seed),
    )
    write_audit(base, title, scores, report.pictures)
    save_report(base, report)
    write_pages(base, report)
    console.say(summary.verdict)
    console.say(f"Report: {base / runs[0].report_path.name}; masks to check: {base / PAGE}")
    return summary


def _leak_lines(runs: Sequence[Run], reports: Sequence[Report]) -> list[str]:
    """What all folds say; what only some do, with their names."""
    lines = list(dict.fromkeys(line for report in reports for line in report.leak_lines))
    found = []
    for line in lines:
        names = [
            run.folder.name
            for run, report in zip(runs, reports, strict=True)
            if line in report.leak_lines
        ]
        found.append(line if len(names) == len(runs) else f"{', '.join(names)}: {line}")
    return found


def _choose_pictures(reports: Sequence[Report]) -> list[CasePicture]:
    shelf = ImageSelection()
    for report in reports:
        scores = by_case(report.scores)
        for picture in report.pictures:
            shelf.add(scores[picture.case], picture)
    return shelf.pictures
