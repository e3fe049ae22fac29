"""Trainings as jobs of this machine, which submitit starts and controls."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil

from ushape.console import Console
from ushape.distributed.jobs import EXTRA, Job
from ushape.distributed.submission import IsFinished, JobFolder, Submitted
from ushape.errors import require_package
from ushape.interrupts import interrupts_handled_by, interrupts_held_off
from ushape.io.processes import is_running, start_time

NO_LIMIT_MINUTES = 60 * 24 * 365
"""Time limit of a job."""

POLL_S = 0.2
"""Seconds between two looks at the jobs."""


@dataclass(frozen=True)
class Slot:
    """A device of this machine, on which one job trains at a time."""

    device: str
    """Name of the device for `ushape train`."""

    environment: Mapping[str, str | None]
    """Environment variables of the job."""

    name: str
    """Name of the device among those of this machine, such as cuda:1."""


@dataclass(frozen=True)
class LocalJobs:
    """Jobs of one output folder. The command that submits them waits for them."""

    folder: JobFolder
    slots: Sequence[Slot]
    is_finished: IsFinished

    def at_once(self, count: int) -> int:
        """Return how many of so many jobs run at the same time."""
        return min(count, len(self.slots))

    def run(self, jobs: Sequence[Job], console: Console) -> None:
        """Run the unfinished jobs. Ctrl-C ends them at once; the same call continues them.

        Raises:
            RunError: if jobs fail; running jobs are completed and no other is started.
        """
        known, waiting = self.folder.load(), [job for job in jobs if not self.is_finished(job)]
        # Jobs of an earlier command that was killed may still run.
        running = {job.key: job for job in waiting if is_alive(known.get(job.key))}
        for job in running.values():
            console.say(f"{job.name}: already running as process {known[job.key].id}")
        queue = [job for job in waiting if job.key not in running]
        places, free = self._place({key: known[key] for key in running})
        failed: list[Job] = []
        handles: list[Any] = []
        try:
            while True:
                while free and queue and not failed and len(running) < len(self.slots):
                    job = queue.pop(0)
                    places[job.key] = slot = free.pop(0)
                    with interrupts_held_off():
                        handles.append(self._start(job, slot))
                        known[job.key] = own = _describe(handles[-1], slot)
                        self.folder.save(known)
                        running[job.key] = job
                    console.say(f"{job.name}: training as process {own.id}, log in {own.log}")
                if not running:
                    break
                time.sleep(POLL_S)
                for key in [key for key in running if not is_alive(known[key])]:
                    job = running.pop(key)
                    free += [places.pop(key)] if key in places else []
                    if self.is_finished(job):
                        console.say(f"{job.name}: finished")
                    else:
                        failed.append(job)
        except KeyboardInterrupt:
            _end([known[key] for key in running])
            raise
        finally:
            for handle in handles:
                handle.done()  # Lets the system forget the process.
        self.folder.report(failed, known)

    def _place(self, running: Mapping[str, Submitted]) -> tuple[dict[str, Slot], list[Slot]]:
        """Return the slots that jobs of an earlier command still use, and those that are free.

        A job on a device that is not among the slots uses none of them.
        """
        free, places = list(self.slots), {}
        for key, own in running.items():
            fitting = [slot for slot in free if own.slot in ("", slot.name)]
            if fitting:
                places[key] = fitting[0]
                free.remove(fitting[0])
        return places, free

    def _start(self, job: Job, slot: Slot) -> Any:
        submitit = require_package("submitit", EXTRA, "--submit local")
        executor = submitit.LocalExecutor(self.folder.path)
        executor.update_parameters(timeout_min=NO_LIMIT_MINUTES, stderr_to_stdout=True)
        own = replace(
            job,
            arguments=[*job.arguments, "--device", slot.device],
            environment={**job.environment, **slot.environment},
        )
        # Ctrl-C reaches all processes of a terminal: those that are started ignore it.
        with interrupts_handled_by(signal.SIG_IGN):
            return executor.submit(own)


def is_alive(job: Submitted | None) -> bool:
    """Return whether a job of this machine runs."""
    return job is not None and is_running(int(job.id), job.started)


def _describe(handle: Any, slot: Slot) -> Submitted:
    """Return what is stored about a job that submitit has started."""
    started = start_time(int(handle.job_id))
    return Submitted(handle.job_id, str(handle.paths.stdout), started, slot.name)


def _end(jobs: Sequence[Submitted]) -> None:
    """End jobs, and wait until their training has ended."""
    for job in jobs:
        with contextlib.suppress(psutil.Error):
            if is_alive(job):
                psutil.Process(int(job.id)).terminate()
    while any(is_alive(job) for job in jobs):
        time.sleep(POLL_S)
