"""Programs that torchrun, srun or another launcher has started to train one model together.

Each of them starts the process of its own device. The first one decides: it tells the others
through a key-value store what to train, and when to stop.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ushape.errors import RunError

BEAT_S, SILENT_S = 2.0, 60.0
"""Seconds between two signs of life, and without one until a program counts as lost."""

LEAVE_S = 20.0
"""Seconds that the first program waits at its end for the others."""

CONNECT_S = 600.0
"""Seconds that a program waits for the first one to start."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Place of this program among those of a launcher."""

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
    """Number of times that the launcher has started the programs again."""


def find_place(environment: Mapping[str, str]) -> Place | None:
    """Return the place that a launcher has stated in the environment; None if there is no other.

    A script of SLURM that calls the command without srun is a single program.
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
    """Return the first name of a list of SLURM, such as gpu[03-07,12],cpu1."""
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

    Args:
        place: Place of this program.

    Raises:
        RunError: if there is no connection to program 0.
    """

    def __init__(self, place: Place):
        self.place = place
        self.attempts = itertools.count()
        """Numbers of the attempts that are left; the same in all programs."""
        self._lock = threading.Lock()
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._ended = threading.Event()
        self._store = self._connect()
        threading.Thread(target=self._show_life, daemon=True).start()

    def _connect(self) -> Any:
        from torch.distributed import PrefixStore, TCPStore

        place = self.place
        try:
            store = TCPStore(
                place.address,
                place.port,
                is_master=place.rank == 0 and not place.has_store,
                timeout=timedelta(seconds=CONNECT_S),
                wait_for_workers=False,
            )
        except RuntimeError as error:
            raise RunError(
                f"No connection to the first process at {place.address}:{place.port}: "
                f"{str(error).splitlines()[0]}",
                code="no_connection",
                hint="Check that all nodes can reach this address, or set MASTER_ADDR and "
                "MASTER_PORT.",
            ) from None
        return PrefixStore(f"ushape{place.attempt}", store)

    def close(self) -> None:
        """Show no more signs of life."""
        self._ended.set()

    def put(self, key: str, values: Any) -> None:
        """Store a message."""
        with self._connected():
            self._store.set(key, json.dumps(values))

    def find(self, key: str) -> Any:
        """Return a message, or None if it was not stored yet.

        Raises:
            RunError: if program 0 has ended.
        """
        with self._connected():
            if self._store.check([key]):
                return json.loads(self._store.get(key))
        return None

    def wait_for_the_others(self) -> None:
        """Keep the store until the others have read the last message, or for a while."""
        deadline = time.monotonic() + LEAVE_S
        for rank in range(1, self.place.count):
            while not self.find(f"left-{rank}") and time.monotonic() < deadline:
                time.sleep(0.1)

    def refuse_silent(self, rank: int) -> None:
        """Raise RunError if a program has shown no sign of life for a while."""
        with self._connected():
            key = f"beat-{rank}"
            beat = self._store.get(key) if self._store.check([key]) else b""
        now = time.monotonic()
        last, since = self._beats.get(rank, (None, now))
        if beat != last:
            self._beats[rank] = beat, now
        elif now - since > SILENT_S:
            raise _lost(rank)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except RuntimeError:  # The connection was closed.
            raise _lost(0) from None

    def _show_life(self) -> None:
        for number in itertools.count():
            if self._ended.wait(BEAT_S):
                return
            try:
                with self._lock:
                    self._store.set(f"beat-{self.place.rank}", str(number))
            except RuntimeError:
                return


def _lost(rank: int) -> RunError:
    return RunError(
        f"Process {rank + 1} does not answer any more: its program or its machine has ended.",
        code="process_lost",
        hint="Start the same processes again with: ushape resume RUN",
    )
