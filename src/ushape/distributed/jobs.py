"""Trainings that run in processes of their own, on this machine or as jobs of a cluster.

A job imports this module only: it must not load PyTorch, which the training loads itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ushape.errors import ConfigError, check_range, require_package

EXTRA = "cluster"
"""Extra of ushape that installs submitit."""

END_S = 45
"""Seconds in which a training must end after SIGTERM; SLURM waits for 90 s before it kills."""

POLL_S = 0.1

KILL_S = 3600
"""Seconds for which a job of SLURM waits, after SIGTERM, until it is killed or requeued."""

TIME_FACTOR, TIME_MORE = 1.25, 15
"""Time of a job for a training of limited minutes: for queues of files and a slow start."""

RESERVED = {
    "array": "--max-jobs",
    "time": "--job-minutes",
    "partition": "--partition",
    "account": "--account",
    "mem": "--memory-gb",
    "gpus-per-node": "--gpus",
    "error": "",
    "open-mode": "",
    "output": "",
    "signal": "",
    "wrap": "",
}
"""Parameters of sbatch that are set already, and the option for it if there is one."""

_children: list[subprocess.Popen[bytes]] = []
"""The training of this process, if it is a job; signal handlers end it."""


@dataclass(frozen=True)
class Job:
    """A training in a process of its own. A job of a cluster calls it; it can be pickled."""

    name: str
    arguments: Sequence[str]
    """Arguments of the command `ushape` that starts the training."""

    log: Path
    """File that receives the output of a process of this machine."""

    resume: Sequence[str] = ()
    """Arguments of the command `ushape` that continues the training."""

    plan: Path | None = None
    """File that exists once the training can be continued."""

    unplanned: Sequence[Path] = ()
    """Files that a training leaves if it is killed before its plan is made."""

    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Environment variables that are set, or removed if the value is None."""

    @property
    def key(self) -> str:
        """Name of the training in the file of jobs."""
        return self.log.stem

    def command(self) -> list[str]:
        """Return the command that starts or continues the training."""
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
        """Train in a job, and end the process with the exit code of the training if it fails."""
        command = self.command()
        print("Running:", *command, flush=True)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=self.variables(),
            start_new_session=True,
            # SLURM signals every process of a job; this one ends the training.
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
        """End the training before the job is requeued; its last checkpoint is on the disk."""
        submitit = require_package("submitit.helpers", EXTRA, "A job")
        for process in _children:
            end(process)
        return submitit.DelayedSubmission(self)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a training; SIGTERM ends it at once, without an evaluation.

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


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """Where trainings run as jobs, and what they request."""

    where: Literal["slurm", "local"]
    """Cluster, or this machine."""

    partition: str | None = None
    account: str | None = None
    minutes: int | None = None
    """Wall time of a job in minutes. A job that reaches it is requeued and continues."""

    memory_gb: float | None = None
    gpus: int | None = None
    at_once: int | None = None
    """Largest number of jobs that run at the same time; None: no limit."""

    slurm: Mapping[str, str | bool] = field(default_factory=dict)
    """Further parameters of sbatch; True for those without a value."""

    @classmethod
    def resolve(
        cls,
        submit: str | None,
        *,
        partition: str | None,
        account: str | None,
        job_minutes: float | None,
        memory_gb: float | None,
        gpus: int | None,
        max_jobs: int | None,
        slurm: Iterable[str],
        minutes: float | None,
        device: str,
    ) -> JobConfig | None:
        """Return the options of the command line as a config; None without `--submit`.

        Args:
            minutes: Time limit of the trainings, if they have one.
            device: Device on which they train.

        Raises:
            ConfigError: if an option is impossible, missing, or needs another one.
            MissingPackageError: if submitit is not installed.
        """
        slurm = list(slurm)
        only_slurm = {
            "--partition": partition,
            "--account": account,
            "--job-minutes": job_minutes,
            "--memory-gb": memory_gb,
            "--gpus": gpus,
            "--slurm": slurm or None,
        }
        _refuse_options_elsewhere(submit, {**only_slurm, "--max-jobs": max_jobs}, only_slurm)
        if submit is None:
            return None
        require_package("submitit", EXTRA, f"--submit {submit}")
        for name, value, low in (
            ("--job-minutes", job_minutes, 1),
            ("--memory-gb", memory_gb, 0.1),
            ("--gpus", gpus, 0),
            ("--max-jobs", max_jobs, 1),
        ):
            if value is not None:
                check_range(name, value, low, hint="Correct the option, or leave it out.")
        if submit == "local":
            return cls(where="local", at_once=max_jobs)
        if ":" in device or "," in device:
            raise ConfigError(
                f"Each job of SLURM trains on one device, but --device is {device}.",
                code="conflicting_options",
                hint="Use --device cuda --gpus 1; --max-jobs limits how many run at once.",
            )
        if job_minutes is None and minutes is None:
            raise ConfigError(
                "The time of a job is unknown, because the trainings have epochs instead of a "
                "time limit.",
                code="missing_job_minutes",
                hint="Add --job-minutes. A job that reaches it is requeued and continues.",
            )
        return cls(
            where="slurm",
            partition=partition,
            account=account,
            minutes=round(job_minutes or TIME_FACTOR * (minutes or 0) + TIME_MORE),
            memory_gb=memory_gb,
            gpus=1 if gpus is None and device == "cuda" else gpus,
            at_once=max_jobs,
            slurm=dict(map(_parse_parameter, slurm)),
        )


def _refuse_options_elsewhere(
    submit: str | None, options: Mapping[str, Any], only_slurm: Iterable[str]
) -> None:
    """Raise ConfigError if an option is given without the kind of submission that it is for."""
    if submit not in (None, "slurm", "local"):
        raise ConfigError(
            f"Jobs cannot be submitted to {submit!r}.",
            code="unknown_scheduler",
            hint="Use --submit slurm, or --submit local for processes of this machine.",
        )
    refused = {None: list(options), "local": list(only_slurm), "slurm": []}[submit]
    for name in refused:
        if options[name] is not None:
            raise ConfigError(
                f"{name} needs --submit slurm.",
                code="conflicting_options",
                hint=f"Add --submit slurm, or leave {name} out.",
            )


def _parse_parameter(text: str) -> tuple[str, str | bool]:
    """Read a parameter of sbatch: key=value, or a key without a value.

    Raises:
        ConfigError: if another option decides the parameter.
    """
    key, equals, value = text.partition("=")
    key = key.strip().lstrip("-").replace("_", "-")
    if not key or key in RESERVED:
        option = RESERVED.get(key, "")
        raise ConfigError(
            f"--slurm {text} cannot be used, because another option decides this parameter."
            if key
            else f"--slurm {text} names no parameter of sbatch.",
            code="reserved_parameter",
            hint=f"Use {option}." if option else "Leave it out, or use --slurm KEY=VALUE.",
        )
    return key, value if equals else True
