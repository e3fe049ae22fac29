"""What loading and augmenting patches adds to a training step.

The same training, by turns with real loading (as planned) and with one batch used again and
again, which costs nothing to load.

    python benchmarks/speed/loading.py DATA [--masks DIR] [--rounds 3]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ushape.data.cache import SampleStore
from ushape.data.scan import scan_dataset
from ushape.planning.hardware import inspect_machine, reuse_freed_memory
from ushape.planning.planner import make_plan
from ushape.planning.recipes import load_recipe
from ushape.training.datamodule import SegmentationData
from ushape.training.module import SegmentationModule

STEPS, WARM_UP = 20, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    reuse_freed_memory()
    module, data = build(options.data, options.masks)
    loader = data.train_dataloader()
    once = next(iter(loader))

    found: dict[str, list[float]] = {"loaded": [], "given": []}
    for _ in range(options.rounds):
        found["loaded"].append(
            seconds_per_step(module, itertools.chain.from_iterable(itertools.repeat(loader)))
        )
        found["given"].append(seconds_per_step(module, itertools.repeat(once)))
    print("| batches | ms a step, each round | median |\n|---|---|---|")
    for name, times in found.items():
        each = ", ".join(f"{1000 * t:.0f}" for t in times)
        print(f"| {name} | {each} | {1000 * statistics.median(times):.0f} |")
    ratios = [a / b - 1 for a, b in zip(found["loaded"], found["given"], strict=True)]
    print(f"\nloading adds, median of rounds: {statistics.median(ratios):.1%}")


def build(folder: Path, masks: Path | None) -> tuple[SegmentationModule, SegmentationData]:
    from dataclasses import replace

    recipe = load_recipe("auto")
    recipe = replace(recipe, train=replace(recipe.train, epochs=1, steps_per_epoch=STEPS + WARM_UP))
    found = scan_dataset(folder, masks, recipe.labels, workers=2)
    planned = make_plan(found, recipe, inspect_machine("cpu"), elapsed_s=lambda: 0.0)
    plan, splits = planned.plan, planned.splits
    facts = {fact.case.id: fact for fact in found.facts}
    stores = []
    for ids in (splits.train, splits.validation):
        store = SampleStore([facts[i].case for i in ids], plan.preprocessing, keep=True)
        store.load_all(2)
        stores.append(store)
    class_pixels = np.asarray([facts[i].class_pixels for i in splits.train])
    module = SegmentationModule(plan, stores[1], [case.group for case in stores[1].cases])
    return module, SegmentationData(plan, stores[0], stores[1], class_pixels)


def seconds_per_step(module: SegmentationModule, batches: Iterable[object]) -> float:
    """Median over steps, waiting for the batch included."""
    optimizer = module.configure_optimizers()["optimizer"]
    bf16 = module.plan.recipe.train.precision == "bf16"
    times = []
    steps = iter(batches)
    for _ in range(STEPS + WARM_UP):
        started = time.perf_counter()
        batch = next(steps)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            image = batch["image"].to(memory_format=module.layout)  # type: ignore[index]
            loss = module.loss(module.network(image), batch["target"], batch["weight"])  # type: ignore[index]
        loss.backward()
        optimizer.step()
        module.averaged.update_parameters(module.network)
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:])


if __name__ == "__main__":
    main()
