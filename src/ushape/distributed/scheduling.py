"""Run the blocks of a large array on the workers of Dask.

Blocks are independent, and computing one twice is harmless. So each block is a separate task, of
which only a few for each worker are known to the scheduler at a time; a graph of a million tasks
would need gigabytes there. Dask repeats the tasks of workers that ended.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import tempfile
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ushape.distributed.dask_versions import check_versions
from ushape.errors import ConfigError, RunError, UshapeError, check_range, require_package
from ushape.formatting import pluralize
from ushape.io.limits import free_memory_bytes
from ushape.planning.hardware import usable_cores

T = TypeVar("T")

IN_FLIGHT_PER_WORKER = 2
"""Blocks that a worker has at a time: one that it computes and one that waits, so that it need not
wait for the scheduler."""

REPEATS = 2
"""How often a block is repeated after an error that may be temporary, such as one of the disk."""

CONNECT_S = 15.0
"""Seconds after which a scheduler that does not answer is reported."""

LOOK_S = 5.0
"""Seconds between two counts of the workers."""

SILENT_S = 30.0
"""Seconds without any worker after which this is reported."""

LOST_S = 300.0
"""Seconds without any worker of this computer after which none is expected any more."""


@contextmanager
def dask_executor(
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[DaskExecutor]:
    """Connect to the workers of Dask, or start some on this computer, and end with them.

    Args:
        scheduler: Address of the scheduler of a running cluster, such as tcp://host:8786.
        workers: Number of worker processes to start on this computer instead, at least 1. They
            share its cores and its free memory.
        say: Receives one line about each event that users should know of.

    Raises:
        ConfigError: if both or none of them are given, or the address is none.
        RunError: if the scheduler cannot be reached, the workers cannot start, or the versions of
            the packages differ.
        MissingPackageError: if Dask is not installed.
    """
    if (scheduler is None) == (workers is None):
        raise ConfigError(
            "Specify either the address of a Dask scheduler or a number of workers.",
            code="scheduler_or_workers",
            hint="Use a number of workers for processes on this computer, or the address of a "
            "running cluster, such as tcp://HOST:8786.",
        )
    distributed = require_package("distributed", "cluster", "Prediction with several workers")
    with ExitStack() as stack:
        stack.enter_context(_quiet_logs())
        threads = None
        if workers is not None:
            check_range("workers", workers, 1, hint="This is the number of processes.")
            threads = max(1, usable_cores() // workers)
            scheduler = stack.enter_context(_local_cluster(distributed, workers))
            say(
                f"Started {pluralize(workers, 'worker')} with {pluralize(threads, 'thread')} each "
                "on this computer."
            )
        client = stack.enter_context(_connected(distributed, str(scheduler)))
        if workers is None:
            check_versions(client, str(scheduler))
            count = len(client.nthreads())
            say(f"Connected to {scheduler} with {pluralize(count, 'worker')}.")
        yield DaskExecutor(client, say=say, threads=threads)


@contextmanager
def _connected(distributed: Any, address: str) -> Iterator[Any]:
    """Yield a client of the scheduler; it is closed at the end, but the scheduler is not."""
    try:
        with warnings.catch_warnings():  # Different versions are reported afterwards.
            warnings.simplefilter("ignore")
            client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{address!r} is not the address of a Dask scheduler: {error}.",
            code="scheduler_address",
            hint="`dask scheduler` prints its address when it starts, such as tcp://10.0.0.5:8786.",
        ) from None
    except OSError:
        raise RunError(
            f"The Dask scheduler {address} does not answer.",
            code="scheduler_unreachable",
            hint="Start it with `dask scheduler`, and workers with `dask worker ADDRESS`. If it "
            "runs, check the address, the port and the firewall between the computers.",
        ) from None
    try:
        yield client
    finally:
        with suppress(Exception):  # The connection may be lost.
            client.close(timeout=2)


@contextmanager
def _local_cluster(distributed: Any, workers: int) -> Iterator[str]:
    """Start workers that only this computer can reach, and yield the address of their scheduler."""
    import dask

    memory = free_memory_bytes() // workers
    # Results are small, so nothing can be moved to the disk. A worker that needs too much is
    # started again, instead of waiting for memory that will never be free.
    limits = {"target": False, "spill": False, "pause": False, "terminate": 0.95}
    config = {f"distributed.worker.memory.{name}": limit for name, limit in limits.items()}
    environment = os.environ.copy()
    with (
        tempfile.TemporaryDirectory(prefix="ushape-dask-", ignore_cleanup_errors=True) as folder,
        dask.config.set(config),
    ):
        try:
            try:
                cluster = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address=None,
                    worker_dashboard_address=None,
                    memory_limit=memory,
                    local_directory=folder,
                    silence_logs=logging.CRITICAL,
                    preload=[_IGNORE_INTERRUPT],
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # Any free port.
                )
            except (OSError, RuntimeError) as error:
                raise RunError(
                    f"The workers could not be started: {str(error).rstrip('.')}.",
                    code="workers_not_started",
                    hint="Start fewer workers, or use only this process. In a script, the "
                    'call must be inside `if __name__ == "__main__":`, because each worker '
                    "imports the script.",
                ) from None
            finally:
                _restore(environment)  # Dask sets OMP_NUM_THREADS=1 in this process as well.
            with cluster:
                yield cluster.scheduler_address
        finally:
            _restore(environment)


_IGNORE_INTERRUPT = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""Module that each worker executes: Ctrl-C reaches all processes, but this one ends the workers."""


def _restore(environment: dict[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Silence the log of Dask, whose messages about lost workers contain tracebacks."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class _Outcome:
    """What a worker returns for a block: its result, or the error as far as it can be sent."""

    result: Any = None
    worker: str = ""
    error: UshapeError | None = None
    text: str = ""
    """Kind and message of an error of another class; '' if there was none."""


def _compute(function: Callable[[int], Any], index: int, threads: int | None) -> _Outcome:
    """Compute a block on a worker, with as many threads of PyTorch as the worker has."""
    import torch
    from distributed import get_worker

    worker = get_worker()
    torch.set_num_threads(threads or worker.state.nthreads)  # Dask sets OMP_NUM_THREADS=1.
    try:
        return _Outcome(function(index))
    except UshapeError as error:
        return _Outcome(error=error, worker=worker.address)
    except Exception as error:  # Some exceptions cannot be sent to another process.
        return _Outcome(text=f"{type(error).__name__}: {error}", worker=worker.address)


@dataclass
class DaskExecutor:
    """Computes blocks on the workers of a cluster."""

    client: Any
    """Client of the scheduler."""

    say: Callable[[str], None] = lambda line: None
    """Receives one line about each event that users should know of."""

    threads: int | None = None
    """Number of threads of PyTorch in each worker; None: as many as the worker has."""

    _worker_count: int = 0
    _seen: float = -float("inf")
    _counted: float = -float("inf")
    _is_told: bool = field(default=False)

    def __call__(self, function: Callable[[int], T], indices: Iterable[int]) -> Iterator[T]:
        """Compute the function for each index, and yield its results in the order of their end.

        Only a few indices are taken in advance. If the caller stops, blocks that have not started
        are taken back; those that run end by themselves.

        Args:
            function: Picklable function of the index of a block. It may be computed again if its
                worker ends, also after it has returned.
            indices: Numbers of the blocks.

        Raises:
            UshapeError: if a block fails. The message names the block and the worker; an error
                of a subclass keeps its class and code.
            RunError: if the connection to the scheduler is lost.
        """
        prefix = f"block-{uuid.uuid4().hex}"
        tasks = _Tasks(self.client, function, prefix, self.threads)
        waiting = iter(indices)
        self._seen = time.monotonic()
        try:
            while True:
                room = IN_FLIGHT_PER_WORKER * max(1, self._count_workers()) - len(tasks.running)
                for index in itertools.islice(waiting, max(0, room)):
                    tasks.submit(index)
                if not tasks.running:
                    return
                yield from tasks.take_finished(timeout_s=1.0)
                self._check_connection()
        finally:
            self._cancel(tasks)

    def _cancel(self, tasks: _Tasks) -> None:
        """Take back what has not started, and say what the workers of a cluster still compute."""
        most = tasks.cancel()
        if most and self._worker_count and self.threads is None:
            self.say(
                f"The workers finish the blocks in progress: at most {pluralize(most, 'block')}."
            )

    def _count_workers(self) -> int:
        """Return the number of workers, counted every few seconds, and report if there is none.

        Raises:
            RunError: if the workers of this computer ended and do not start again.
        """
        now = time.monotonic()
        if now - self._counted >= LOOK_S:
            self._counted = now
            with suppress(OSError):  # A lost connection is noticed by its status.
                self._worker_count = len(self.client.nthreads())
        if self._worker_count:
            self._seen, self._is_told = now, False
        elif self.threads is not None and now - self._seen >= LOST_S:
            raise RunError(
                "All workers of this computer ended, and none could be started again.",
                code="workers_ended",
                hint="Finished blocks are kept. Run the same command again, with fewer workers if "
                "memory is short.",
            )
        elif self.threads is None and now - self._seen >= SILENT_S and not self._is_told:
            self._is_told = True
            self.say(
                "The cluster has no workers. Waiting for one; start it with `dask worker ADDRESS`."
            )
        return self._worker_count

    def _check_connection(self) -> None:
        if self.client.status != "running":
            raise RunError(
                "The connection to the Dask scheduler was lost.",
                code="scheduler_lost",
                hint="Finished blocks are kept. Start the scheduler and its workers, and run the "
                "same command again.",
            )


class _Tasks:
    """The tasks that the scheduler knows of."""

    def __init__(
        self, client: Any, function: Callable[[int], Any], prefix: str, threads: int | None
    ) -> None:
        self.running: dict[Any, int] = {}
        """Index of the block of each future."""

        self._client, self._function, self._prefix = client, function, prefix
        self._threads = threads
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._submitted: Counter[int] = Counter()

    def submit(self, index: int) -> None:
        attempt = self._submitted[index]
        future = self._client.submit(
            _compute,
            self._function,
            index,
            self._threads,
            key=f"{self._prefix}-{index}-{attempt}",
            pure=False,
        )
        self._submitted[index] += 1
        self.running[future] = index
        future.add_done_callback(self._ended.put)

    def take_finished(self, timeout_s: float) -> Iterator[Any]:
        """Yield the results of the tasks that ended; wait for one at most so long.

        Raises:
            UshapeError: if a block failed.
        """
        ended = []
        with suppress(queue.Empty):
            ended.append(self._ended.get(timeout=timeout_s))
            while True:
                ended.append(self._ended.get_nowait())
        finished = []
        for future in ended:
            if future.status == "error":
                self._raise(self.running[future], future.exception())
            elif future.status == "finished":
                finished.append(future)
        try:
            # A result that was lost with its worker is computed again, at once because of its mark.
            outcomes = self._client.gather(finished)
        except Exception:  # One of them failed in the meantime: look at each one again.
            for future in finished:
                future.add_done_callback(self._ended.put)
            return
        for future, outcome in zip(finished, outcomes, strict=True):
            index = self.running.pop(future)
            future.release()
            if outcome.error is not None:
                raise _named(outcome.error, index, outcome.worker)
            if not outcome.text:
                del self._submitted[index]
                yield outcome.result
            elif self._submitted[index] <= REPEATS:
                self.submit(index)
            else:
                raise UshapeError(
                    f"Block {index} failed on worker {outcome.worker}: {outcome.text}.",
                    code="block_failed",
                    hint="Finished blocks are kept. Fix the cause, then run the same command "
                    "again.",
                )

    def _raise(self, index: int, error: BaseException) -> None:
        """Raise the error of a block that no worker could compute."""
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            raise RunError(
                f"Block {index}: {error.allowed_failures + 1} workers ended while computing "
                f"it, the last of them {error.last_worker.address}.",
                code="workers_ended",
                hint="A worker that exceeds its memory limit is terminated. Use fewer workers on "
                "each computer, or give each of them more memory (`dask worker --memory-limit`), "
                "and run the same command again; finished blocks are kept. Use another "
                "output or --overwrite for smaller blocks.",
            )
        raise RunError(
            f"Block {index} could not be sent to a worker: {type(error).__name__}: {error}.",
            code="block_not_sent",
            hint="Install the same versions of ushape and its packages for the scheduler, on all "
            "workers and on this computer.",
        )

    def cancel(self) -> int:
        """Take back the tasks that have not started, and return how many may have started."""
        count = sum(future.status == "pending" for future in self.running)
        with suppress(Exception):  # The connection may be lost, and an error is on its way.
            self._client.cancel(list(self.running))
        self.running.clear()
        return count


def _named(error: UshapeError, index: int, worker: str) -> UshapeError:
    """Return the error with the block and the worker in its message."""
    error.message = f"Block {index} on worker {worker}: {error.message}"
    error.args = (error.message,)
    return error
