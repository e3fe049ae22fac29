"""Start and stop everything that a server consists of."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ushape.errors import DataError
from ushape.inference.predictor import Predictor
from ushape.serving.app import OPEN_PATHS, VITAL_PATHS, Measured, build_app
from ushape.serving.jobs import Jobs
from ushape.serving.limits import STOP_S, Limits
from ushape.serving.memory import MemoryBudget, memory_limit_bytes
from ushape.serving.metadata import describe_model
from ushape.serving.metrics import Metrics
from ushape.serving.outputs import Outputs
from ushape.serving.parts import Service
from ushape.serving.safety import App, Gate, Guard
from ushape.serving.scheduler import Scheduler
from ushape.serving.server import run_server
from ushape.serving.uploads import private_folder


def serve_predictor(
    predictor: Predictor,
    folders: Sequence[Path],
    listener: socket.socket,
    limits: Limits,
    *,
    token: str = "",
    hosts: frozenset[str] | None,
) -> None:
    """Answer requests until the process is asked to stop.

    Args:
        folders: Folders of the runs of the predictor.
        token: Token that requests must contain; empty: none.
        hosts: Host names by which the server may be addressed; None: all.

    Raises:
        DataError: if the model reads images together with others.
        KeyboardInterrupt: if it is stopped with Ctrl-C.
    """
    for name in ("python_multipart", "tifffile"):  # They log every damaged request.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with opened(predictor, folders, limits, token=token, hosts=hosts) as (app, gate):
        run_server(app, listener, gate, stop_s=STOP_S)


@contextmanager
def opened(
    predictor: Predictor,
    folders: Sequence[Path],
    limits: Limits,
    *,
    token: str = "",
    hosts: frozenset[str] | None,
) -> Iterator[tuple[App, Gate]]:
    """Yield the application and its gate, with the arguments of `serve_predictor`."""
    if predictor.reads_groups:
        raise DataError(
            "This model reads images together with others, but a server receives single images.",
            code="model_needs_groups",
            hint="Predict files with `ushape predict`, or train with "
            "--set preprocessing.slices=null --set preprocessing.intensity=image.",
        )
    gate = Gate()
    with private_folder() as folder:
        metrics = Metrics(lambda: scheduler.open_tasks)
        scheduler = Scheduler(predictor, limits.queue, metrics.add_batch)
        jobs = Jobs(folder, Outputs(predictor), scheduler, limits)
        gate.is_busy = lambda: jobs.is_busy
        service = Service(
            predictor=predictor,
            scheduler=scheduler,
            jobs=jobs,
            metrics=metrics,
            limits=limits,
            arrays=MemoryBudget(memory_limit_bytes(predictor)),
            metadata=describe_model(predictor, folders),
        )
        guard = Guard(
            app=build_app(service),
            gate=gate,
            hosts=hosts,
            token=token,
            open_paths=OPEN_PATHS,
            vital_paths=VITAL_PATHS,
            max_body_bytes=limits.max_bytes,
        )
        try:
            yield Measured(guard, metrics), gate
        finally:
            scheduler.close()
