"""How much longer a training of given steps takes beside programs that use all cores.

    python benchmarks/speed/busy.py [--steps 400] [--rounds 3] [--busy 2]

Each training is `ushape train` of the generated cells in a process of its own, with as many steps
in every round. It runs alone and beside busy processes in turns; a busy process does nothing but
compute. Prints a Markdown table of the seconds of the whole command. Bar: at most 2.5 times as long
beside the busy processes, compared by the medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BAR = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=2, help="Number of busy processes.")
    options = parser.parse_args()
    if options.busy < 1:
        parser.error(f"--busy is {options.busy}. Give at least 1 busy process.")
    seconds: dict[int, list[float]] = {0: [], options.busy: []}
    with tempfile.TemporaryDirectory(prefix="ushape-busy-") as folder:
        data = Path(folder, "cells")
        _run_ushape("example", data, "--count", 48)
        for round_number in range(options.rounds):
            for busy, measured in seconds.items():
                with _busy_processes(busy):
                    started = time.monotonic()
                    output = Path(folder, f"run-{round_number}-{busy}")
                    _train(data, output, options.steps)
                    measured.append(time.monotonic() - started)
    print("| busy processes | s in each round | median, s |\n|---|---|---|")
    for busy, measured in seconds.items():
        rounds = ", ".join(f"{one:.1f}" for one in measured)
        print(f"| {busy} | {rounds} | {statistics.median(measured):.1f} |")
    alone, beside = (statistics.median(measured) for measured in seconds.values())
    print(f"\nRatio of the medians: {beside / alone:.2f} (bar: at most {BAR}).")


def _train(data: Path, output: Path, steps: int) -> None:
    epochs = 4
    per_epoch = f"train.steps_per_epoch={steps // epochs}"
    _run_ushape("train", data, "-o", output, "--epochs", epochs, "--set", per_epoch)


def _run_ushape(*arguments: object) -> None:
    command = [sys.executable, "-m", "ushape", *map(str, arguments), "--quiet"]
    subprocess.run(command, check=True)


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
