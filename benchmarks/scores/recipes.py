"""Recipes side by side: each trained for the same minutes on its own data, and `auto` on all.

    python benchmarks/scores/recipes.py DATA_FOLDER [--minutes 5] [--only auto lgg-buda ...]

DATA_FOLDER holds isbi2012/, lgg/ and carvana/ as their READMEs describe them. A recipe whose batch
does not fit the machine says so in its row.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from real_data import SETS

import ushape
from ushape.config import resolved
from ushape.planning.run import Run

RECIPES_OF = {
    "isbi2012": ("auto", "unet2015", "isbi2012"),
    "lgg": ("auto", "lgg-onecycle", "lgg-bce-dice", "lgg-buda"),
    "carvana": ("auto", "carvana-original", "carvana-1024"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", nargs="+", help="These recipes alone.")
    parser.add_argument("--data", choices=SETS, help="This data set alone.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="Keep the runs here.")
    options = parser.parse_args()
    output = options.output or Path(tempfile.mkdtemp(prefix="ushape-recipes-"))
    lines = []
    for data in [options.data] if options.data else SETS:
        for name in RECIPES_OF[data]:
            if options.only is None or name in options.only:
                run = output / f"{data}-{name}"
                lines.append(row(options.folder, data, name, run, options))
                print(lines[-1], flush=True)
    print("\n| data | recipe | images seen | train loss | test Dice [95 %] | ms a step |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


def row(folder: Path, data: str, name: str, run: Path, options: argparse.Namespace) -> str:
    images, masks = SETS[data]
    try:
        result = ushape.train(
            folder / images,
            masks=folder / masks if masks else None,
            output=run,
            recipe=name,
            minutes=options.minutes,
            device=options.device,
        )
    except (ushape.UshapeError, RuntimeError) as error:
        return f"| {data} | {name} | | | {str(error).splitlines()[0]} | |"
    train = Run(run).load_plan().recipe.train
    with (run / "metrics.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    steps = int(epochs[-1]["step"])
    seen = steps * resolved(train.batch_size) * train.accumulate_grad_batches
    milliseconds = 1000 * sum(float(epoch["seconds"]) for epoch in epochs) / steps
    own = result.summary.classes[0]
    score = f"{own.mean_dice or 0:.3f}"
    if own.interval is not None:
        score += f" [{own.interval.low:.3f}, {own.interval.high:.3f}]"
    return (
        f"| {data} | {name} | {seen} | {float(epochs[-1]['loss']):.3f} | {score} "
        f"| {milliseconds:.0f} |"
    )


if __name__ == "__main__":
    main()
