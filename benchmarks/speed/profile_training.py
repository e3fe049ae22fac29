"""Where the wall time of a training goes, from the start of the process to the evaluation.

    python benchmarks/speed/profile_training.py [DATA [--masks DIR]] [--minutes 1] [--set KEY=VALUE]

Without DATA: the generated cells of `ushape example`. The training is that of `ushape train`, in
this process; Lightning reports what it does to a profiler, and a few functions of ushape are
timed as well. Each moment counts for the innermost part that is running, so that the parts add up
to the wall time. Prints a Markdown table and compares it with the bars: steps get at least 85 % of
the time before the evaluation, validation at most 8 %.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ushape.__main__ import limit_spinning

IMPORTS, LOOPS, EVALUATION = "imports", "Lightning's loops", "evaluation"
OPTIMIZER = "optimizer and averaging"
STEPS = ("forward", "backward", OPTIMIZER)
BARS = {"steps": 0.85, "validation": 0.08}
"""Smallest share of the steps, largest share of validation."""

ACTIONS = {
    r"\[Strategy\]\w+\.training_step": "forward",
    r"\[Strategy\]\w+\.backward": "backward",
    r"optimizer_|on_train_batch_end|configure_gradient_clipping|lr_scheduler_step": OPTIMIZER,
    r"train_dataloader_next|setup_data|train_dataloader": "waiting for the loader",
    r"validation_step|val_next|on_validation|val_dataloader": "validation",
    r"run_training_(epoch|batch)": LOOPS,
}
"""Pattern of Lightning's actions -> part; see also CALLBACKS, which come first."""

CALLBACKS = {
    r"KeepBest|ModelCheckpoint|save_checkpoint": "checkpoints",
    r"EpochLog|ValidationPictures|ProgressBar|TrainingBar": "logging",
    r"\[Callback\]": LOOPS,
}

FUNCTIONS = (
    ("ushape.api.plan", "scan_dataset", "reading and scanning the data"),
    ("ushape.api.train", "plan_data", "checks and planning"),
    ("ushape.api._trainer", "load_cases", "loading the cases"),
    ("ushape.api._trainer", "fit", "building network and trainer"),
)
"""Module, function and part."""

METHODS = (
    ("lightning.pytorch.loops.evaluation_loop", "_EvaluationLoop", "run", "validation"),
    ("lightning.pytorch.loggers", "TensorBoardLogger", "log_metrics", "logging"),
    ("lightning.pytorch.loggers", "TensorBoardLogger", "save", "logging"),
)


class PartTimer:
    """Counts the seconds of each part. A part that starts inside another one interrupts it.

    Args:
        part: Part that is running.
        began: When it has begun, on the clock.
    """

    def __init__(self, part: str, began: float, clock: Callable[[], float] = time.time):
        self.seconds: Counter[str] = Counter()
        self.clock, self._running, self._since = clock, [part], began

    def start(self, part: str) -> None:
        """Interrupt the part that is running."""
        self._charge()
        self._running.append(part)

    def stop(self) -> None:
        """Continue with the part that was interrupted."""
        self._charge()
        self._running.pop()

    def switch(self, part: str) -> None:
        """End the outermost part and continue with another one."""
        self._charge()
        self._running[0] = part

    @property
    def running(self) -> str:
        return self._running[-1]

    def _charge(self) -> None:
        now = self.clock()
        self.seconds[self.running] += now - self._since
        self._since = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time counted for the part."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self.start(part)
            try:
                return function(*arguments, **options)
            finally:
                self.stop()

        return call


def part_of(action: str) -> str | None:
    """Return the part of an action of Lightning; None: the part that is running."""
    for patterns in (CALLBACKS, ACTIONS):
        for pattern, part in patterns.items():
            if re.search(pattern, action):
                return part
    return None


def instrument(timer: PartTimer) -> None:
    """Time ushape's functions, and give a profiler to the trainer that it builds."""
    import lightning
    from lightning.pytorch.profilers import Profiler

    class PartProfiler(Profiler):
        def start(self, action_name: str) -> None:
            timer.start(part_of(action_name) or timer.running)

        def stop(self, action_name: str) -> None:
            timer.stop()

    for module_name, name, part in FUNCTIONS:
        module = importlib.import_module(module_name)
        setattr(module, name, timer.timed(part, getattr(module, name)))
    for module_name, owner_name, name, part in METHODS:
        owner = getattr(importlib.import_module(module_name), owner_name)
        setattr(owner, name, timer.timed(part, getattr(owner, name)))
    api = importlib.import_module("ushape.api._trainer")
    fit, build = api.fit, lightning.Trainer.fit

    def fit_then_evaluate(*arguments: Any, **options: Any) -> Any:
        result = fit(*arguments, **options)
        timer.switch(EVALUATION)
        return result

    def fit_with_profiler(trainer: lightning.Trainer, *arguments: Any, **options: Any) -> None:
        trainer.profiler = PartProfiler()
        build(trainer, *arguments, **options)

    api.fit, lightning.Trainer.fit = fit_then_evaluate, fit_with_profiler


def print_table(timer: PartTimer, run: Path) -> None:
    """Print the seconds and the share of each part, and the bars."""
    seconds = timer.seconds
    evaluation_s = seconds.pop(EVALUATION, 0.0)
    total_s = sum(seconds.values())
    print("| part | s | share |\n|---|---|---|")
    for part, value in seconds.most_common():
        print(f"| {part} | {value:.1f} | {value / total_s:.1%} |")
    print(f"| **until the evaluation** | {total_s:.1f} | 100 % |")
    print(f"| evaluation and report | {evaluation_s:.1f} | |\n")
    steps_s = sum(seconds[part] for part in STEPS)
    for name, own, bar, sign in (
        ("Steps", steps_s, BARS["steps"], "at least"),
        ("Validation", seconds["validation"], BARS["validation"], "at most"),
    ):
        share = own / total_s
        is_met = share >= bar if sign == "at least" else share <= bar
        print(f"{name}: {share:.1%} (bar: {sign} {bar:.0%}), {'met' if is_met else 'missed'}.")
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = int(rows[-1]["step"])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{len(rows)} epochs, {steps} steps of {1000 * steps_s / steps:.0f} ms. Load average of "
        f"the last 1, 5 and 15 minutes, with this training: {load} on {os.cpu_count()} cores."
    )


def main() -> None:
    timer = PartTimer(IMPORTS, psutil.Process().create_time())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    options = parser.parse_args()
    limit_spinning()  # As the command does, before PyTorch is loaded.
    import ushape

    instrument(timer)
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data
        if data is None:
            timer.start("writing the generated cells")
            data = ushape.example(Path(scratch) / "cells", quiet=True)
            timer.stop()
            del timer.seconds["writing the generated cells"]
        timer.switch("other")
        run = Path(scratch) / "run"
        ushape.train(
            data,
            masks=options.masks,
            output=run,
            minutes=options.minutes,
            settings=options.settings,
            quiet=True,
        )
        timer.switch(EVALUATION)
        print_table(timer, run)


if __name__ == "__main__":
    main()
