"""Images per second: ushape's training against a plain fp32 PyTorch loop, same network and batch.

Each side runs in a process of its own, in turns (A B A B), as its users would run it: the plain
loop with the C library's malloc as it comes, ushape through its Trainer with loading and
augmentation. Also prints the peak memory of each process.

    python benchmarks/speed/training.py [--rounds 3] [--width 32]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, SIDE = 4, 256
STEPS, WARM_UP = 12, 3


def plain_loop(width: int) -> dict[str, float]:
    """What most tutorials do: fp32, channels first, AdamW, random images already in memory."""
    import torch
    from torch import nn

    from ushape.models import build_model
    from ushape.models.config import NetworkConfig

    widths = tuple(width * 2**level for level in range(5))
    network = build_model(NetworkConfig(widths=widths, norm="batch"), 3, 1).train()
    optimizer = torch.optim.AdamW(network.parameters())
    loss_function = nn.BCEWithLogitsLoss()
    image = torch.randn(BATCH, 3, SIDE, SIDE)
    target = torch.randint(2, (BATCH, 1, SIDE, SIDE)).float()
    times = []
    for _ in range(STEPS + WARM_UP):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = loss_function(network(image), target)
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(time.perf_counter() - started)
    return report(BATCH / statistics.median(times[WARM_UP:]))


def ushape_training(width: int) -> dict[str, float]:
    """`ushape.train` on generated RGB images; the speed is that of its second epoch on."""
    import csv

    import numpy as np
    from PIL import Image

    import ushape

    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder) / "data", Path(folder) / "run"
        rng = np.random.default_rng(0)
        for part in ("images", "masks"):
            (data / part).mkdir(parents=True)
        for index in range(24):
            name = f"{index // 4:02d}x_{index % 4}.png"
            image = rng.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(image).save(data / "images" / name)
            mask = np.uint8(255) * (image[..., 0] > 128)
            Image.fromarray(mask).save(data / "masks" / name)
        widths = [width * 2**level for level in range(5)]
        ushape.train(
            data,
            output=run,
            epochs=3,
            settings=[
                f"network.widths={widths}",
                "network.norm=batch",
                f"train.steps_per_epoch={STEPS}",
                f"train.batch_size={BATCH}",
                "train.max_validation_cases=1",
                "preprocessing.downscale=1",
            ],
        )
        rows = list(csv.DictReader((run / "metrics.csv").open()))
    seconds = statistics.median(float(row["seconds"]) for row in rows[1:])
    return report(STEPS * BATCH / seconds)


def report(images_per_s: float) -> dict[str, float]:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"images_per_s": images_per_s, "peak_gb": peak}


SIDES = {"plain": plain_loop, "ushape": ushape_training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.width)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(options.rounds):
        for name in SIDES:
            command = [sys.executable, __file__, "--side", name, "--width", str(options.width)]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(ended.stdout.splitlines()[-1]))
    print(f"{options.width}-wide U-Net, 5 levels, batch {BATCH} x 3 x {SIDE} x {SIDE}\n")
    print("| side | images/s, each round | median | peak memory, GB |\n|---|---|---|---|")
    for name, rows in found.items():
        speeds = [row["images_per_s"] for row in rows]
        peak = max(row["peak_gb"] for row in rows)
        each = ", ".join(f"{speed:.2f}" for speed in speeds)
        print(f"| {name} | {each} | {statistics.median(speeds):.2f} | {peak:.2f} |")
    ratios = [
        ours["images_per_s"] / plain["images_per_s"]
        for plain, ours in zip(found["plain"], found["ushape"], strict=True)
    ]
    print(f"\nratio, median of rounds: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
