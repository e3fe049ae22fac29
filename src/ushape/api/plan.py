"""From what the user wants to a plan: shared by `train` and `plan`, which stops there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import config
from ushape.config import is_custom
from ushape.console import Clock, Console
from ushape.data.checks.run import check_before_training
from ushape.data.scan import DatasetStats, describe_dataset, scan_dataset
from ushape.errors import ConfigError, RunError
from ushape.planning.hardware import Machine, inspect_machine, keep_memory
from ushape.planning.plan import Plan, load_plan
from ushape.planning.planner import Planned, adopt_plan, make_plan
from ushape.planning.recipe import Recipe, with_some_rate
from ushape.planning.recipes import load_recipe
from ushape.planning.run import write_json

DEFAULT_MINUTES = 30.0
"""Wall time of a training whose length the user leaves open."""


@dataclass(frozen=True)
class Intent:
    """What the user asks for."""

    recipe: Recipe
    plan: Plan | None
    """Taken as it is, in place of a new plan."""

    splits: Path | None
    """Taken as it is, in place of a new split."""

    @classmethod
    def of(
        cls,
        recipe: Recipe | str,
        minutes: float | None,
        epochs: int | None,
        seed: int | None,
        settings: Iterable[str],
        plan: Path | str | None,
        splits: Path | str | None,
    ) -> Intent:
        """Puts options together; they win over the recipe.

        Raises:
            ConfigError: an unknown key, an impossible value, options beside a plan.
        """
        settings = (settings,) if isinstance(settings, str) else tuple(settings)
        laid_down = Path(splits) if splits is not None else None
        if plan is None:
            chosen = _complete_recipe(recipe, minutes, epochs, seed, settings)
            return cls(chosen, None, laid_down)
        beside = [minutes, epochs, seed, *settings]
        if isinstance(recipe, str) and is_custom(recipe):
            load_recipe(recipe)  # Only for the network or loss that the plan uses.
            recipe = "auto"
        if recipe != "auto" or any(value is not None for value in beside):
            raise ConfigError(
                "A plan is taken as it is: no recipe, minutes, epochs, seed or settings beside it.",
                hint="Edit the file, or make another: ushape plan DATA -o plan.json.",
            )
        given = load_plan(Path(plan))
        return cls(given.recipe, given, laid_down)


def plan_data(
    folder: Path,
    masks: Path | str | None,
    intent: Intent,
    device: str,
    clock: Clock,
    console: Console,
) -> tuple[DatasetStats, Planned]:
    """Looks at the data, says what was found, splits and plans."""
    if intent.recipe.train.keep_memory:
        keep_memory()  # Before torch allocates anything large.
    machine = inspect_machine(device)
    found = _look(folder, Path(masks) if masks else None, intent.recipe, machine, console)
    if intent.plan is not None:
        planned = adopt_plan(found, intent.plan, intent.splits)
    else:
        planned = make_plan(
            found,
            with_some_rate(intent.recipe),
            machine,
            elapsed_s=lambda: clock.elapsed_s,
            given_splits=intent.splits,
        )
    console.say(planned.splits.text)
    return found, planned


def plan(
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
    splits: Path | str | None = None,
    explain: bool = False,
    overwrite: bool = False,
) -> Plan:
    """What `train` would do with the same arguments, without doing it.

    Args:
        output: A JSON file for `train(..., plan=...)`; None: only printed.
        explain: Also print from which fact each decision follows, what would have been next, and
            the source of the rule.
        overwrite: Replace the output.

    Raises:
        DataError, ConfigError: as `train`.
        RunError: the output exists.
    """
    clock, console = Clock(), Console()
    target = Path(output) if output else None
    if target is not None and target.exists() and not overwrite:
        raise RunError(f"{target} exists.", hint="--overwrite replaces it; or name another -o.")
    intent = Intent.of(recipe, minutes, epochs, seed, settings, None, splits)
    _, planned = plan_data(Path(data), masks, intent, device, clock, console)
    for decision in planned.results:
        console.say(decision.text)
        if explain:
            for what, line in (("from", decision.fact), ("next", decision.alternative)):
                if line:
                    console.say(f"    {what}: {line}")
            console.say(f"    rule: {decision.source}")
    if target is not None:
        write_json(target, planned.plan.to_dict())
        console.say(f"Plan: {target}")
    return planned.plan


def _look(
    folder: Path, masks: Path | None, recipe: Recipe, machine: Machine, console: Console
) -> DatasetStats:
    """Reads the data and says what was found."""
    with console.progress("Reading") as on_progress:
        found = scan_dataset(
            folder, masks, recipe.labels, workers=machine.cores, on_progress=on_progress
        )
    found.raise_if_unusable()
    for line in [*describe_dataset(found), *check_before_training(found)]:
        console.say(line)
    return found


def _complete_recipe(
    recipe: Recipe | str,
    minutes: float | None,
    epochs: int | None,
    seed: int | None,
    settings: Iterable[str],
) -> Recipe:
    """The recipe with the user's settings; options win over the recipe."""
    chosen = load_recipe(recipe)
    settings = tuple(settings)
    chosen = config.override(chosen, settings)
    for given, other in ((minutes, "train.epochs"), (epochs, "train.minutes")):
        if given is not None and any(s.partition("=")[0].strip() == other for s in settings):
            raise ConfigError("Both minutes and epochs are given.", hint="Choose one of them.")
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    if minutes is not None:
        chosen = replace(chosen, train=replace(chosen.train, minutes=minutes, epochs=None))
    if epochs is not None:
        chosen = replace(chosen, train=replace(chosen.train, epochs=epochs, minutes=None))
    if (minutes and epochs) or (chosen.train.minutes and chosen.train.epochs):
        raise ConfigError("Both minutes and epochs are given.", hint="Choose one of them.")
    if chosen.train.epochs is None and chosen.train.minutes is None:
        chosen = replace(chosen, train=replace(chosen.train, minutes=DEFAULT_MINUTES))
    return chosen
