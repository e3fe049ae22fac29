"""Training runs in separate processes, on this machine or as jobs of a cluster.

A job imports this module only: it must not load PyTorch, which training loads itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from ushape.errors import require_package

EXTRA = "cluster"
"""Extra of ushape that installs submitit."""

END_S = 45
"""Seconds within which training must end after SIGTERM; SLURM waits for 90 s before it kills."""

POLL_S = 0.1

KILL_S = 3600
"""Seconds for which a job of SLURM waits, after SIGTERM, until it is killed or requeued."""

_children: list[subprocess.Popen[bytes]] = []
"""The training of this process, if it is a job; signal handlers end it."""


@dataclass(frozen=True)
class Job:
    """Training in a separate process. A job of a cluster calls it; it can be pickled."""

    name: str
    arguments: Sequence[str]
    """Arguments of the command `ushape` that starts training."""

    log: Path
    """File that receives the output of a process of this machine."""

    resume: Sequence[str] = ()
    """Arguments of the command `ushape` that continues training."""

    plan: Path | None = None
    """File that exists once training can be continued."""

    unplanned: Sequence[Path] = ()
    """Files that remain if training is killed before its plan is made."""

    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Environment variables that are set, or removed if the value is None."""

    @property
    def key(self) -> str:
        """Name of the run in the file of jobs."""
        return self.log.stem

    def command(self) -> list[str]:
        """Return the command that starts or continues training."""
        if self.plan is not None and self.plan.exists():
            arguments = self.resume
        else:
            arguments = self.arguments
            for path in self.unplanned:
                path.unlink(missing_ok=True)
        return [sys.executable, "-m", "ushape", *arguments]

    def variables(self) -> dict[str, str]:
        """Return the environment of the process."""
        merged = {**os.environ, **self.environment}
        return {key: value for key, value in merged.items() if value is not None}

    def __call__(self) -> None:
        """Train in a job, and end the process with the exit code of training if it fails."""
        command = self.command()
        print("Running:", *command, flush=True)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=self.variables(),
            start_new_session=True,
            # SLURM signals every process of a job; this one ends training.
            preexec_fn=_ignore_requeue_signal,
        )
        _children.append(process)
        signal.signal(signal.SIGTERM, _end_children)
        try:
            code = process.wait()
        finally:
            end(process)
            _children.remove(process)
        if code == 128 + signal.SIGTERM and "SLURM_JOB_ID" in os.environ:
            # A job that ends by itself is not requeued after a preemption.
            time.sleep(KILL_S)
        if code:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        """End training before the job is requeued; the last checkpoint is on the disk."""
        submitit = require_package("submitit.helpers", EXTRA, "A job")
        for process in _children:
            end(process)
        return submitit.DelayedSubmission(self)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a training process; SIGTERM ends it immediately, without an evaluation.

    Signal handlers call this while the same thread waits for the process, and holds the lock of
    Popen, so that none of the methods of Popen that wait can be used.
    """
    for number, seconds in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        deadline = time.monotonic() + seconds
        if not _has_ended(process.pid):
            os.kill(process.pid, number)
        while not _has_ended(process.pid) and time.monotonic() < deadline:
            time.sleep(POLL_S)


def _has_ended(number: int) -> bool:
    """Return whether a child process has ended; its exit code remains available."""
    try:
        ended = os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return True
    return ended is not None


def _end_children(number: int, frame: FrameType | None) -> None:
    for process in _children:
        if not _has_ended(process.pid):
            os.kill(process.pid, number)


def _ignore_requeue_signal() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
