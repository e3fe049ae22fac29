"""Programs that torchrun, srun or another launcher has started to train one model together.

Each of them starts the process of its own device. The first one decides: it tells the others
through a key-value store what to train, and when to stop.
"""

from __future__ import annotations

import itertools
import json
import math
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ushape.errors import RunError

BEAT_S, SILENT_S = 2.0, 60.0
"""Seconds between two heartbeats, and without one until a program is considered lost."""

LEAVE_S = 20.0
"""Seconds that the first program waits at its end for the others."""

CONNECT_S = 600.0
"""Seconds that a program waits for the first one to start."""

WAIT_S = 0.5
"""Seconds of a single wait in a loop, after which its condition is checked again."""


GROUP = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Environment variables without which a program trains alone."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Position of this program among those of a launcher."""

    rank: int
    count: int
    local_rank: int
    """Number of the program on its machine."""

    neighbors: int
    """Number of programs on this machine."""

    address: str
    """Address of the machine of program 0."""

    port: int
    """Port of the key-value store on that machine."""

    has_store: bool = False
    """Whether the launcher itself provides the store, as torchrun does."""

    attempt: str = ""
    """Number of times that the launcher has restarted the programs."""


def find_place(environment: Mapping[str, str]) -> Place | None:
    """Return the position that a launcher has set in the environment; None for a single program.

    A SLURM script that calls the command without srun is a single program.
    """
    if int(environment.get("WORLD_SIZE", 1)) > 1 and "RANK" in environment:
        count = int(environment["WORLD_SIZE"])
        return Place(
            rank=int(environment["RANK"]),
            count=count,
            local_rank=int(environment.get("LOCAL_RANK", 0)),
            neighbors=int(environment.get("LOCAL_WORLD_SIZE", 1)),
            address=environment.get("MASTER_ADDR", "127.0.0.1"),
            port=int(environment.get("MASTER_PORT", 29500)),
            has_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=environment.get("TORCHELASTIC_RESTART_COUNT", ""),
        )
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        count = int(environment["SLURM_STEP_NUM_TASKS"])
        job = int(environment.get("SLURM_JOB_ID", 0))
        nodes = environment.get("SLURM_STEP_NODELIST", "127.0.0.1")
        return Place(
            rank=int(environment["SLURM_PROCID"]),
            count=count,
            local_rank=int(environment["SLURM_LOCALID"]),
            neighbors=_tasks_here(environment, count),
            address=environment.get("MASTER_ADDR") or first_node(nodes),
            port=int(environment.get("MASTER_PORT", 15_000 + job % 10_000)),
        )
    return None


def first_node(nodes: str) -> str:
    """Return the first name of a SLURM list, such as gpu[03-07,12],cpu1."""
    first = re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes)
    return first.split(",")[0]


def _tasks_here(environment: Mapping[str, str], count: int) -> int:
    """Return the number of tasks of this node from a list such as 2(x3),1."""
    text = environment.get("SLURM_STEP_TASKS_PER_NODE", str(count))
    each = [
        int(tasks)
        for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(times or 1))
    ]
    node = int(environment.get("SLURM_NODEID", 0))
    return each[node] if node < len(each) else each[-1]


class Exchange:
    """Messages between the programs of a launcher.

    A separate thread uses the store, because calls to the store cannot be interrupted. Ctrl-C
    therefore also ends a program while it waits for another one.

    Args:
        place: Position of this program.

    Raises:
        RunError: if there is no connection to program 0.
    """

    def __init__(self, place: Place):
        self.place = place
        self.attempts = itertools.count()
        """Numbers of the remaining attempts; the same in all programs."""
        self._calls: queue.SimpleQueue[tuple[Callable[[Any], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._ended = threading.Event()
        connected: Future[None] = Future()
        threading.Thread(target=self._use_store, args=(connected,), daemon=True).start()
        try:
            _wait_for(connected, CONNECT_S + WAIT_S)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop sending heartbeats."""
        self._ended.set()

    def put(self, key: str, values: Any) -> None:
        """Store a message.

        Raises:
            RunError: if program 0 has ended.
        """
        self._call(lambda store: store.set(key, json.dumps(values)))

    def find(self, key: str) -> Any:
        """Return a message, or None if it was not stored yet.

        Raises:
            RunError: if program 0 has ended.
        """
        text = self._call(lambda store: store.get(key) if store.check([key]) else None)
        return None if text is None else json.loads(text)

    def wait_for_the_others(self) -> None:
        """Keep the store until the others have read the last message, or for a while."""
        deadline = time.monotonic() + LEAVE_S
        for rank in range(1, self.place.count):
            while not self.find(f"left-{rank}") and time.monotonic() < deadline:
                time.sleep(0.1)

    def refuse_silent(self, rank: int) -> None:
        """Raise RunError if a program has not sent a heartbeat for a while."""
        key = f"beat-{rank}"
        beat = self._call(lambda store: store.get(key) if store.check([key]) else b"")
        now = time.monotonic()
        last, since = self._beats.get(rank, (None, now))
        if beat != last:
            self._beats[rank] = beat, now
        elif now - since > SILENT_S:
            raise _lost(rank)

    def _call(self, function: Callable[[Any], Any]) -> Any:
        """Call a function of the store in its thread, and return the result.

        Raises:
            RunError: if the store does not answer.
        """
        answer: Future[Any] = Future()
        self._calls.put((function, answer))
        try:
            return _wait_for(answer, SILENT_S)
        except (RuntimeError, TimeoutError):  # The connection was closed, or does not respond.
            raise _lost(0) from None

    def _use_store(self, connected: Future[None]) -> None:
        """Connect, and then call functions of the store and send heartbeats until the end."""
        try:
            store = self._connect()
        except BaseException as error:
            connected.set_exception(error)
            return
        connected.set_result(None)
        beats, next_beat = itertools.count(), time.monotonic()
        while not self._ended.is_set():
            with suppress(queue.Empty):
                function, answer = self._calls.get(timeout=WAIT_S)
                try:
                    answer.set_result(function(store))
                except Exception as error:
                    answer.set_exception(error)
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + BEAT_S
                try:
                    store.set(f"beat-{self.place.rank}", str(next(beats)))
                except RuntimeError:  # The next call of the program reports it.
                    next_beat = math.inf

    def _connect(self) -> Any:
        from torch.distributed import PrefixStore, TCPStore

        place = self.place
        is_master = place.rank == 0 and not place.has_store
        deadline = time.monotonic() + CONNECT_S
        try:
            if not is_master:
                self._wait_for_port(deadline)
            store = TCPStore(
                place.address,
                place.port,
                is_master=is_master,
                timeout=timedelta(seconds=max(1.0, deadline - time.monotonic())),
                wait_for_workers=False,
            )
        except (RuntimeError, OSError) as error:
            raise RunError(
                f"No connection to the first process at {place.address}:{place.port} within "
                f"{CONNECT_S:g} s: {str(error).splitlines()[0]}",
                code="no_connection",
                hint="Check that the first process runs on that machine, that all machines can "
                "reach this address, and that no other program uses the port; or set MASTER_ADDR "
                "and MASTER_PORT to other values in all processes. Then start all of them again.",
            ) from None
        return PrefixStore(f"ushape{place.attempt}", store)

    def _wait_for_port(self, deadline: float) -> None:
        """Wait until the machine of program 0 accepts connections; TCPStore warns meanwhile.

        Raises:
            OSError: if it does not until the deadline, or if this program ends.
        """
        while not self._ended.is_set():
            try:
                socket.create_connection((self.place.address, self.place.port), BEAT_S).close()
                return
            except OSError:  # The name of the machine may also become known only later.
                if time.monotonic() > deadline:
                    raise
            self._ended.wait(WAIT_S)
        raise OSError("this process was stopped")


def _wait_for(answer: Future[Any], limit_s: float) -> Any:
    """Return the answer of another thread, or raise its exception.

    Raises:
        TimeoutError: if there is none within the limit.
    """
    deadline = time.monotonic() + limit_s
    while not answer.done() and time.monotonic() < deadline:
        with suppress(TimeoutError):  # On Windows, Ctrl-C ends only short waits.
            answer.result(timeout=WAIT_S)
    return answer.result(timeout=0)


def _lost(rank: int) -> RunError:
    return RunError(
        f"Process {rank + 1} no longer responds: its program or its machine has stopped.",
        code="process_lost",
        hint="Start the same processes again with: ushape resume RUN",
    )
