"""What each rule of the planner is worth: `auto`, and `auto` with one rule replaced.

    python benchmarks/scores/ablation.py DATA_FOLDER [--minutes 2] [--data lgg] [--seeds 0 1]

DATA_FOLDER holds isbi2012/, lgg/ and carvana/ as their READMEs describe them; `cells` are made.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from real_data import SETS

import ushape
from ushape import config
from ushape.augment import AugmentConfig
from ushape.augment.intensity import IntensityConfig
from ushape.augment.warp import SpaceConfig
from ushape.cookbook import load_recipe
from ushape.plan.recipe import Recipe
from ushape.plan.run import Run

AUTO = load_recipe("auto")

NO_AUGMENTATION = AugmentConfig(
    space=SpaceConfig(
        flip_axes=(), rotation_probability=0, scale_probability=0, elastic_probability=0
    ),
    intensity=IntensityConfig(
        tone_probability=0, gamma_probability=0, noise_probability=0, blur_probability=0
    ),
)

VARIANTS: dict[str, Recipe] = {
    "auto": AUTO,
    "full resolution": replace(AUTO, preparation=replace(AUTO.preparation, downscale=1)),
    "half resolution": replace(AUTO, preparation=replace(AUTO.preparation, downscale=2)),
    "uniform sampling": replace(AUTO, sampling=replace(AUTO.sampling, draw="uniform")),
    "64 wide": replace(AUTO, network=replace(AUTO.network, widths=(64, 128, 256, 512, 1024))),
    "4 levels": replace(AUTO, network=replace(AUTO.network, widths=(16, 32, 64, 128))),
    "5 levels": replace(AUTO, network=replace(AUTO.network, widths=(16, 32, 64, 128, 256))),
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, help="Keep the runs here.")
    options = parser.parse_args()
    names = [options.data] if options.data else [*SETS, "cells"]
    scratch = options.output or Path(tempfile.mkdtemp(prefix="ushape-ablation-"))
    lines = []
    for variant in options.only or list(VARIANTS):
        found = [score(options, scratch, name, variant) for name in names]
        lines.append(f"| {variant} | {' | '.join(found)} |")
        print(lines[-1], flush=True)
    print(f"\nMean Dice per group on test, {options.minutes:g} minutes, seeds {options.seeds}")
    print(f"\n| variant | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    print("\n".join(lines))


def score(options: argparse.Namespace, scratch: Path, name: str, variant: str) -> str:
    """The mean Dice of each seed; a dash where `auto` has planned the variant itself."""
    auto = Run(scratch / f"{name}-auto-{options.seeds[0]}")
    is_compared = variant != "auto" and auto.folder.exists()
    if is_compared and is_planned_anyway(VARIANTS[variant], auto.load_plan().recipe):
        return "-"
    if name == "cells":
        images, masks = scratch / "cells", None
        if not images.exists():
            ushape.example(images)
    else:
        below, beside = SETS[name]
        images = options.folder / below
        masks = options.folder / beside if beside else None
    found = []
    for seed in options.seeds:
        result = ushape.train(
            images,
            masks=masks,
            output=scratch / f"{name}-{variant.replace(' ', '-')}-{seed}",
            recipe=VARIANTS[variant],
            minutes=options.minutes,
            seed=seed,
        )
        found.append(f"{result.summary.mean_dice or 0:.3f}")
    return ", ".join(found)


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
