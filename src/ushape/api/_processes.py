"""Start the processes that train one model on several devices, and watch them.

Each attempt of a training has processes of its own, since a process that has lost another one, or
that has no memory left, cannot continue. This program only waits for them: it is not one of them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ushape import errors
from ushape.errors import RunError
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.planning.weights import save_weights
from ushape.training.trainer import FitResult
from ushape.training.trials import Weights
from ushape.types import CaseFacts

GRACE_S = 5.0
"""Seconds that the other processes have to report, before they are killed, after one has failed."""

EVERY_S = 0.1
"""Seconds between two looks at the processes."""

ORDER = ("killed", "memory", "user_error", "interrupt", "ended", "failure")
"""Kinds of failures, the likely cause of the others first."""

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables of launchers, which describe this program and not its processes."""

Report = dict[str, Any]
"""What a process has written about its training: its kind, and the details."""


@dataclass(frozen=True)
class Team:
    """Processes on this machine that train one model."""

    count: int
    quiet: bool = False

    def trainer(
        self,
        source: Run,
        training: Sequence[CaseFacts],
        validation: Sequence[CaseFacts],
        code: str | None,
    ) -> Any:
        """Return a function that trains in the processes; see `ushape.training.trials.Train`.

        Args:
            source: Run with the stored cases.
            code: Python file and function that the user named, if any.
        """

        def train_in(
            plan: Plan,
            run: Run,
            initial: Weights | None,
            budget_s: float | None,
            resume: bool = True,
        ) -> FitResult:
            with _stored(initial, run) as path:
                return self._attempt(
                    {
                        "plan": plan.to_dict(),
                        "run": str(run.folder),
                        "source": str(source.folder),
                        "training": [fact.case.id for fact in training],
                        "validation": [fact.case.id for fact in validation],
                        "code": code,
                        "initial": path,
                        "deadline": None if budget_s is None else time.time() + budget_s,
                        "resume": resume,
                        "quiet": self.quiet,
                        "address": "127.0.0.1",
                        "port": free_port(),
                    }
                )

        return train_in

    def _attempt(self, request: Mapping[str, Any]) -> FitResult:
        """Train once, and return the result of process 0.

        Raises:
            MemoryError: if a process has no memory left.
            RunError: if a process was killed.
            KeyboardInterrupt: if a process was interrupted before its first step.
        """
        with Processes(range(self.count), request) as processes, processes.interruptible():
            reports = processes.wait()
        return result_of(reports, self.count, Path(request["source"]))


class Processes:
    """Processes of one attempt that this program has started.

    As a context manager, it kills those that are left at the end of the block.
    """

    def __init__(self, ranks: Sequence[int], request: Mapping[str, Any]):
        self.folder = tempfile.TemporaryDirectory(prefix="ushape-")
        self.reports: dict[int, Report] = {}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._failed_at: float | None = None
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in LAUNCHER and not key.startswith("TORCHELASTIC_")
        }
        for place, rank in enumerate(ranks):
            own = {"rank": rank, "device_index": place, "neighbors": len(ranks)}
            path = Path(self.folder.name) / f"request-{rank}.json"
            path.write_text(json.dumps({**request, **own, "report": str(self._report_path(rank))}))
            self._running[rank] = subprocess.Popen(
                [sys.executable, "-m", "ushape.api._rank", str(path)],
                stdin=subprocess.PIPE,  # Its end tells the process that this program has ended.
                env=environment,
                # Ctrl-C in the terminal reaches the processes only through this one, exactly once.
                start_new_session=os.name == "posix",
            )

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            self._kill(process)
        self.folder.cleanup()

    def wait(self) -> dict[int, Report]:
        """Wait until all processes have ended, or some time after one has failed."""
        while not self.look():
            time.sleep(EVERY_S)
        return self.reports

    def look(self) -> bool:
        """Collect the reports of processes that have ended; return whether to wait no longer."""
        for rank, process in list(self._running.items()):
            if process.poll() is not None:
                self.reports[rank] = self._read_report(rank, process.returncode)
                self._kill(self._running.pop(rank))
        if any(report["kind"] != "result" for report in self.reports.values()):
            self._failed_at = self._failed_at or time.monotonic()
        is_late = self._failed_at is not None and time.monotonic() > self._failed_at + GRACE_S
        return not self._running or is_late

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Pass the first Ctrl-C on, so that the training ends after the step; the second raises."""

        def pass_on(signal_number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, before)
            for process in self._running.values():
                if os.name == "posix":  # On Windows the terminal has done it.
                    process.send_signal(signal.SIGINT)

        try:
            before = signal.signal(signal.SIGINT, pass_on)
        except ValueError:  # Only the main thread can handle signals.
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _report_path(self, rank: int) -> Path:
        return Path(self.folder.name) / f"report-{rank}.json"

    def _read_report(self, rank: int, code: int) -> Report:
        try:
            return dict(json.loads(self._report_path(rank).read_text()))
        except (OSError, ValueError):
            kind = "killed" if code == -9 else "ended"
            return {"kind": kind, "text": _describe_end(code)}

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and those that load its patches."""
        if os.name == "posix":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def result_of(reports: Mapping[int, Report], count: int, run: Path) -> FitResult:
    """Return the result of process 0, or raise the error that is likely the cause of the others.

    Args:
        count: Number of processes.
        run: Folder that can be resumed.
    """
    failed = {rank: own for rank, own in reports.items() if own["kind"] != "result"}
    if not failed:
        return FitResult(**reports[0]["values"])
    rank = min(failed, key=lambda one: (ORDER.index(failed[one]["kind"]), one))
    report = failed[rank]
    if report["kind"] == "memory":
        raise MemoryError(report["text"])
    if report["kind"] == "interrupt":
        raise KeyboardInterrupt
    if report["kind"] == "user_error":
        raise getattr(errors, report["class"])(**report["values"])
    if report["kind"] == "failure":
        raise RuntimeError(f"Process {rank + 1} of {count} has failed:\n{report['text']}")
    raise RunError(
        f"Process {rank + 1} of the {count} that train together {report['text']}. The others were "
        "ended, because they cannot continue without it.",
        code="process_lost",
        hint=f"Continue from the last epoch with: ushape resume {run}. If memory ran out, close "
        "other programs or train on fewer devices, with --devices.",
    )


def free_port() -> int:
    """Return the number of a port that no program uses."""
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


@contextmanager
def _stored(initial: Weights | None, run: Run) -> Iterator[str | None]:
    """Store the weights from which the processes start for the duration of the block."""
    if initial is None:
        yield None
        return
    path = run.folder / "initial.safetensors"
    save_weights(path, initial, {})
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _describe_end(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code} and without a report"
