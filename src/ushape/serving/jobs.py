"""Requests for predictions: receive the images, queue them, and remove all files in the end."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ushape.serving.limits import JOB_S, KEPT_S, Limits
from ushape.serving.outputs import Answer, Form, Outputs, pack
from ushape.serving.refusals import Refusal, log_failure, refusal_of
from ushape.serving.reservations import DiskBudget, Reservation
from ushape.serving.scheduler import Cancelled, Places, Scheduler, Task
from ushape.serving.uploads import Upload, check_header, receive_images

KEPT_JOBS = 2
"""Largest number of jobs that no request waits for, as a multiple of the length of the queue."""

State = Literal["queued", "running", "done", "failed"]


@dataclass(eq=False)
class Job:
    """The images of a request, and their prediction."""

    folder: Path
    form: Form
    uploads: Sequence[Upload]
    tasks: Sequence[Task]
    reservation: Reservation
    id: str = field(default_factory=partial(secrets.token_urlsafe, 16))
    answer: Answer | None = None
    refusal: Refusal | None = None
    is_fetched: bool = False
    """Whether the client has received the answer, or what failed."""

    expiry: asyncio.TimerHandle | None = None
    """Timer that removes a job that no request waits for."""

    @property
    def state(self) -> State:
        if self.answer is not None:
            return "done"
        if self.refusal is not None:
            return "failed"
        is_running = any(task.future.running() or task.future.done() for task in self.tasks)
        return "running" if is_running else "queued"

    @property
    def progress(self) -> float:
        """Share of the pixels that are predicted, 0 to 1."""
        if self.answer is not None:
            return 1.0
        total = sum(task.pixels for task in self.tasks)
        return sum(task.pixels * task.progress for task in self.tasks) / total

    @property
    def description(self) -> dict[str, Any]:
        """State for the client."""
        error = self.refusal.body if self.refusal is not None else None
        found = {
            "id": self.id,
            "state": self.state,
            "progress": round(self.progress, 4),
            "images": len(self.tasks),
            "form": self.form,
            "result": f"/jobs/{self.id}/result" if self.answer is not None else None,
        }
        return {**found, "error": error} if error else found

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()


class Jobs:
    """Jobs of a server.

    Args:
        folder: Folder for the files of all jobs.
    """

    def __init__(self, folder: Path, outputs: Outputs, scheduler: Scheduler, limits: Limits):
        self.folder, self.outputs = folder, outputs
        self.scheduler, self.limits = scheduler, limits
        self.disk = DiskBudget(folder)
        self.kept: dict[str, Job] = {}
        """Jobs that no request waits for, by their id."""
        self._running: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a job that no request waits for is not complete."""
        return any(job.state in ("queued", "running") for job in self.kept.values())

    async def receive(
        self, chunks: AsyncIterator[bytes], content_type: str, length: int, form: Form
    ) -> Job:
        """Receive the images of a request and check their headers.

        Args:
            length: Stated size of the body in bytes; 0 if it is unknown.

        Raises:
            Refusal: if the queue or the disk is full, or the images are not acceptable.
            DataError: if an image is damaged.
        """
        reservation = Reservation(Places(self.scheduler), self.disk)
        own = self.folder / secrets.token_hex(8)
        try:
            reservation.begin(length)
            own.mkdir()
            uploads = await receive_images(
                reservation.count(chunks), content_type, own, reservation.places.require
            )
            sizes = [await asyncio.to_thread(self._check, one) for one in uploads]
            tasks = [
                Task(
                    partial(self.outputs.read, one, form),
                    partial(self.outputs.write, one, form),
                    pixels,
                    keep_distance=self.outputs.keeps_distance(one, form),
                )
                for one, pixels in zip(uploads, sizes, strict=True)
            ]
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            reservation.release()
            raise
        return Job(own, form, uploads, tasks, reservation)

    def _check(self, upload: Upload) -> int:
        """Return the number of pixels of an image, if it is acceptable."""
        pixels = check_header(upload.path, self.limits)
        self.outputs.check_memory(upload.path, pixels)
        return pixels

    def start(self, job: Job) -> asyncio.Task[None]:
        """Queue a job; the task ends when its answer or its refusal is set.

        Raises:
            Refusal: if the queue is full.
        """
        try:
            job.reservation.places.submit(job.tasks)
        except Refusal:
            self.remove(job)
            raise
        running = asyncio.create_task(self._run(job))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return running

    async def wait(self, job: Job) -> Answer:
        """Return the answer to a job that was not started yet.

        Raises:
            Refusal: if it fails or takes too long.
        """
        running = self.start(job)
        try:
            await asyncio.wait_for(asyncio.shield(running), self.limits.wait_s)
        except BaseException as error:
            job.cancel()
            running.add_done_callback(lambda task: self.remove(job))
            if not isinstance(error, TimeoutError):
                raise
            raise Refusal(
                504,
                "too_long",
                f"The prediction was not finished after {self.limits.wait_s:g} seconds.",
                "Send the image with ?wait=false, and poll the state of the job.",
            ) from None
        if job.refusal is not None:
            self.remove(job)
            raise job.refusal
        assert job.answer is not None, "the job has ended"
        return job.answer

    def require_place(self) -> None:
        """Make place for a job that no request waits for; the oldest result that its client has
        received is removed.

        Raises:
            Refusal: if too many results are kept that nobody has received.
        """
        if len(self.kept) < KEPT_JOBS * self.limits.queue:
            return
        known = next((job for job in self.kept.values() if job.is_fetched), None)
        if known is None:
            raise Refusal(
                429,
                "results_full",
                f"The server keeps {len(self.kept)} results, none of which was fetched.",
                "Fetch or delete results (DELETE /jobs/ID), or send the request without "
                f"?wait=false. Results are deleted after {KEPT_S / 60:g} minutes.",
                [("Retry-After", "60")],
            )
        self.drop(known)

    def keep(self, job: Job) -> None:
        """Start a job that no request waits for; it is removed some time after it is complete."""
        running = self.start(job)
        self.kept[job.id] = job
        loop = asyncio.get_running_loop()
        job.expiry = loop.call_later(JOB_S, job.cancel)

        def expire_later(task: asyncio.Task[None]) -> None:
            if job.expiry is not None:
                job.expiry.cancel()
            if job.id in self.kept:
                job.expiry = loop.call_later(KEPT_S, self.remove, job)
            else:
                self.remove(job)

        running.add_done_callback(expire_later)

    def find(self, name: str) -> Job:
        """Return a kept job.

        Raises:
            Refusal: if there is none with this id.
        """
        if name not in self.kept:
            raise Refusal(
                404,
                "unknown_job",
                "There is no such job.",
                f"Results are kept for {KEPT_S / 60:g} minutes.",
            )
        return self.kept[name]

    def drop(self, job: Job) -> None:
        """Cancel a kept job and remove its files, as soon as nothing writes them."""
        self.kept.pop(job.id, None)
        job.cancel()
        if job.state in ("done", "failed"):
            self.remove(job)

    def remove(self, job: Job) -> None:
        """Remove the files of a job that has ended or was not started."""
        self.kept.pop(job.id, None)
        if job.expiry is not None:
            job.expiry.cancel()
        shutil.rmtree(job.folder, ignore_errors=True)
        job.reservation.release()

    async def _run(self, job: Job) -> None:
        futures = [asyncio.wrap_future(task.future) for task in job.tasks]
        found = await asyncio.gather(*futures, return_exceptions=True)
        try:
            for one in found:
                if isinstance(one, BaseException):
                    raise one
            answers = [one for one in found if isinstance(one, Answer)]
            packed = job.folder / "results.zip"
            is_single = len(answers) == 1
            job.answer = answers[0] if is_single else await asyncio.to_thread(pack, answers, packed)
        except (Cancelled, asyncio.CancelledError):
            job.refusal = Refusal(503, "cancelled", "The prediction was stopped.", "Repeat it.")
        except Exception as error:
            log_failure(error)
            job.refusal = refusal_of(error)
        job.reservation.release()  # The files of the answer are complete.
        for upload in job.uploads:
            upload.path.unlink(missing_ok=True)
