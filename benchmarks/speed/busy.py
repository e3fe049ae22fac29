"""How much longer a training of given steps and a prediction take beside busy programs.

    python benchmarks/speed/busy.py [--steps 400] [--rounds 3] [--busy 2] [--set KEY=VALUE ...]

Each training is `ushape train` of the generated cells in a process of its own, with as many
steps in every round; each prediction is `ushape predict` of all cells with the first model. They
run alone and beside busy processes in turns; a busy process does nothing but compute. Prints a
table of the seconds of the whole commands, and the number of threads that was planned. Bar: at most
2.5 times as long beside the busy processes, compared by the medians. OMP_NUM_THREADS must not
be set.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

BAR = 2.5

THREADS = "OMP_NUM_THREADS"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=2, help="Number of busy processes.")
    parser.add_argument("--set", action="append", default=[], help="Setting of the training.")
    options = parser.parse_args()
    if options.busy < 1:
        parser.error(f"--busy is {options.busy}. Give at least 1 busy process.")
    if THREADS in os.environ:
        parser.error(f"{THREADS} is set, so the number of threads does not depend on the load.")
    rows: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="ushape-busy-") as folder:
        data, model = Path(folder, "cells"), Path(folder, "run-0-0")
        _run_ushape("example", data, "--count", 48)
        for round_number, busy in product(range(options.rounds), (0, options.busy)):
            name = f"{round_number}-{busy}"
            run, masks = Path(folder, f"run-{name}"), Path(folder, f"masks-{name}")
            with _busy_processes(busy):
                seconds = _train(data, run, options.steps, options.set)
                threads = json.loads((run / "plan.json").read_text())["recipe"]["train"]["threads"]
                rows.setdefault((f"train, threads: {threads}", busy), []).append(seconds)
                seconds = _run_ushape("predict", model, data / "images", "-o", masks)
                rows.setdefault(("predict", busy), []).append(seconds)
    print("| command | busy processes | s in each round | median, s |\n|---|---|---|---|")
    for (command, busy), measured in sorted(rows.items()):
        rounds = ", ".join(f"{one:.1f}" for one in measured)
        print(f"| {command} | {busy} | {rounds} | {statistics.median(measured):.1f} |")
    for kind in ("train", "predict"):
        alone, beside = (_median(rows, kind, busy) for busy in (0, options.busy))
        print(f"\n{kind}: ratio of the medians {beside / alone:.2f} (bar: at most {BAR}).")


def _median(rows: dict[tuple[str, int], list[float]], kind: str, busy: int) -> float:
    """Return the median of all measurements, whatever number of threads was planned."""
    found = [
        one
        for (command, other), measured in rows.items()
        for one in measured
        if command.startswith(kind) and other == busy
    ]
    return statistics.median(found)


def _train(data: Path, output: Path, steps: int, settings: list[str]) -> float:
    epochs = 4
    chosen = [f"train.steps_per_epoch={steps // epochs}", *settings]
    more = [option for setting in chosen for option in ("--set", setting)]
    return _run_ushape("train", data, "-o", output, "--epochs", epochs, *more)


def _run_ushape(*arguments: object) -> float:
    """Run a command, and return how many seconds it takes."""
    started = time.monotonic()
    command = [sys.executable, "-m", "ushape", *map(str, arguments), "--quiet"]
    subprocess.run(command, check=True)
    return time.monotonic() - started


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    """Run processes that compute without a pause."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
