"""Train a model, read its scores, and predict new images.

    python examples/train_and_predict.py out --minutes 5

Generates images of cells in the folder `out/cells`. Use your own images with --data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ushape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="new folder for everything that is written")
    parser.add_argument("--data", type=Path, help="folder of images and masks (default: generated)")
    parser.add_argument("--new-images", type=Path, help="images to predict (default: generated)")
    parser.add_argument("--count", type=int, default=48, help="number of generated images")
    parser.add_argument("--minutes", type=float, help="time limit")
    parser.add_argument("--epochs", type=int, help="number of epochs, instead of a time limit")
    parser.add_argument("--set", action="append", default=[], help="recipe setting, key=value")
    arguments = parser.parse_args()

    data = arguments.data or ushape.example(arguments.output / "cells", count=arguments.count)
    new = arguments.new_images
    if new is None:
        new = ushape.example(arguments.output / "new_cells", count=4, seed=1) / "images"

    run = ushape.train(
        data,
        output=arguments.output / "run",
        minutes=arguments.minutes,
        epochs=arguments.epochs,
        settings=arguments.set,
    )
    for one in run.summary.classes:
        if one.mean_dice is not None:  # None if no test image contains the class.
            print(f"{one.name}: mean Dice {one.mean_dice:.3f} over {one.groups_with_truth} groups")

    masks = arguments.output / "masks"
    ushape.predict(run.folder, new, output=masks, overlay=True, table=True)
    print(f"Masks, overlays and tables of objects are in {masks}.")


if __name__ == "__main__":
    main()
