"""Pairs a second that `ushape check` looks at, against a plain loop that only reads them.

    python benchmarks/speed/check.py [DATA [--masks DIR]] [--rounds 3]

Without DATA: 1,000 generated pairs of 256 x 256 PNG files. The sides take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from ushape import io
from ushape.data.checks import check_dataset
from ushape.data.discovery import discover
from ushape.data.scan import scan_dataset
from ushape.data.splits import SplitConfig
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.io.annotations import read_annotation
from ushape.labels import LabelConfig
from ushape.planning.hardware import inspect_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data
        if data is None:
            data = Path(scratch) / "cells"
            write_data_set(data, 1000, SyntheticConfig(groups=50), seed=0)
        cases = discover(data, options.masks).cases
        workers = inspect_machine("cpu").cores
        read, checked = [], []
        for _ in range(options.rounds):
            started = time.perf_counter()
            for case in cases:
                io.read(case.image)
                if case.mask is not None:
                    read_annotation(case.mask)
            read.append(len(cases) / (time.perf_counter() - started))
            started = time.perf_counter()
            stats = scan_dataset(data, options.masks, LabelConfig(), workers=workers)
            check_dataset(stats, split=SplitConfig(), seed=0)
            checked.append(len(cases) / (time.perf_counter() - started))
    print("| side | pairs/s, each round | median |")
    print("|---|---|---|")
    for name, values in (("reading alone, one process", read), ("ushape check", checked)):
        rounds = ", ".join(f"{value:.0f}" for value in values)
        print(f"| {name} | {rounds} | {statistics.median(values):.0f} |")


if __name__ == "__main__":
    main()
