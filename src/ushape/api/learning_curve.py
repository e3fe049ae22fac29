"""The verb `learning_curve`: would more annotated groups help, and by how much?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import config
from ushape.api._series import Series, ask
from ushape.api.plan import Intent, plan_data
from ushape.api.train import TrainResult, train
from ushape.config import resolved
from ushape.console import Clock, Console
from ushape.data.scan import DatasetStats
from ushape.data.splits import Splits, nest_subsets
from ushape.errors import ConfigError, DataError
from ushape.evaluation.learning_curve import LearningCurve, make_curve
from ushape.evaluation.scores import read_scores
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run, write_json
from ushape.reports.learning_curve import write_curve

MIN_POINTS = 3
"""A power law has as many numbers to find."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What each point is trained on, and for how long. Settled before the first one."""

    groups: tuple[int, ...]
    """Training groups of each point, ascending."""

    splits: tuple[Splits, ...]
    """Of each point; validation and test are the same."""

    noun: str
    """What a group is, in the plural."""

    minutes: float | None
    """Of each point."""

    steps_per_epoch: int | None
    """Of each point, where epochs are given: as many as all groups would have."""


def learning_curve(
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
    points: int = 4,
) -> LearningCurve:
    """Trains on some of the groups, on twice as many, ... on all; extrapolates the Dice.

    Each point is a run like any other. After a kill or Ctrl-C the same call, with the same
    output, goes on where it ended.

    Args:
        output: Folder for the runs groups-3, groups-6, ... and for learning_curve.html, .json
            and .csv; default runs/NAME-curve.
        minutes: Wall time of all points together, the same for each; 30 where nobody says how
            long.
        epochs: Of each point, with as many steps in each as all groups would have.
        points: At most so many, at least 3: all groups, half of them, a quarter, ...

    Raises:
        DataError: fewer than three training groups; nothing to be found in the test groups; the
            data cannot be used.
        ConfigError: fewer than three points; an unknown key or an impossible value.
        RunError: the output holds something else, or the curve of another question.
        KeyboardInterrupt: Ctrl-C ended a point before its time.
    """
    if points < MIN_POINTS:
        raise ConfigError(f"{points} points.", hint=f"At least {MIN_POINTS}; 4 are usual.")
    clock, console = Clock(), Console()
    intent = Intent.of(recipe, minutes, epochs, seed, settings, None, None)
    base = Path(output) if output else Path("runs") / f"{Path(data).resolve().name}-curve"
    series = Series(base / "points.json", "learning curve")
    question = ask(data, masks, intent.recipe, points=points)
    stored = series.find(question)
    if stored is None:
        made = _make_design(Path(data), masks, intent, device, points, clock, console)
        stored = series.begin(question, design=config.to_dict(made))
    design = config.from_dict(Design, stored["design"], source=str(series.path))
    console.say(_describe(design))
    runs = [Run(base / f"groups-{count}") for count in design.groups]
    series.refuse_changed_data(Path(data), Path(masks) if masks else None, runs)

    def train_point(number: int) -> TrainResult:
        splits = base / "splits" / f"{runs[number].folder.name}.json"
        write_json(splits, config.to_dict(design.splits[number]))
        own = _recipe_of_point(intent.recipe, design)
        return train(
            data,
            masks=masks,
            output=runs[number].folder,
            recipe=own,
            device=device,
            splits=splits,
        )

    if series.train(runs, train_point, console, titles=_titles(design)) is not None:
        raise KeyboardInterrupt  # Points of unequal length make no curve.
    return _sum_up(base, runs, design, intent.recipe, console)


def _make_design(
    folder: Path,
    masks: Path | str | None,
    intent: Intent,
    device: str,
    points: int,
    clock: Clock,
    console: Console,
) -> Design:
    """Splits as `train` does, then thins the training groups out."""
    found, planned = plan_data(folder, masks, intent, device, clock, console)
    plan, whole = planned.plan, planned.splits
    _refuse_empty_test(found, whole)
    splits = _thin_out(found, whole, points, intent.recipe.seed)
    groups = tuple(len(_groups_among(found, own.train)) for own in splits)
    if len(groups) < MIN_POINTS:
        raise DataError(
            f"{groups[-1]} {plan.group_noun} for training make {len(groups)} points: a learning "
            f"curve has at least {MIN_POINTS}, for which it takes {MIN_POINTS} groups.",
            hint=f"Annotate {MIN_POINTS - groups[-1]} more; beside them, validation and test "
            "need one each.",
        )
    train = intent.recipe.train
    minutes = train.minutes
    if minutes is not None:
        minutes = max(minutes - clock.elapsed_s / 60, 0.1 * minutes) / len(groups)
    return Design(
        groups=groups,
        splits=tuple(splits),
        noun=plan.group_noun,
        minutes=minutes,
        steps_per_epoch=None if minutes else resolved(plan.recipe.train.steps_per_epoch),
    )


def _thin_out(found: DatasetStats, whole: Splits, points: int, seed: int) -> list[Splits]:
    """Splits with ever more of the training groups; the last is the whole."""
    training = set(whole.train)
    subsets = nest_subsets(
        [case for case in found.grouping.cases if case.id in training],
        {one.case.id: found.foreground_share(one) for one in found.case_stats},
        {one.case.id: found.foreground_classes(one) for one in found.case_stats},
        points=points,
        seed=seed,
    )
    group_of = {case.id: case.group for case in found.grouping.cases}
    return [
        replace(
            whole,
            train=tuple(i for i in whole.train if group_of[i] in kept),
            unused=tuple(i for i in whole.train if group_of[i] not in kept),
        )
        for kept in subsets
    ]


def _groups_among(found: DatasetStats, ids: Iterable[str]) -> set[str]:
    wanted = set(ids)
    return {case.group for case in found.grouping.cases if case.id in wanted}


def _refuse_empty_test(found: DatasetStats, splits: Splits) -> None:
    """Before an hour of training, not after it."""
    test = set(splits.test)
    shares = [found.foreground_share(one) for one in found.case_stats if one.case.id in test]
    if not any(shares):
        raise DataError(
            "No test group holds any foreground: there is no Dice to draw a curve of.",
            hint="Another --seed splits the groups differently.",
        )


def _recipe_of_point(recipe: Recipe, design: Design) -> Recipe:
    train = recipe.train
    if design.minutes is not None:
        train = replace(train, minutes=design.minutes)
    else:
        assert design.steps_per_epoch is not None, "either minutes or epochs are given"
        train = replace(train, steps_per_epoch=design.steps_per_epoch)
    return replace(recipe, train=train)


def _titles(design: Design) -> list[str]:
    total = len(design.groups)
    return [
        f"point {place} of {total}, {count} of {design.groups[-1]} {design.noun} for training"
        for place, count in enumerate(design.groups, start=1)
    ]


def _describe(design: Design) -> str:
    counts = ", ".join(map(str, design.groups))
    each = (
        f"{design.minutes:.1f} minutes each"
        if design.minutes is not None
        else f"{design.steps_per_epoch} steps in each epoch, however few the images"
    )
    return (
        f"Learning curve: training on {counts} {design.noun}, each set inside the next; {each}. "
        f"Validation ({len(design.splits[0].validation)} images) and test "
        f"({len(design.splits[0].test)}) are the same for all."
    )


def _sum_up(
    base: Path, runs: Sequence[Run], design: Design, recipe: Recipe, console: Console
) -> LearningCurve:
    curve = make_curve(
        design.groups,
        [len(splits.train) for splits in design.splits],
        [run.folder for run in runs],
        [read_scores(run.scores_path) for run in runs],
        noun=design.noun,
        seed=recipe.seed,
    )
    doubt = (
        f"The intervals know how the test {design.noun} differ, not how trainings do: with "
        "another seed each point would lie a little elsewhere."
    )
    notes = [
        _describe(design),
        doubt,
        "Small sets are validated on more than they could spare themselves: their points may lie "
        "a little too high.",
        f"Seed {recipe.seed}; a report of each point lies in its folder.",
    ]
    page = write_curve(base, curve, f"{base.resolve().name}: learning curve", notes)
    console.say(curve.verdict)
    console.say(doubt)
    console.say(f"Curve: {page}")
    return curve
