"""Parts of a server that its requests use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ushape.inference.predictor import Predictor
from ushape.serving.jobs import Jobs
from ushape.serving.limits import Limits
from ushape.serving.memory import MemoryBudget
from ushape.serving.metrics import Metrics
from ushape.serving.safety import Disconnected, Receive
from ushape.serving.scheduler import Scheduler

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Service:
    """Parts of a server."""

    predictor: Predictor
    scheduler: Scheduler
    jobs: Jobs
    metrics: Metrics
    limits: Limits
    arrays: MemoryBudget
    """Memory for the arrays of requests, which are not stored in files."""

    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.metadata["name"])


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """Return the result of some work; if the client leaves before, the work is cancelled."""

    async def wait_for_end() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.create_task(wait_for_end())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            raise Disconnected
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
