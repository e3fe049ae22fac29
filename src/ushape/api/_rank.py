"""Process that trains one model together with others; `ushape.api._processes` starts it.

It is called with the file of its request, writes a report, and ends when the program that has
started it does: its standard input is then closed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ushape.api._trainer import open_training
from ushape.config import resolved
from ushape.console import Console, outlive_terminal
from ushape.errors import UshapeError
from ushape.io.files import write_json
from ushape.planning.custom_code import allow_code
from ushape.planning.hardware import reuse_freed_memory
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.planning.shares import plan_for_process
from ushape.planning.weights import read_weights
from ushape.training.ranks import Rank
from ushape.training.trainer import FitResult, is_about_memory
from ushape.types import select_cases


def main() -> None:
    """Train as requested, and write what happened."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outlive_terminal()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request = json.loads(Path(sys.argv[1]).read_text())
    report = _train_and_report(request)
    write_json(Path(request["report"]), report)
    sys.stdout.flush()
    if report["kind"] != "result":
        os._exit(1)  # Closing the connections may wait for processes that have ended.


def _end_with_parent() -> None:
    """End at once if the program that has started this process ends, even by SIGKILL."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _train_and_report(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"kind": "result", "values": asdict(_train(request))}
    except UshapeError as error:
        values = {"message": error.message, "code": error.code, "hint": error.advice}
        values["continuation"] = error.continuation
        return {"kind": "user_error", "class": type(error).__name__, "values": values}
    except KeyboardInterrupt:
        return {"kind": "interrupt"}
    except Exception as error:
        kind = "memory" if is_about_memory(error) else "failure"
        return {"kind": kind, "text": traceback.format_exc()}


def _train(request: dict[str, Any]) -> FitResult:
    plan = Plan.from_dict(request["plan"], source=request["run"])
    if plan.recipe.train.reuse_freed_memory:
        reuse_freed_memory()
    allow_code(request["code"])
    plan = plan_for_process(plan, request["neighbors"])
    torch.set_num_threads(resolved(plan.recipe.train.threads))
    index = request["rank"]
    rank = Rank(
        index=index,
        count=plan.machine.devices,
        device_index=request["device_index"] % max(1, torch.cuda.device_count()),
        neighbors=request["neighbors"],
        address=request["address"],
        port=request["port"],
    )
    source = Run(Path(request["source"]))
    facts = source.load_cases()
    training, validation = (
        select_cases(facts, request[what]) for what in ("training", "validation")
    )
    console = Console(quiet=request["quiet"] or index > 0)
    train_in, _ = open_training(source, plan, training, validation, console, rank)
    initial = None if request["initial"] is None else read_weights(Path(request["initial"]))
    run, budget_s = Run(Path(request["run"])), _seconds_left(request)
    return train_in(plan, run, initial, budget_s, request["resume"])


def _seconds_left(request: dict[str, Any]) -> float | None:
    """Return how long the training may take from now on; None: there is no limit."""
    deadline = request["deadline"]
    return None if deadline is None else max(1.0, deadline - time.monotonic())


if __name__ == "__main__":
    main()
