"""Plan training: scan the data, split them and apply the planning rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ushape import config
from ushape.config import is_custom
from ushape.console import Clock, Console
from ushape.data.checks import check_before_training
from ushape.data.preprocessing_config import DIVIDE_ABOVE_PX
from ushape.data.scan import DatasetStats, describe_dataset, scan_dataset
from ushape.errors import ConfigError
from ushape.io.files import real_path, refuse_existing_output, write_json
from ushape.labels import LabelConfig
from ushape.planning.data_settings import apply_data_settings
from ushape.planning.hardware import Machine, inspect_machine, reuse_freed_memory
from ushape.planning.plan import Plan, load_plan
from ushape.planning.planner import Measured, Planned, adopt_plan, make_plan
from ushape.planning.processor import threads_restored, use_threads, with_load
from ushape.planning.recipe import Recipe, with_some_rate
from ushape.planning.recipes import load_recipe
from ushape.planning.start import adopt_network

DEFAULT_MINUTES = 30.0
"""Wall time of training if neither minutes nor epochs are set."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Training options, checked and combined."""

    recipe: Recipe
    plan: Plan | None = None
    """Plan to use instead of a new one."""

    splits: Path | None = None
    """File of the splits to use instead of new ones."""

    data_note: str = ""
    """Sentence about the settings stored with the data; '' if there are none."""

    @classmethod
    def resolve(
        cls,
        *,
        recipe: Recipe | str | None = None,
        minutes: float | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        settings: Iterable[str] = (),
        plan: Path | str | None = None,
        splits: Path | str | None = None,
        groups: str | None = None,
        start_from: Path | str | None = None,
        data: Path | str | None = None,
    ) -> TrainOptions:
        """Combine the options of a call; they take precedence over the recipe.

        Settings stored with the data complete the recipe.

        Raises:
            ConfigError: if a key is unknown, a value is impossible, or options conflict.
            RunError: if there are no weights to start from.
        """
        settings = config.setting_list(settings)
        if plan is None:
            base, note = load_recipe(recipe or "auto"), ""
            if data is not None:
                base, note = apply_data_settings(base, Path(data))
            chosen = _complete_recipe(base, minutes, epochs, seed, settings)
            chosen = replace(
                chosen,
                groups=groups or chosen.groups,
                start_from=str(start_from) if start_from else chosen.start_from,
            )
            chosen = adopt_network(chosen)
            return cls(recipe=chosen, splits=optional_path(splits), data_note=note)
        if isinstance(recipe, str) and is_custom(recipe):
            load_recipe(recipe)  # Only for the network or loss that the plan uses.
            recipe = None
        others = (recipe, minutes, epochs, seed, groups, start_from)
        if settings or any(value is not None for value in others):
            raise ConfigError(
                "A plan cannot be combined with a recipe, minutes, epochs, seed, groups, settings "
                "or weights to start from.",
                code="conflicting_options",
                hint="Edit the plan, or create a new one: ushape plan DATA -o plan.json",
            )
        given = load_plan(Path(plan))
        return cls(recipe=given.recipe, plan=given, splits=optional_path(splits))


@threads_restored()
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
    start_from: Path | str | None = None,
    groups: str | None = None,
    explain: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Plan:
    """Show what `train` would do with the same options.

    Args:
        data: Folder with images and masks, or a table of them.
        masks: Folder with the masks, if the data folder contains only images; or a pattern for
            their names, such as 'DATA/*_mask.png'.
        output: JSON file for `train --plan`; without this option, the plan is only printed.
        recipe: Name of a recipe (see `ushape recipes`), a YAML file, or FILE.py:FUNCTION.
        minutes: Wall time of training and evaluation in minutes (default: 30, unless the number of
            epochs is set).
        epochs: Number of epochs, instead of a time limit.
        device: Device: auto, cpu, cuda or mps.
        seed: Random seed for the split, weight initialization and patch sampling.
        settings: Recipe setting as key=value, e.g. train.batch_size=2 (repeatable).
        splits: JSON file with the split, such as splits.json of a run (default: a new split).
        start_from: Run folder or .safetensors file with the initial weights; the network is that of
            the run (default: `train.initial_weights`).
        groups: How to group cases so that a group never spans two splits: a regular expression
            matched against case IDs, a table column, or `none` to treat every image as its own
            group (default: taken from the data, or inferred).
        explain: Show the evidence, the alternative and the rule behind each decision.
        overwrite: Replace existing outputs.
        quiet: Print nothing.

    Raises:
        DataError: if the data cannot be used.
        ConfigError: if an option is unknown, has an impossible value, or conflicts with another
            one.
        RunError: if the output exists.
    """
    clock, console, target = Clock.of_command(), Console(quiet=quiet), optional_path(output)
    refuse_existing_output(target, overwrite)
    options = TrainOptions.resolve(
        recipe=recipe,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        settings=settings,
        splits=splits,
        groups=groups,
        start_from=start_from,
        data=data,
    )
    machine = inspect_machine(device)
    _, planned = plan_data(Path(data), masks, options, machine, clock, console)
    return _print_and_write(planned, explain, target, console)


def _print_and_write(
    planned: Planned, explain: bool, target: Path | None, console: Console
) -> Plan:
    for result in planned.results:
        console.say(result.text)
        if explain:
            for what, line in (("evidence", result.fact), ("alternative", result.alternative)):
                if line:
                    console.say(f"    {what}: {line}")
            console.say(f"    rule: {result.source}")
    if target is not None:
        write_json(target, planned.plan.to_dict())
        console.say(f"Plan: {target}")
    return planned.plan


def plan_data(
    folder: Path,
    masks: Path | str | None,
    options: TrainOptions,
    machine: Machine,
    clock: Clock,
    console: Console,
) -> tuple[DatasetStats, Planned]:
    """Scan the data, print what was found, split the cases and make the plan."""
    if options.recipe.train.reuse_freed_memory:
        reuse_freed_memory()  # It has no effect once torch has allocated large blocks.
    if options.data_note:
        console.say(options.data_note)
    found = scan_for(options.recipe, folder, masks, console)
    found.raise_if_unusable()
    for line in [*describe_dataset(found), *check_before_training(found)]:
        console.say(line)
    machine = with_load(machine, options.recipe.train)
    threads = use_threads(options.recipe.train, machine)
    if options.plan is not None:
        planned = adopt_plan(found, options.plan, options.splits)
    else:
        planned = plan_scanned(found, options.recipe, machine, options.splits, clock, console)
    for line in filter(None, (threads, planned.splits.text)):
        console.say(line)
    return found, planned


def plan_scanned(
    found: DatasetStats,
    recipe: Recipe,
    machine: Machine,
    splits: Path | None,
    clock: Clock,
    console: Console,
    measured: Measured | None = None,
) -> Planned:
    """Make the plan of a recipe for scanned data, and show that the speed is measured.

    Args:
        measured: What was measured for an earlier plan of the same recipe, if any.
    """
    with console.progress("Measuring the speed"):
        return make_plan(
            found,
            with_some_rate(recipe),
            machine,
            elapsed_s=lambda: clock.elapsed_s,
            given_splits=splits,
            measured=measured,
        )


def scan_for(
    recipe: Recipe, data: Path | str, masks: Path | str | None, console: Console
) -> DatasetStats:
    """Read every image and mask once, with the labels, groups and resolution of a recipe."""
    return scan(
        data,
        masks,
        recipe.labels,
        console,
        groups=recipe.groups,
        divide_above_px=recipe.preprocessing.divide_above_px,
        slide_mpp=recipe.preprocessing.slide_mpp,
    )


def scan(
    data: Path | str,
    masks: Path | str | None,
    labels: LabelConfig,
    console: Console,
    *,
    dims: int | None = None,
    groups: str | None = None,
    classes: Sequence[str] = (),
    divide_above_px: int | None = DIVIDE_ABOVE_PX,
    slide_mpp: float | None = None,
) -> DatasetStats:
    """Read every image and mask once, and show a progress bar.

    Args:
        dims: Number of spatial dimensions of the network, if it is known.
        classes: Names of the classes of a run, background first, if the data must have them.
        divide_above_px: As for `scan_dataset`.
        slide_mpp: As for `scan_dataset`.
    """
    workers = inspect_machine("cpu").cores
    with console.progress("Reading") as on_progress:
        return scan_dataset(
            Path(data),
            optional_path(masks),
            labels,
            groups,
            workers=workers,
            on_progress=on_progress,
            dims=dims,
            classes=classes,
            divide_above_px=divide_above_px,
            slide_mpp=slide_mpp,
        )


def optional_path(path: Path | str | None) -> Path | None:
    """Return the path of an option, or None if it is missing or empty."""
    return Path(path) if path else None


def output_folder(output: Path | str | None, data: Path | str, suffix: str = "") -> Path:
    """Return the output if it is set, otherwise runs/NAME of the data with a suffix."""
    return optional_path(output) or Path("runs") / (real_path(Path(data)).name + suffix)


def _complete_recipe(
    recipe: Recipe,
    minutes: float | None,
    epochs: int | None,
    seed: int | None,
    settings: tuple[str, ...],
) -> Recipe:
    """Return the recipe with the settings and the options applied."""
    chosen = config.override(recipe, settings)
    keys = {setting.partition("=")[0].strip() for setting in settings}
    is_minutes = minutes is not None or "train.minutes" in keys
    is_epochs = epochs is not None or "train.epochs" in keys
    train = chosen.train
    if minutes is not None:
        train = replace(train, minutes=minutes, epochs=None)
    if epochs is not None:
        train = replace(train, epochs=epochs, minutes=None)
    if (is_minutes and is_epochs) or (train.minutes is not None and train.epochs is not None):
        raise ConfigError(
            "Both minutes and epochs are set.",
            code="conflicting_options",
            hint="Set only one of them.",
        )
    if train.minutes is None and train.epochs is None:
        train = replace(train, minutes=DEFAULT_MINUTES)
    return replace(chosen, train=train, seed=chosen.seed if seed is None else seed)
