"""Train two models that differ in one setting, and test whether one of them is better.

    python examples/compare_runs.py out --epochs 50 --change network.norm=batch

Both models use the same split, so that they are compared on the same test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ushape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="new folder for everything that is written")
    parser.add_argument("--data", type=Path, help="folder of images and masks (default: generated)")
    parser.add_argument("--count", type=int, default=48, help="number of generated images")
    parser.add_argument("--epochs", type=int, default=20, help="number of epochs of each model")
    parser.add_argument(
        "--change", action="append", required=True, help="setting of the second model"
    )
    parser.add_argument(
        "--set", action="append", default=[], help="setting of both models, key=value"
    )
    arguments = parser.parse_args()

    data = arguments.data or ushape.example(arguments.output / "cells", count=arguments.count)
    first = ushape.train(
        data, output=arguments.output / "first", epochs=arguments.epochs, settings=arguments.set
    )
    second = ushape.train(
        data,
        output=arguments.output / "second",
        epochs=arguments.epochs,
        settings=[*arguments.set, *arguments.change],
        splits=first.folder / "splits.json",
    )
    page = arguments.output / "comparison.html"
    (comparison,) = ushape.compare(first.folder, second.folder, output=page)
    for one in comparison.classes:
        print(f"{one.name}: {one.verdict}")
    for change in comparison.changes[:3]:
        print(f"{change.case}: Dice {change.first:.3f} -> {change.other:.3f}")


if __name__ == "__main__":
    main()
