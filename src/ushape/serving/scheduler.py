"""Read, predict and write the images of many requests: one queue, one thread for the networks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ushape.errors import DataError
from ushape.inference.predictor import Predictor, PreparedImage
from ushape.inference.prefetch import AHEAD_PX
from ushape.inference.sliding_window import BATCH_PX
from ushape.inference.streaming import StreamedImage, StreamedPrediction
from ushape.serving.refusals import RETRY_AFTER, Refusal
from ushape.types import Prediction

WRITERS = 2
"""Number of threads that write results."""


class Cancelled(Exception):
    """Nobody needs the result of a task any more."""


@dataclass(eq=False)
class Task:
    """An image to predict."""

    read: Callable[[], PreparedImage | StreamedImage]
    """Function that reads the image, in a separate thread."""

    write: Callable[[Any], Any]
    """Function that receives the prediction; what it returns is the result."""

    pixels: int
    keep_distance: bool = False
    """Whether the result needs the numbers of the objects, if the image is larger than memory."""

    future: Future[Any] = field(default_factory=Future, init=False)
    progress: float = field(default=0.0, init=False)
    """Share of the image that is predicted, 0 to 1."""

    is_cancelled: bool = field(default=False, init=False)

    def cancel(self) -> None:
        """Stop as soon as possible: before it is predicted, or after the next band of rows."""
        self.is_cancelled = True
        self.future.cancel()

    def require_wanted(self) -> None:
        """Raise Cancelled if nobody needs the result."""
        if self.is_cancelled:
            raise Cancelled


class Scheduler:
    """Predicts images in the order in which they come.

    Small images of one shape share a batch. A large one is predicted band by band; between two
    bands, the small ones that have come are predicted.

    Args:
        max_tasks: Largest number of tasks that wait or are processed.
        on_batch: Function that receives the number of images of each batch.
    """

    def __init__(
        self,
        predictor: Predictor,
        max_tasks: int,
        on_batch: Callable[[int], object] = lambda size: None,
    ):
        self.predictor, self.max_tasks, self.on_batch = predictor, max_tasks, on_batch
        self._open: set[Task] = set()
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._small: deque[tuple[Task, PreparedImage]] = deque()
        self._large: deque[tuple[Task, StreamedImage]] = deque()
        self._room_px = AHEAD_PX
        self._reserved = 0
        self._is_closed = False
        self._writers = ThreadPoolExecutor(WRITERS, "serve-write")
        self._threads = [
            threading.Thread(target=self._read_all, name="serve-read", daemon=True),
            threading.Thread(target=self._predict_all, name="serve-predict", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def open_tasks(self) -> int:
        """Number of tasks that wait or are processed."""
        return len(self._open)

    def reserve(self, places: int, held: int = 0) -> None:
        """Reserve places in the queue for images that are not received yet.

        Args:
            places: Number of places that the request needs in all.
            held: Number of places that were reserved for it before.

        Raises:
            Refusal: if the queue is full, or has fewer places in all.
        """
        with self._changed:
            self._require_places(places, held)
            self._reserved += places - held

    def release(self, places: int) -> None:
        """Return reserved places."""
        with self._changed:
            self._reserved -= places

    def submit(self, tasks: Sequence[Task], held: int = 0) -> None:
        """Add tasks to the queue, all or none.

        Args:
            held: Number of places that were reserved for the tasks; they are returned.

        Raises:
            Refusal: if the queue is full, or has fewer places in all.
        """
        with self._changed:
            self._require_places(len(tasks), held)
            self._reserved -= held
            self._open.update(tasks)
            self._waiting.extend(tasks)
            self._changed.notify_all()

    def _require_places(self, places: int, held: int) -> None:
        if places > self.max_tasks:
            raise Refusal(
                413,
                "too_many_images",
                f"The request has at least {places} images, but the queue of this server has only "
                f"{self.max_tasks} places.",
                f"Send at most {self.max_tasks} images in a request.",
            )
        taken = self.open_tasks + self._reserved - held
        if taken + places > self.max_tasks:
            raise Refusal(
                429,
                "queue_full",
                f"The queue is full: {taken} of {self.max_tasks} places are taken.",
                "Try again in a few seconds.",
                [RETRY_AFTER],
            )

    def close(self) -> None:
        """Cancel all tasks and end the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for task in self._open.copy():
            task.cancel()
        for thread in self._threads:
            thread.join(timeout=5)
        self._writers.shutdown(cancel_futures=True)

    def _read_all(self) -> None:
        while (task := self._take_waiting()) is not None:
            try:
                image = task.read()
                task.require_wanted()
            except BaseException as error:
                self._end(task, _room_of(task), error=error)
                continue
            with self._changed:
                if isinstance(image, StreamedImage):
                    self._room_px += _room_of(task)
                    self._large.append((task, image))
                else:
                    self._small.append((task, image))
                self._changed.notify_all()

    def _take_waiting(self) -> Task | None:
        """Return the next task once there is room for its image; None if the scheduler ends."""
        with self._changed:
            while not self._is_closed:
                if self._waiting and _room_of(self._waiting[0]) <= self._room_px:
                    task = self._waiting.popleft()
                    if task.future.set_running_or_notify_cancel():
                        self._room_px -= _room_of(task)
                        return task
                    self._open.discard(task)
                else:
                    self._changed.wait()
        return None

    def _predict_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._small or self._large)
                if self._is_closed:
                    return
                large = None if self._small else self._large.popleft()
            if large is None:
                self._predict_batch()
            else:
                self._stream(*large)

    def _predict_batch(self) -> None:
        """Predict the first of the small images, and others of its shape that have been read."""
        with self._changed:
            first = self._small[0][1]
            fitting = [one for one in self._small if one[1].batch_key == first.batch_key]
            batch = fitting[: max(1, BATCH_PX // first.pixels)]
            self._small = deque(one for one in self._small if one not in batch)
        self.on_batch(len(batch))
        for one, outcome in zip(batch, self._predict([own for _, own in batch]), strict=True):
            self._writers.submit(self._write, one[0], outcome)

    def _predict(self, images: Sequence[PreparedImage]) -> Sequence[Prediction | Exception]:
        """Return the predictions of a batch; after an error, each image is predicted alone."""
        try:
            return self.predictor.predict(images)
        except Exception as error:
            if len(images) == 1:
                return [error]
        return [found for image in images for found in self._predict([image])]

    def _write(self, task: Task, outcome: Prediction | Exception) -> None:
        room = _room_of(task)
        try:
            task.require_wanted()
            if isinstance(outcome, Exception):
                raise outcome
            task.progress = 1.0
            self._end(task, room, result=task.write(outcome))
        except BaseException as error:
            self._end(task, room, error=error)

    def _stream(self, task: Task, image: StreamedImage) -> None:
        """Predict a large image while it is written."""
        try:
            with image.bands:
                task.require_wanted()
                prediction = self.predictor.stream(image, keep_distance=task.keep_distance)
                watched = replace(prediction, bands=self._watch(task, prediction))
                self._end(task, 0, result=task.write(watched))
        except BaseException as error:
            self._end(task, 0, error=error)

    def _watch(
        self, task: Task, prediction: StreamedPrediction
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Yield the bands of a large image; between them, predict small ones."""
        rows, total = 0, prediction.source.shape[1]
        for band in prediction.bands:
            task.require_wanted()
            rows += band[0].shape[1]
            task.progress = rows / total
            yield band
            while self._small:
                self._predict_batch()

    def _end(
        self, task: Task, room: int, *, result: Any = None, error: BaseException | None = None
    ) -> None:
        with self._changed:
            self._open.discard(task)
            self._room_px += room
            self._changed.notify_all()
        if isinstance(error, MemoryError):
            error = DataError(
                "There is not enough memory for this image.",
                code="image_too_large",
                hint="Divide the image into smaller ones.",
            )
        if error is not None:
            task.future.set_exception(error)
        else:
            task.future.set_result(result)


@dataclass(eq=False)
class Places:
    """Places in the queue that one request holds until its tasks are submitted."""

    scheduler: Scheduler
    count: int = field(default=0, init=False)

    def require(self, count: int) -> None:
        """Hold at least so many places.

        Raises:
            Refusal: if the queue is full, or has fewer places in all.
        """
        if count > self.count:
            self.scheduler.reserve(count, self.count)
            self.count = count

    def submit(self, tasks: Sequence[Task]) -> None:
        """Add tasks to the queue in these places, all or none.

        Raises:
            Refusal: if there are more tasks than places, and the queue is full.
        """
        self.scheduler.submit(tasks, self.count)
        self.count = 0

    def release(self) -> None:
        """Return the places that were not used."""
        self.scheduler.release(self.count)
        self.count = 0


def _room_of(task: Task) -> int:
    """Return the share of the room in memory that an image takes; a large one takes all of it."""
    return min(task.pixels, AHEAD_PX)
