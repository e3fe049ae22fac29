"""Devices of this machine, each of which trains one model at a time."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from ushape.api._launcher import GROUP
from ushape.console import Console
from ushape.distributed.jobs import Job
from ushape.distributed.submission import end_of_log
from ushape.errors import ConfigError, RunError
from ushape.formatting import pluralize
from ushape.io.limits import PROCESSES, sharing_processes
from ushape.planning.hardware import inspect_machine
from ushape.planning.processor import THREADS

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class Devices:
    """Devices, each of which runs one process at a time."""

    names: Sequence[str]
    """cpu, cuda:0, cuda:1, ...; a device that is listed twice runs two processes."""

    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Devices:
        """Read a list such as "cuda:0,cuda:1".

        Raises:
            ConfigError: if a device is unknown, or if its index is not a number.
        """
        names = [name.strip() for name in text.split(",")]
        for name in names:
            kind, colon, number = name.partition(":")
            if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not number.isdigit()):
                raise ConfigError(
                    f"The device {name!r} in --device {text} is unknown.",
                    code="unknown_device",
                    hint="Use auto, cpu, cuda or mps, or several devices such as cuda:0,cuda:1.",
                )
            if colon and kind != "cuda":
                raise ConfigError(
                    f"The device {name!r} in --device {text} has a number, but only GPUs of type "
                    "cuda are numbered.",
                    code="unknown_device",
                    hint=f"Use {kind}. A device that is listed twice, as in --device cpu,cpu, "
                    "trains two models at the same time.",
                )
        return cls(names)

    def require_available(self) -> None:
        """Check that this machine has all of the devices.

        Raises:
            PlanError: if it has no device of one of the types.
            ConfigError: if a device has an index that this machine does not have.
        """
        for name in self.names:
            kind, _, number = name.partition(":")
            inspect_machine(kind)
            if number and int(number) >= torch.cuda.device_count():
                raise ConfigError(
                    f"{name} is not available: this machine has "
                    f"{pluralize(torch.cuda.device_count(), 'GPU')}, and the first one is cuda:0.",
                    code="unknown_device",
                    hint="Choose other devices with --device.",
                )

    @property
    def are_separate(self) -> bool:
        """Whether the runs need separate processes."""
        return len(self.names) > 1 or ":" in self.names[0]

    def share(self, cores: int) -> int:
        """Return how many threads each process uses, so that they use all cores together."""
        return max(1, cores // len(self.names))

    def at_once(self, count: int) -> int:
        """Return how many of `count` runs are trained at the same time."""
        return min(count, len(self.names))

    def environment(self, name: str) -> dict[str, str | None]:
        """Return the environment variables of a process on one of the devices."""
        threads = self.share(inspect_machine("cpu").cores)
        _, _, number = name.partition(":")
        return {
            **dict.fromkeys(GROUP),
            THREADS: os.environ.get(THREADS, str(threads)),
            PROCESSES: str(sharing_processes() * len(self.names)),
            VISIBLE: _visible(number) if number else os.environ.get(VISIBLE),
        }

    def run(self, jobs: Sequence[Job], console: Console) -> None:
        """Run all jobs, each on the next device that becomes free.

        Every Ctrl-C is passed on to the processes; once they have ended, it is raised again.
        SIGTERM has the same effect.

        Raises:
            RunError: if a job fails; running jobs are completed, and no others are started.
        """
        free: queue.Queue[str] = queue.Queue()
        for name in self.names:
            free.put(name)
        with _sigterm_as_interrupt(), ThreadPoolExecutor(len(self.names)) as pool:
            pending = [pool.submit(self._run_one, job, free, console) for job in jobs]
            try:
                wait(pending, return_when=FIRST_EXCEPTION)
                for one in pending:
                    one.cancel()  # Those that are running are completed.
                wait(pending)
            except KeyboardInterrupt as interrupt:
                for one in pending:
                    one.cancel()
                self._pass_on_interrupts(pending, interrupt)
                raise
        _raise_all([error for one in pending if not one.cancelled() and (error := one.exception())])

    def _pass_on_interrupts(
        self, pending: Sequence[Future[None]], interrupt: KeyboardInterrupt
    ) -> None:
        """Interrupt all processes now and at each additional signal, until they have ended."""
        while True:
            number = getattr(interrupt, "signal_number", signal.SIGINT)
            for process in list(self._running) if os.name == "posix" else ():
                process.send_signal(number)  # On Windows, the terminal has sent it.
            try:
                wait(pending)
                return
            except KeyboardInterrupt as repeated:
                interrupt = repeated

    def _run_one(self, job: Job, free: queue.Queue[str], console: Console) -> None:
        device = free.get()
        console.say(f"{job.name}: training on {device}, log in {job.log}")
        try:
            with job.log.open("ab") as log, self._started(job, device, log.fileno()) as process:
                code = process.wait()
        finally:
            free.put(device)
        if code:
            raise RunError(
                f"{job.name} failed on {device}, log in {job.log}:\n{end_of_log(job.log)}",
                code="fold_failed",
                hint="Fix the cause and repeat the command; finished jobs are kept.",
            )
        console.say(f"{job.name}: finished")

    @contextmanager
    def _started(self, job: Job, device: str, log: int) -> Iterator[subprocess.Popen[bytes]]:
        placed = replace(
            job,
            arguments=[*job.arguments, "--device", device.partition(":")[0]],
            environment=self.environment(device),
        )
        process = subprocess.Popen(
            placed.command(),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=placed.variables(),
            # Ctrl-C in the terminal reaches the processes only through this one, exactly once.
            start_new_session=os.name == "posix",
        )
        self._running.append(process)
        try:
            yield process
        finally:
            self._running.remove(process)


def _raise_all(errors: Sequence[BaseException]) -> None:
    """Raise an error that lists all training jobs that failed, if there are any."""
    for error in errors:
        if not isinstance(error, RunError):
            raise error
    texts = [error.message for error in errors if isinstance(error, RunError)]
    if texts:
        raise RunError(
            "\n".join(texts),
            code="fold_failed",
            hint="Fix the cause and repeat the command; finished jobs are kept.",
        )


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that no process keeps running; commands always do this."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # Only the main thread can handle signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _visible(number: str) -> str:
    """Return the name of the GPU of this index among those that this process may use.

    Raises:
        ConfigError: if there are fewer.
    """
    allowed = os.environ.get(VISIBLE)
    if not allowed:
        return number
    names = allowed.split(",")
    if int(number) >= len(names):
        raise ConfigError(
            f"cuda:{number} is not available, because {VISIBLE} is {allowed}.",
            code="unknown_device",
            hint=f"Use an index from 0 to {len(names) - 1}.",
        )
    return names[int(number)]
