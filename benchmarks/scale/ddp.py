"""Train one model in one process and in several, and compare the weights and the time.

The processes are those of `ushape train --devices N`; on a CPU they share its cores, so the time
shows the cost of the exchange rather than a gain. A third training loses a process by SIGKILL; the
benchmark measures how long the command takes to end, and continues it with `ushape resume`.

Processes add up numbers in another order than one process, and the optimizer amplifies such
rounding errors where gradients are nearly zero. In fp32, the difference is therefore printed
beside that of two trainings in one process whose convolutions round differently (a limit of
oneDNN's instructions). In fp64, rounding errors stay far below the limit, and the weights must be
equal to 1e-9. The exit status is 1 if they are not, or if something does not end as it should.

    python benchmarks/scale/ddp.py --output FOLDER --devices 2 --steps 20
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import safetensors.numpy

from ushape.datasets.synthetic import SyntheticConfig, write_data_set

LARGEST_DIFFERENCE = 1e-9
"""Largest difference of two weights after a training in fp64."""

OTHER_ROUNDING = {"ONEDNN_MAX_CPU_ISA": "SSE41"}
"""Environment in which the convolutions of a CPU round differently."""


def start(*arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    """Start a command of ushape in an environment with further variables."""
    command = [sys.executable, "-m", "ushape", *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables
    )


def train(*arguments: object, **environment: str) -> None:
    """Train a model, and print the time of its epochs; if it fails, end this program."""
    process = start("train", *arguments, **environment)
    _, error = process.communicate()
    if process.returncode:
        sys.exit(error.decode())
    run = Path(str(arguments[arguments.index("-o") + 1]))
    print(f"{run.name}: {training_s(run):.1f} s for all steps")


def training_s(run: Path) -> float:
    """Return the seconds of all epochs, without start and evaluation."""
    with (run / "metrics.csv").open() as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest difference of two weights of two runs."""
    own, others = (safetensors.numpy.load_file(run / "model.safetensors") for run in (one, other))
    return max(float(abs(own[name] - others[name]).max()) for name in own)


def kill_one(run: Path, process: subprocess.Popen[bytes]) -> float:
    """Kill a process of a training after its first epoch; return the seconds until its end."""
    while not (run / "metrics.csv").exists():
        if process.poll() is not None:
            sys.exit("The training has ended before its first epoch.")
        time.sleep(0.2)
    children = psutil.Process(process.pid).children()
    next(one for one in reversed(children) if "ushape.api._rank" in one.cmdline()).kill()
    began = time.monotonic()
    process.wait()
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="New folder for data and runs.")
    parser.add_argument("--devices", type=int, default=2, help="Number of processes.")
    parser.add_argument("--device", default="cpu", help="Type of device: cpu or cuda.")
    parser.add_argument("--steps", type=int, default=20, help="Number of steps of an epoch.")
    parser.add_argument("--patch", type=int, default=64, help="Side of a patch in pixels.")
    parser.add_argument("--widths", default="[8,16,32]", help="Channels of the network.")
    given = parser.parse_args()

    folder: Path = given.output
    write_data_set(folder / "cells", 12, SyntheticConfig(size=128, groups=6), seed=0)
    batch = 4 * given.devices
    settings = [
        f"network.widths={given.widths}",
        "network.norm=group",
        f"sampling.patch_shape=[{given.patch},{given.patch}]",
        f"train.batch_size={batch}",
        f"train.steps_per_epoch={given.steps}",
        "predict.tune=false",
    ]
    options = [folder / "cells", "--device", given.device, *(f"--set={one}" for one in settings)]
    several = ["--devices", given.devices]
    failed = False
    print(f"2 epochs of {given.steps} steps of {batch} patches")
    for precision in ("fp32", "fp64"):
        own = [*options, f"--set=train.precision={precision}", "--epochs", 2]
        one, other = folder / f"one-{precision}", folder / f"several-{precision}"
        train(*own, "-o", one)
        train(*own, "-o", other, *several)
        difference = largest_difference(one, other)
        print(f"largest difference of two weights in {precision}: {difference:.2g}")
        if precision == "fp64":
            failed |= not difference <= LARGEST_DIFFERENCE
        elif given.device == "cpu":
            rounded = folder / f"rounded-{precision}"
            train(*own, "-o", rounded, **OTHER_ROUNDING)
            difference = largest_difference(one, rounded)
            print(f"largest difference in one process with other rounding: {difference:.2g}")

    run = folder / "killed"
    fp32 = "--set=train.precision=fp32"
    process = start("train", *options, fp32, "-o", run, "--epochs", 3, *several)
    print(f"end after a killed process: {kill_one(run, process):.1f} s, code {process.returncode}")
    failed |= process.returncode != 2
    resumed = start("resume", run)
    resumed.communicate()
    print(f"resumed: code {resumed.returncode}")
    sys.exit(failed or resumed.returncode != 0)


if __name__ == "__main__":
    main()
