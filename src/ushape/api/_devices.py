"""Folds trained at the same time, each in a process of its own on a device of its own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ushape.errors import ConfigError, RunError

VISIBLE = "CUDA_VISIBLE_DEVICES"

TAIL = 12
"""Lines of a failed process that are shown."""


@dataclass(frozen=True)
class Job:
    """A call of the command line."""

    name: str
    arguments: Sequence[str]
    """Of `ushape`, without the device."""

    log: Path
    """Takes what it says."""


@dataclass
class Devices:
    """Devices that jobs take turns on."""

    names: Sequence[str]
    """cpu, cuda:0, cuda:1, ...; one that is named twice takes two jobs."""

    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Devices:
        """Of "cuda:0,cuda:1".

        Raises:
            ConfigError: an unknown kind, or no number.
        """
        names = [name.strip() for name in text.split(",")]
        for name in names:
            kind, colon, number = name.partition(":")
            if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not number.isdigit()):
                raise ConfigError(
                    f"--device {text}: {name!r} is no device.",
                    hint="cpu, cuda or mps; for folds side by side e.g. cuda:0,cuda:1.",
                )
        return cls(names)

    def run(self, jobs: Sequence[Job], say: Callable[[str], None]) -> None:
        """Runs all, each on the device that is free first.

        Ctrl-C is handed on, as often as it comes: the jobs end as the command does, and this
        raises it again once they have.

        Raises:
            RunError: a job that failed; those that run are let end, no other is begun.
        """
        free: queue.Queue[str] = queue.Queue()
        for name in self.names:
            free.put(name)
        with ThreadPoolExecutor(len(self.names)) as pool:
            waiting = [pool.submit(self._run_one, job, free, say) for job in jobs]
            try:
                for one in as_completed(waiting):
                    one.result()
            except BaseException as error:
                for one in waiting:
                    one.cancel()
                if isinstance(error, KeyboardInterrupt):
                    self._hand_on_interrupts(waiting)
                raise

    def _hand_on_interrupts(self, waiting: Sequence[Future[None]]) -> None:
        """Until all jobs have ended: the first Ctrl-C is there already, others may follow."""
        while True:
            for process in list(self._running):
                process.send_signal(signal.SIGINT)
            try:
                wait(waiting)
                return
            except KeyboardInterrupt:
                continue

    def _run_one(self, job: Job, free: queue.Queue[str], say: Callable[[str], None]) -> None:
        device = free.get()
        say(f"{job.name} on {device}: what it says is in {job.log}")
        try:
            with job.log.open("ab") as log, self._started(job, device, log.fileno()) as process:
                code = process.wait()
        finally:
            free.put(device)
        if code:
            tail = job.log.read_text(errors="replace").splitlines()[-TAIL:]
            raise RunError(
                f"{job.name} failed on {device}:\n" + "\n".join(tail),
                hint="Mend it, and repeat the call: finished folds are kept.",
            )
        say(f"{job.name}: finished")

    @contextmanager
    def _started(self, job: Job, device: str, log: int) -> Iterator[subprocess.Popen[bytes]]:
        kind, _, number = device.partition(":")
        environment = {**os.environ, **({VISIBLE: _visible(number)} if number else {})}
        command = [sys.executable, "-m", "ushape", *job.arguments]
        command += [] if "--resume" in job.arguments else ["--device", kind]
        # In a session of its own: Ctrl-C at the terminal reaches it once, through us.
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._running.append(process)
        try:
            yield process
        finally:
            self._running.remove(process)


def _visible(number: str) -> str:
    """The device of this number among those that this process may use.

    Raises:
        ConfigError: there are fewer.
    """
    allowed = os.environ.get(VISIBLE)
    if not allowed:
        return number
    names = allowed.split(",")
    if int(number) >= len(names):
        raise ConfigError(
            f"cuda:{number} is not there: {VISIBLE} is {allowed}.",
            hint=f"Devices count from 0 to {len(names) - 1}.",
        )
    return names[int(number)]
