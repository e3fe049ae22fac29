"""What each rule of the planner is worth: `auto`, and `auto` with one rule replaced.

    python benchmarks/scores/ablation.py DATA_FOLDER [--minutes 2] [--data lgg] [--only "64 wide"]

DATA_FOLDER holds isbi2012/, lgg/ and carvana/ as their READMEs describe them; `cells` are made.
`auto` trains by the clock. The variants, and `auto` once more, then train as many steps as it
had, those with a slower step fewer of them: what else the machine does meanwhile is no matter.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from real_data import SETS

import ushape
from ushape import config
from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.planning.plan import Plan
from ushape.planning.recipe import Recipe
from ushape.planning.recipes import load_recipe
from ushape.planning.run import Run
from ushape.planning.timing import measure_step_s
from ushape.transforms.augment import AugmentConfig, IntensityConfig
from ushape.transforms.augment.geometry import GeometryConfig

AUTO = load_recipe("auto")

SAME_GREY_VALUES = IntensityConfig(
    brightness_contrast_probability=0, gamma_probability=0, noise_probability=0, blur_probability=0
)
NO_AUGMENTATION = AugmentConfig(
    geometry=GeometryConfig(
        flip_axes=(), rotation_probability=0, scale_probability=0, elastic_probability=0
    ),
    intensity=SAME_GREY_VALUES,
)

VARIANTS: dict[str, Recipe] = {
    "auto": AUTO,
    "full resolution": replace(AUTO, preprocessing=replace(AUTO.preprocessing, downscale=1)),
    "uniform sampling": replace(AUTO, sampling=replace(AUTO.sampling, strategy="uniform")),
    "64 wide": replace(AUTO, network=replace(AUTO.network, widths=(64, 128, 256, 512, 1024))),
    "5 levels": replace(AUTO, network=replace(AUTO.network, widths=(16, 32, 64, 128, 256))),
    "4 levels": replace(AUTO, network=replace(AUTO.network, widths=(16, 32, 64, 128))),
    "batch norm": replace(AUTO, network=replace(AUTO.network, norm="batch")),
    "instance norm": replace(AUTO, network=replace(AUTO.network, norm="instance")),
    "no augmentation": replace(AUTO, augment=NO_AUGMENTATION),
    "no average of weights": replace(AUTO, train=replace(AUTO.train, ema_decay=0.0)),
    "cross-entropy alone": replace(AUTO, loss=replace(AUTO.loss, terms={"cross_entropy": 1.0})),
    "half the learning rate": replace(AUTO, train=replace(AUTO.train, learning_rate=1e-3)),
    "twice the learning rate": replace(AUTO, train=replace(AUTO.train, learning_rate=4e-3)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--data", choices=[*SETS, "cells"], help="This data set alone.")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="These variants alone.")
    parser.add_argument("--output", type=Path, help="Keep the runs here.")
    options = parser.parse_args()
    scratch = options.output or Path(tempfile.mkdtemp(prefix="ushape-ablation-"))
    budgets = {
        name: train_by_clock(options, scratch, name)
        for name in ([options.data] if options.data else [*SETS, "cells"])
    }
    lines = [f"| auto, by the clock | {' | '.join(b.score for b in budgets.values())} |"]
    for variant in options.only or list(VARIANTS):
        found = [train_by_steps(options, scratch, b, variant) for b in budgets.values()]
        lines.append(f"| {variant} | {' | '.join(found)} |")
        print(lines[-1], flush=True)
    print(f"\nMean Dice per group on test, {options.minutes:g} minutes")
    print(f"\n| variant | {' | '.join(budgets)} |")
    print("|---" * (len(budgets) + 1) + "|")
    print("\n".join(lines))


@dataclass(frozen=True)
class Budget:
    """What `auto` did in the time."""

    data: str
    images: Path
    masks: Path | None
    recipe: Recipe
    """As planned."""

    epochs: int
    steps: int
    """In an epoch."""

    score: str


def train_by_clock(options: argparse.Namespace, scratch: Path, name: str) -> Budget:
    images, masks = scratch / "cells", None
    if name == "cells":
        ushape.example(images)
    else:
        below, beside = SETS[name]
        images = options.folder / below
        masks = options.folder / beside if beside else None
    run = scratch / f"{name}-by-clock"
    result = ushape.train(images, masks=masks, output=run, minutes=options.minutes)
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Budget(
        data=name,
        images=images,
        masks=masks,
        recipe=Run(run).load_plan().recipe,
        epochs=len(rows),
        steps=int(rows[-1]["step"]) // len(rows),
        score=f"{result.summary.mean_dice or 0:.3f}",
    )


def train_by_steps(options: argparse.Namespace, scratch: Path, budget: Budget, variant: str) -> str:
    """The mean Dice; a dash where `auto` has planned the variant itself."""
    recipe = VARIANTS[variant]
    if variant != "auto" and is_planned_anyway(recipe, budget.recipe):
        return "-"
    recipe = replace(recipe, preprocessing=fixed_scale(recipe, budget))
    planned = ushape.plan(budget.images, masks=budget.masks, recipe=recipe, epochs=1)
    steps = max(1, round(budget.steps / slowness(planned, budget.recipe)))
    result = ushape.train(
        budget.images,
        masks=budget.masks,
        output=scratch / f"{budget.data}-{variant.replace(' ', '-')}",
        recipe=recipe,
        epochs=budget.epochs,
        settings=[f"train.steps_per_epoch={steps}"],
    )
    return f"{result.summary.mean_dice or 0:.3f}"


def fixed_scale(recipe: Recipe, budget: Budget) -> PreprocessingConfig:
    """By the clock, the planner may work at a coarser scale than for a number of epochs."""
    scale = recipe.preprocessing.downscale
    scale = budget.recipe.preprocessing.downscale if scale == "auto" else scale
    return replace(recipe.preprocessing, downscale=scale)


def slowness(plan: Plan, recipe: Recipe) -> float:
    """Seconds of a step of the plan, per second of the recipe's; taking turns."""
    preprocessing, device = plan.preprocessing, plan.machine.device
    times: list[list[float]] = [[], []]
    if replace(plan.recipe.network, norm="none") == replace(recipe.network, norm="none"):
        return 1.0
    for _ in range(3):
        for own, of in zip(times, (plan.recipe, recipe), strict=True):
            own.append(measure_step_s(of, preprocessing.channels, preprocessing.space, device))
    return statistics.median(times[0]) / statistics.median(times[1])


def is_planned_anyway(variant: Recipe, planned: Recipe) -> bool:
    """Whether a plan has every setting in which a variant differs from `auto`."""
    auto, settings = leaves(config.to_dict(AUTO)), leaves(config.to_dict(planned))
    changed = {key: v for key, v in leaves(config.to_dict(variant)).items() if auto.get(key) != v}
    return bool(changed) and all(settings.get(key) == value for key, value in changed.items())


def leaves(tree: object, path: str = "") -> dict[str, object]:
    """Values by their dotted path."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    found = {}
    for key, value in tree.items():
        found |= leaves(value, f"{path}.{key}")
    return found


if __name__ == "__main__":
    main()
