"""Long-running work in a separate process: started, watched through files, stopped as by Ctrl-C.

The output goes into a file, so that a process continues when the server is killed, and the next
server finds it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ushape.errors import RunError
from ushape.io.files import write_json
from ushape.io.processes import is_running, start_time
from ushape.planning.run import Run

Kind = Literal["check", "plan", "train", "predict", "report"]
State = Literal["running", "done", "failed", "stopped"]

LAST_LINES = 200
"""Number of lines of output that the page shows."""

MAX_OUTPUT_BYTES = 1 << 16
"""Number of bytes at the end of the output in which these lines are looked for."""

POLL_S = 0.2


@dataclass
class Job:
    """A process, and everything by which another server finds it again."""

    kind: Kind
    command: list[str]
    folder: str = ""
    """Run folder, or the folder of predictions."""

    minutes: float | None = None
    process: int = 0
    created: float = 0.0
    """`start_time` of the process: its number alone may become that of another."""

    started: float = 0.0
    state: State = "running"
    ended: float | None = None
    is_stopping: bool = False
    error: str = ""
    images: list[str] = field(default_factory=list)
    """Ids of the images to predict."""


class Jobs:
    """The current or last job of a project; there is one at a time.

    Args:
        folder: State folder of the project.
        on_end: Function that is called, in another thread, when a job has ended.
    """

    def __init__(self, folder: Path, on_end: Callable[[Job], None]):
        self.path, self.output = folder / "job.json", folder / "job.txt"
        self._on_end = on_end
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self.job: Job | None = None
        if self.path.exists():
            with suppress(OSError, ValueError, TypeError):
                self.job = Job(**json.loads(self.path.read_bytes()))
        if self.job is not None and self.job.state == "running":
            self._watch(self.job)

    @property
    def is_running(self) -> bool:
        return self.job is not None and self.job.state == "running"

    def start(
        self,
        kind: Kind,
        arguments: Sequence[str],
        *,
        module: str = "ushape",
        folder: Path | None = None,
        minutes: float | None = None,
        images: Sequence[str] = (),
    ) -> Job:
        """Start `python -m MODULE ARGUMENTS`.

        Raises:
            RunError: if another job is running.
        """
        with self._lock:
            if self.is_running:
                raise RunError(
                    "Another job is running.",
                    code="job_running",
                    hint="Wait until it has finished, or stop it.",
                )
            command = [sys.executable, "-m", module, *arguments]
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "100"}
            environment["PYTHONIOENCODING"] = "utf-8"  # As `lines` reads it, also on Windows.
            with self.output.open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            job = Job(
                kind=kind,
                command=["ushape" if module == "ushape" else module, *arguments],
                folder=str(folder) if folder else "",
                minutes=minutes,
                process=self._process.pid,
                created=start_time(self._process.pid) or 0.0,
                started=time.time(),
                images=list(images),
            )
            self.job = job
            self._store()
            self._watch(job)
            return job

    def stop(self) -> None:
        """Ask the job to stop as by Ctrl-C; a second time, it ends at once."""
        with self._lock:
            job = self.job
            if job is None or job.state != "running":
                return
            number = signal.SIGTERM if job.is_stopping or sys.platform == "win32" else signal.SIGINT
            job.is_stopping = True
            self._store()
            if is_running(job.process, job.created):
                with suppress(ProcessLookupError):
                    os.kill(job.process, number)

    def wait(self, timeout_s: float) -> bool:
        """Wait until no job is running, and return whether that is so."""
        if self._watcher is not None:
            self._watcher.join(timeout_s)
        return not self.is_running

    def lines(self) -> list[str]:
        """Return the last lines of output of the job."""
        try:
            with self.output.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - MAX_OUTPUT_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line.rpartition("\r")[2] for line in text.splitlines()][-LAST_LINES:]

    def describe(self) -> dict[str, Any] | None:
        """Return what the page shows of the current or last job."""
        job = self.job
        if job is None:
            return None
        elapsed = (job.ended or time.time()) - job.started
        left = None
        if job.state == "running" and job.minutes:
            left = max(0.0, job.minutes * 60 - elapsed)
        return {
            "kind": job.kind,
            "state": job.state,
            "folder": job.folder,
            "started": job.started,
            "minutes": job.minutes,
            "elapsed_s": round(elapsed, 1),
            "left_s": None if left is None else round(left, 1),
            "lines": self.lines(),
            "curves": curves_of(Path(job.folder)) if job.kind == "train" else None,
            "error": job.error or None,
            "status": _status_of(job),
        }

    def _watch(self, job: Job) -> None:
        self._watcher = threading.Thread(
            target=self._follow, args=(job, self._process), name="ushape-studio-job", daemon=True
        )
        self._watcher.start()

    def _follow(self, job: Job, process: subprocess.Popen[bytes] | None) -> None:
        """Wait for the end of a process, of this server or of an earlier one."""
        code: int | None = None
        if process is not None:
            code = process.wait()
        else:
            while is_running(job.process, job.created):
                time.sleep(POLL_S)
            code = _guess_code(job)
        with self._lock:
            job.ended = time.time()
            if code == 0 or (code == 1 and job.kind == "check"):  # It has found errors.
                job.state = "stopped" if job.is_stopping and job.kind != "train" else "done"
            elif job.is_stopping or code == -signal.SIGINT or code in (130, 143):
                job.state = "stopped"
            else:
                job.state = "failed"
                job.error = _error_in(self.lines(), code)
            self._store()
        self._on_end(job)

    def _store(self) -> None:
        if self.job is not None:
            write_json(self.path, asdict(self.job))


def curves_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return loss and validation Dice by step, from the log of a run."""
    found: dict[str, list[tuple[int, float]]] = {"loss": [], "dice": []}
    rows: list[dict[str, str]] = []
    with suppress(RunError):
        rows = Run(run).load_metrics()
    for row in rows:
        with suppress(KeyError, ValueError):
            step = int(row["step"])
            found["loss"].append((step, float(row["loss"])))
            found["dice"].append((step, float(row["validation_dice"])))
    for name, points in found.items():
        found[name] = [point for point in points if point[1] == point[1]]  # JSON has no NaN.
    return found


def _guess_code(job: Job) -> int:
    """Return the exit code of a process of an earlier server, from what it has written."""
    if job.kind == "train":
        run = Run(Path(job.folder))
        with suppress(RunError, OSError):
            return 0 if run.weights_path.is_file() and run.has_ended(run.load_plan()) else 1
        return 1
    return 0


def _error_in(lines: Sequence[str], code: int) -> str:
    """Return the error that a command printed."""
    for number, line in enumerate(lines):
        if line.startswith("Error: "):
            return "\n".join(lines[number:]).removeprefix("Error: ")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last or f"The process ended with exit code {code}."


def _status_of(job: Job) -> str:
    """Return in a few words what a job does."""
    if job.state != "running":
        return ""
    if job.is_stopping:
        return "Stopping; the best weights so far are kept." if job.kind == "train" else "Stopping."
    if job.kind == "train" and not Run(Path(job.folder)).metrics_path.exists():
        return "Reading the images and planning."
    return ""
