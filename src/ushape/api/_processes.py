"""Start the processes that train one model on several devices, and watch them.

Each training attempt has its own processes, because a process that has lost another one, or that
has no memory left, cannot continue. This program only waits for them; it is not one of them.
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
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ushape import errors
from ushape.api._launcher import Exchange, Place, find_place
from ushape.console import Console
from ushape.errors import ConfigError, RunError
from ushape.interrupts import at_first_interrupt
from ushape.io.files import real_path
from ushape.planning.plan import Plan
from ushape.planning.run import Run
from ushape.planning.weights import save_weights
from ushape.training.trainer import FitResult
from ushape.training.trials import Train, Weights
from ushape.types import CaseFacts

GRACE_S = 5.0
"""Seconds that the other processes have to report, before they are killed, after one has failed."""

EVERY_S = 0.1
"""Seconds between two checks of the processes."""

ORDER = ("killed", "memory", "user_error", "interrupt", "ended", "failure")
"""Kinds of failures; the most likely cause of the others is first."""

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables of launchers, which describe this program and not its processes."""

_IS_ALONE = ContextVar("_IS_ALONE", default=False)

Report = dict[str, Any]
"""What a process has written about its training: its kind, and the details."""


@contextmanager
def without_launcher() -> Iterator[None]:
    """Train in this program alone, even if a launcher has started other programs."""
    token = _IS_ALONE.set(True)
    try:
        yield
    finally:
        _IS_ALONE.reset(token)


def is_left_to_first(noun: str, console: Console) -> bool:
    """Return whether a launcher has started another program for this work, and say so.

    Args:
        noun: Work that a single program does, such as "cross-validation".
    """
    place = find_place(os.environ)
    if place is None:
        return False
    what = "ends" if place.rank else "works alone"
    console.say(
        f"Process {place.rank + 1} of {place.count} {what}: a {noun} is run by one process. Start "
        "the command once, without torchrun or srun; --submit, or --device cuda:0,cuda:1, trains "
        "several models at the same time."
    )
    return place.rank > 0


@dataclass(frozen=True)
class Team:
    """Processes that train one model, and the programs that start them.

    Usually this program starts all of them. Programs that a launcher such as torchrun has started
    have one process each, and all but the first follow the first one.
    """

    count: int
    """Number of processes."""

    quiet: bool = False
    place: Place | None = None
    exchange: Exchange | None = None

    @classmethod
    @contextmanager
    def gathered(cls, devices: int | None, quiet: bool, before: int = 1) -> Iterator[Team]:
        """Find the programs of a launcher, and tell them at the end that this was all.

        Args:
            devices: Number of devices that the user has specified, if any.
            before: Number of devices to use if nothing specifies it.

        Raises:
            ConfigError: if the launcher has started another number of programs.
            RunError: if there is no connection to the first program.
        """
        place = None if _IS_ALONE.get() else find_place(os.environ)
        if place is None:
            yield cls(before if devices is None else devices, quiet)
            return
        if devices not in (None, place.count):
            raise ConfigError(
                f"--devices is {devices}, but {place.count} processes were started.",
                code="conflicting_options",
                hint="Omit --devices: torchrun or srun determines the number of processes.",
            )
        exchange = Exchange(place)
        end: dict[str, Any] = {"is_end": True, "folder": "", "failed": True}
        try:
            yield cls(place.count, quiet, place, exchange)
            end["failed"] = False
        finally:
            if place.rank == 0:
                exchange.put(f"request-{next(exchange.attempts)}", end)
                exchange.wait_for_the_others()
            exchange.close()

    @property
    def started_here(self) -> int:
        """Number of processes that this program starts."""
        return self.count if self.place is None else 1

    @property
    def is_follower(self) -> bool:
        """Whether another program decides what is trained."""
        return self.place is not None and self.place.rank > 0

    def follow(self) -> Path:
        """Start and watch the process of this program until the first program has ended.

        Returns:
            The run folder.

        Raises:
            RunError: if the first program fails or is lost.
        """
        assert self.exchange is not None
        assert self.place is not None
        folder, rank = Path(), self.place.rank
        for attempt in self.exchange.attempts:
            while (request := self.exchange.find(f"request-{attempt}")) is None:
                self.exchange.refuse_silent(0)
                time.sleep(EVERY_S)
            if request.get("is_end"):
                self.exchange.put(f"left-{rank}", True)
                if request["failed"]:
                    raise RunError(
                        "The first process has ended with an error, or was stopped.",
                        code="first_process_failed",
                        hint="See its message.",
                    )
                return folder
            folder = Path(request["source"])
            report: Report = {"kind": "interrupt"}  # If an exception ends the block.
            try:
                with self._processes(request) as processes, processes.interruptible():
                    while not processes.look({}, 1):
                        self.exchange.refuse_silent(0)
                        if self.exchange.find(f"end-{attempt}"):
                            break
                        time.sleep(EVERY_S)
                report = processes.reports.get(rank, {"kind": "ended", "text": "was ended"})
            finally:
                self.exchange.put(f"report-{attempt}-{rank}", report)
        raise AssertionError("there is always another attempt")

    def trainer(
        self,
        source: Run,
        training: Sequence[CaseFacts],
        validation: Sequence[CaseFacts],
        code: str | None,
    ) -> Train:
        """Return a function that trains in the processes.

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
                        "run": str(real_path(run.folder)),
                        "source": str(real_path(source.folder)),
                        "training": [fact.case.id for fact in training],
                        "validation": [fact.case.id for fact in validation],
                        "code": code,
                        "initial": path,
                        "budget_s": budget_s,
                        "resume": resume,
                        "quiet": self.quiet,
                        "address": self.place.address if self.place else "127.0.0.1",
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
        exchange = self.exchange
        attempt = 0 if exchange is None else next(exchange.attempts)
        if exchange is not None:
            exchange.put(f"request-{attempt}", request)
        try:
            with self._processes(request) as processes, processes.interruptible():
                while not processes.look(self._reports_of_others(attempt), self.count):
                    time.sleep(EVERY_S)
        finally:
            if exchange is not None:
                exchange.put(f"end-{attempt}", True)
        return result_of(
            processes.reports, self.count, self._hint_after_loss(Run(Path(request["source"])))
        )

    def _hint_after_loss(self, run: Run) -> str:
        """Return how to continue training after a process was lost."""
        if self.place is not None:
            return (
                "Continue from the last epoch: start the same processes with "
                f"{run.resume_command}. If memory ran out, close other programs, or start fewer "
                "processes."
            )
        return (
            f"Continue from the last epoch with: {run.resume_command}. If memory ran out, close "
            f"other programs, or train on fewer devices: {run.resume_command} --devices "
            f"{self.count - 1}."
        )

    def _processes(self, request: Mapping[str, Any]) -> Processes:
        """Start the processes of this program."""
        place = self.place
        if place is None:
            ranks = {rank: rank for rank in range(self.count)}
            return Processes(ranks, request, self.count)
        return Processes({place.rank: place.local_rank}, request, place.neighbors)

    def _reports_of_others(self, attempt: int) -> dict[int, Report]:
        """Return what the processes of other programs have reported.

        Raises:
            RunError: if one of these programs is lost.
        """
        reports: dict[int, Report] = {}
        if self.exchange is None:
            return reports
        for rank in range(1, self.count):
            report = self.exchange.find(f"report-{attempt}-{rank}")
            if report is not None:
                reports[rank] = report
            else:
                self.exchange.refuse_silent(rank)
        return reports


class Processes:
    """Processes of one attempt that this program has started.

    As a context manager, it kills those that are left at the end of the block.

    Args:
        ranks: Number of the device of each process, by the number of the process.
        neighbors: Number of processes of the training on this machine.
    """

    def __init__(self, ranks: Mapping[int, int], request: Mapping[str, Any], neighbors: int):
        self.folder = tempfile.TemporaryDirectory(prefix="ushape-")
        self.reports: dict[int, Report] = {}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._failed_at: float | None = None
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in LAUNCHER and not key.startswith("TORCHELASTIC_")
        }
        environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # Advice to developers.
        budget_s = request["budget_s"]
        # By the clock of this machine that is never set, which all its processes share.
        deadline = None if budget_s is None else time.monotonic() + budget_s
        for rank, device_index in ranks.items():
            own = {"rank": rank, "device_index": device_index, "neighbors": neighbors}
            limited = {**request, **own, "deadline": deadline}
            path = Path(self.folder.name) / f"request-{rank}.json"
            path.write_text(json.dumps({**limited, "report": str(self._report_path(rank))}))
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

    def look(self, others: Mapping[int, Report], count: int) -> bool:
        """Collect the reports of processes that have ended; return whether to wait no longer.

        Args:
            others: Reports of processes that other programs have started.
            count: Number of all processes that report.
        """
        self.reports.update(others)
        for rank, process in list(self._running.items()):
            if process.poll() is not None:
                self.reports[rank] = self._read_report(rank, process.returncode)
                self._kill(self._running.pop(rank))
        if any(report["kind"] != "result" for report in self.reports.values()):
            self._failed_at = self._failed_at or time.monotonic()
        is_late = self._failed_at is not None and time.monotonic() > self._failed_at + GRACE_S
        return len(self.reports) == count or is_late

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Pass the first Ctrl-C on, so that the training ends after the step; the second raises."""

        def pass_on() -> None:
            for process in self._running.values():
                if os.name == "posix":  # On Windows, the terminal has sent it.
                    process.send_signal(signal.SIGINT)

        with at_first_interrupt(pass_on):
            yield

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


def result_of(reports: Mapping[int, Report], count: int, hint: str) -> FitResult:
    """Return the result of process 0, or raise the error that is likely the cause of the others.

    Args:
        count: Number of processes.
        hint: How to continue training if a process was lost.
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
        hint=hint,
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
    path = real_path(run.folder) / "initial.safetensors"
    save_weights(path, initial, {})
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _describe_end(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code} and without a report"
