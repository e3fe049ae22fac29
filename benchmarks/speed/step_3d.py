"""Time and memory of a training step on a CPU: ushape in 3D beside the networks of MONAI.

    python benchmarks/speed/step_3d.py DATA [--masks DIR] [--python PEERS/bin/python] [--rounds 3]

DATA are volumes. All programs take random patches of the size and number that ushape plans for
DATA and --minutes (10). PEERS is an environment with torch and MONAI, as in
benchmarks/scores/requirements-peers.txt. The programs:

- ushape, planned: network and number format of the plan;
- ushape, half size: planned for 16, 32, 64, 128, 256 channels, the first of them at half the size
  of the patch, as in MONAI's UNet;
- ushape, full size: the same, but the first level has the size of the patch, as in BasicUNet;
- MONAI UNet: that of its tutorial spleen_segmentation_3d (16 to 256 channels, strides of 2, two
  residual units, batch norm), in fp32 as there, and in bf16;
- MONAI BasicUNet: a plain U-Net of 16 to 256 channels with instance norm, in fp32 and in bf16.

All use AdamW. MONAI has the tutorial's Dice loss of two softmax channels; ushape has its own loss
and memory settings. Each program runs in a process of its own, in turns, and makes --steps steps
after three others. Prints Markdown tables: the medians of the steps, and how many times as long a
step of MONAI takes as one of ushape with the same widths. Processor time includes all threads;
unlike wall time, it hardly depends on other programs.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WIDTHS = [16, 32, 64, 128, 256]
WARM_UP = 3
BAR = 1.5
PLANNED = "ushape, planned"
OWN = {
    PLANNED: [],
    "ushape, half size": [f"network.widths={WIDTHS}", "network.stem=2"],
    "ushape, full size": [f"network.widths={WIDTHS}", "network.stem=1"],
}
"""Programs with the settings of their plans."""

PEERS = {
    "MONAI UNet, fp32": "ushape, half size",
    "MONAI UNet, bf16": "ushape, half size",
    "MONAI BasicUNet, fp32": "ushape, full size",
    "MONAI BasicUNet, bf16": "ushape, full size",
}
"""Programs with those of ushape that have the same widths."""

Measured = dict[str, float]
"""Median milliseconds of a step by the wall clock and of the processor, and peak memory in GB."""

KEYS = ("ms", "processor_ms", "peak_gb")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--python", default=sys.executable, help="Python that has MONAI.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--program", choices=(*OWN, *PEERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:  # In a process of its own, DATA is a plan.
        measure = measure_own if options.program in OWN else measure_peer
        print(json.dumps(measure(options.program, options.data, options.steps)))
        return
    if subprocess.run([options.python, "-c", "import monai"]).returncode:
        parser.error(f"{options.python} cannot import MONAI. Give another one with --python.")
    found: dict[str, list[Measured]] = {name: [] for name in (*OWN, *PEERS)}
    with tempfile.TemporaryDirectory() as folder:
        plans = write_plans(options, Path(folder))
        shape = batch_shape(plans[PLANNED])
        if len(shape) < 5:
            parser.error(f"{options.data} contains images, but this script needs volumes.")
        print(f"{' x '.join(map(str, shape))} voxels, {options.steps} steps in each round\n")
        for _ in range(options.rounds):
            for name, measured in found.items():
                python = sys.executable if name in OWN else options.python
                command = [python, __file__, str(plans.get(name, plans[PLANNED]))]
                command += ["--program", name, "--steps", str(options.steps)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                measured.append(json.loads(done.stdout.splitlines()[-1]))
    print_tables(found, math.prod(shape))


def write_plans(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Write the plan of each of ushape's networks, with the patches of the first, and print it."""
    plans, same_patches = {}, list[str]()
    for name, settings in OWN.items():
        plans[name] = path = folder / f"{len(plans)}.json"
        command = [sys.executable, "-m", "ushape", "plan", str(options.data), "-o", str(path)]
        command += ["--minutes", str(options.minutes), "--quiet"]
        command += ["--masks", str(options.masks)] if options.masks else []
        for setting in (*settings, *same_patches):
            command += ["--set", setting]
        subprocess.run(command, check=True)
        if not same_patches:
            batch, _, *patch = batch_shape(path)
            same_patches = [f"sampling.patch_shape={patch}", f"train.batch_size={batch}"]
        recipe = json.loads(path.read_text())["recipe"]
        network, train = recipe["network"], recipe["train"]
        shown = {key: network[key] for key in ("widths", "stem", "strides", "kernels", "norm")}
        print(f"{name}: {shown}, {train['precision']}", flush=True)
    return plans


def batch_shape(plan: Path) -> tuple[int, ...]:
    """Return the shape (B, C, *S) of a batch of a plan."""
    values = json.loads(plan.read_text())
    recipe, channels = values["recipe"], values["preprocessing"]["channels"]
    return recipe["train"]["batch_size"], channels, *recipe["sampling"]["patch_shape"]


def measure_own(program: str, plan: Path, steps: int) -> Measured:
    """Measure ushape's own training step, with its memory settings."""
    from ushape.planning.hardware import reuse_freed_memory
    from ushape.planning.plan import load_plan
    from ushape.planning.timing import TrainingStep

    reuse_freed_memory()
    planned = load_plan(plan)
    preprocessing = planned.preprocessing
    step = TrainingStep(planned.recipe, preprocessing.channels, preprocessing.space, "cpu")
    return time_steps(step.run, steps)


def measure_peer(program: str, plan: Path, steps: int) -> Measured:
    """Measure a step of one of MONAI's networks."""
    import torch
    from monai.losses import DiceLoss
    from monai.networks.nets import BasicUNet, UNet

    batch, channels, *patch = batch_shape(plan)
    common: dict[str, Any] = {"spatial_dims": 3, "in_channels": channels, "out_channels": 2}
    if "BasicUNet" in program:
        network = BasicUNet(**common, features=(*WIDTHS, WIDTHS[0]))
    else:
        strides = (2, 2, 2, 2)
        network = UNet(**common, channels=WIDTHS, strides=strides, num_res_units=2, norm="batch")
    loss_of = DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.randn(batch, channels, *patch)
    truth = torch.randint(2, (batch, 1, *patch))

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in program):
            loss = loss_of(network(image), truth)
        loss.backward()
        optimizer.step()
        loss.item()

    return time_steps(run, steps)


def time_steps(run: Callable[[], None], steps: int) -> Measured:
    """Return the medians of so many steps after the warm-up, and the memory of the process."""
    wall_s, processor_s = [], []
    for _ in range(WARM_UP + steps):
        began, used = time.perf_counter(), time.process_time()
        run()
        wall_s.append(time.perf_counter() - began)
        processor_s.append(time.process_time() - used)
    return {
        "ms": 1000 * statistics.median(wall_s[WARM_UP:]),
        "processor_ms": 1000 * statistics.median(processor_s[WARM_UP:]),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def print_tables(found: dict[str, list[Measured]], voxels: int) -> None:
    """Print the times of all programs, and the ratios of those with the same widths."""
    print("\n| program | ms in each round | median | processor, ms | voxels/s | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        ms, processor_ms = (statistics.median(row[key] for row in rows) for key in KEYS[:2])
        each = ", ".join(f"{row['ms']:.0f}" for row in rows)
        peak_gb = max(row["peak_gb"] for row in rows)
        print(
            f"| {name} | {each} | {ms:.0f} | {processor_ms:.0f} | {1000 * voxels / ms:,.0f} "
            f"| {peak_gb:.2f} |"
        )
    print("\n| program | ushape's of the same widths | times as long | processor time | memory |")
    print("|---|---|---|---|---|")
    for name, own in PEERS.items():
        pairs = list(zip(found[name], found[own], strict=True))
        ratios = [
            statistics.median(theirs[key] / ours[key] for theirs, ours in pairs) for key in KEYS
        ]
        verdict = f"bar: {BAR}, {'met' if ratios[0] >= BAR else 'missed'}"
        print(
            f"| {name} | {own} | {ratios[0]:.2f} ({verdict}) | {ratios[1]:.2f} | {ratios[2]:.2f} |"
        )


if __name__ == "__main__":
    main()
