"""Several runs that belong together: cross-validation folds and points of a learning curve.

They can be interrupted at any moment, and the same call continues them.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ushape import config
from ushape.api._launcher import GROUP
from ushape.api._requests import complete_recipe
from ushape.api.plan import optional_path
from ushape.api.train import TrainResult, resume
from ushape.config import AUTO
from ushape.console import Console
from ushape.data.checksum import has_checksum
from ushape.data.discovery import discover
from ushape.distributed.jobs import Job, JobConfig
from ushape.distributed.local import LocalJobs, Slot
from ushape.distributed.slurm import SlurmJobs
from ushape.distributed.submission import JobFolder, end_of_log
from ushape.errors import REPEAT, ConfigError, RunError, UshapeError, hint_after_interrupt
from ushape.formatting import pluralize
from ushape.io.files import read_json, remove_leftovers, write_bytes, write_json
from ushape.io.lock import is_unused, locked
from ushape.planning.hardware import Machine, inspect_machine
from ushape.planning.processor import THREADS
from ushape.planning.recipe import Recipe
from ushape.planning.run import Run

VISIBLE = "CUDA_VISIBLE_DEVICES"

PLENTY = 2**50
"""Memory in bytes that the nodes of a cluster are assumed to have."""

JOBS = "jobs"
"""Folder of submitted jobs in the folder of a series."""


@dataclass(frozen=True)
class Series:
    """A folder of runs, and the file in it that stores the request.

    The file is written before the first run begins.
    """

    path: Path
    noun: str
    """Name of the series in error messages, such as "cross-validation"."""

    has_jobs: bool = False
    """Whether jobs, maybe of other machines, write into the runs."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Lock the folder, and say how to continue if the block is interrupted.

        Raises:
            RunError: if another process uses the folder.
        """
        with locked(self.path.parent), hint_after_interrupt(REPEAT):
            yield

    def find(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what `begin` stored, or None if the folder is new or empty.

        A recipe of an earlier version is completed by the defaults of that version.

        Raises:
            RunError: if the folder contains other files, or runs of another request.
        """
        folder = self.path.parent
        # Whether a process of another machine runs is not known.
        remove_leftovers(folder, ".*" if self.has_jobs else "**/.*")
        if is_unused(folder):
            return None
        if not self.path.exists():
            raise RunError(
                f"{folder} is not empty and does not contain a {self.noun}.",
                code="not_a_series",
                hint="Choose another folder with -o.",
            )
        return self.compare(request)

    def compare(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `begin` stored, as `find` does; other processes may use the folder.

        Raises:
            RunError: if it is that of another request.
        """
        folder, stored = self.path.parent, self._read()
        recipe = stored.get("recipe")
        if isinstance(recipe, dict):
            recipe = complete_recipe(recipe, request["recipe"])
        same = {key: value for key, value in request.items() if key != "recipe"}
        other = next((key for key, value in same.items() if stored.get(key) != value), None)
        if other is None and not isinstance(recipe, dict):
            other = "recipe"
        if other is not None:
            raise RunError(
                f"{folder} contains another {self.noun}, with a different value of {other}.",
                code="other_request",
                hint="Repeat the command that started it, or choose another folder with -o.",
            )
        return {**stored, "recipe": recipe}

    def refuse_changed_data(
        self, data: Path | str, masks: Path | str | None, runs: Sequence[Run]
    ) -> None:
        """Check that the data are those of the existing runs; their groups might differ.

        Raises:
            RunError: if the data have changed since the first run.
        """
        known = {run.data_checksum for run in runs if run.plan_path.exists()} - {""}
        if not known:
            return
        path = Path(data)
        cases = discover(path, optional_path(masks)).cases
        if not all(has_checksum(cases, path, one) for one in known):
            raise RunError(
                f"{data} has changed since {self.path.parent} was started: files were added, "
                "removed or modified.",
                code="data_changed",
                hint="Restore the data, or choose another folder with -o.",
            )

    def begin(self, request: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Store the request, and further values that must stay the same when it continues."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**request, **more})
        return self._read()

    def train(
        self,
        runs: Sequence[Run],
        start: Callable[[int], TrainResult],
        console: Console,
        *,
        titles: Sequence[str],
    ) -> int | None:
        """Train the unfinished runs one after another.

        Args:
            start: Trains the run of this index from the beginning.
            titles: Name of each run, e.g. "fold 1 of 5".

        Returns:
            Index of a run that Ctrl-C stopped, or None.
        """
        for number, (run, title) in enumerate(zip(runs, titles, strict=True)):
            before = ": already finished" if is_finished(run) else ""
            console.say(f"{title[0].upper()}{title[1:]}{before}")
            if before:
                continue
            if run.plan_path.exists():
                result = resume(run.folder, quiet=console.is_quiet)
            else:
                drop_unplanned(run)
                try:
                    result = start(number)
                except UshapeError:
                    if number == 0 and not run.plan_path.exists():
                        self.path.unlink()  # Nothing has begun: another request may follow.
                    raise
            if result.was_interrupted:
                console.say(f"Stopped in {title}. To continue, run the same command again.")
                return number
        return None

    def _read(self) -> dict[str, Any]:
        hint = "Choose another folder with -o."
        stored = read_json(self.path, RunError, code="damaged_run", hint=hint)
        if not isinstance(stored, dict):
            raise RunError(f"{self.path} has no settings.", code="damaged_run", hint=hint)
        return stored


def is_finished(run: Run) -> bool:
    """Return whether the report exists and the training was not interrupted."""
    return run.report_path.exists() and (
        run.has_ended(run.load_plan()) or not run.checkpoint_path.exists()
    )


def drop_unplanned(run: Run) -> None:
    """Remove the files of a run that was killed before its plan was made."""
    for path in (run.cases_path, run.splits_path):
        path.unlink(missing_ok=True)


class Runner(Protocol):
    """What trains in processes of their own: devices of this machine, or jobs."""

    def at_once(self, count: int) -> int:
        """Return how many of so many trainings run at the same time."""

    def run(self, jobs: Sequence[Job], console: Console) -> None:
        """Run the trainings, or submit them if they are not in a queue yet."""


def refuse_own_code(recipe: Recipe) -> None:
    """Raise ConfigError if the recipe contains Python code, which other processes do not have."""
    if recipe.code is not None:
        raise ConfigError(
            f"{recipe.code.name} cannot be trained in a process of its own.",
            code="custom_code_several_devices",
            hint="Give a single device, without --submit; a recipe in a Python file is trained in "
            "one process.",
        )


def training_job(
    name: str,
    run: Run,
    recipe: Recipe,
    data: Path,
    masks: Path | None,
    *,
    splits: Path | None = None,
) -> Job:
    """Return a training as a command in a process of its own, and write its recipe.

    Raises:
        ConfigError: if the recipe contains Python code.
    """
    refuse_own_code(recipe)
    path = run.folder.with_suffix(".yaml")
    if not run.plan_path.exists():
        write_bytes(path, config.explain(recipe).encode())
    arguments = ["train", str(data), "-o", str(run.folder), "--recipe", str(path)]
    arguments += ["--masks", str(masks)] if masks else []
    return Job(
        name,
        arguments + (["--splits", str(splits)] if splits else []),
        run.folder.with_suffix(".log"),
        resume=["resume", str(run.folder)],
        plan=run.plan_path,
        unplanned=(run.cases_path, run.splits_path),
    )


def machine_of_jobs(runner: Runner, device: str) -> Machine:
    """Return the machine for which trainings are planned before they are started.

    The nodes of a cluster are not known. They are assumed to have enough memory, and a device of
    each type, so that only what fails on every machine is refused.

    Args:
        device: Type of the devices.

    Raises:
        PlanError: if the trainings run on this machine, and it has no such device.
    """
    if not isinstance(runner, SlurmJobs):
        return inspect_machine(device)
    kind = "cpu" if device == AUTO else device
    return replace(
        inspect_machine("cpu"), device=kind, memory_bytes=PLENTY, main_memory_bytes=PLENTY
    )


def choose_runner(
    folder: Path, config: JobConfig | None, devices: Devices, count: int
) -> tuple[Runner | None, Devices]:
    """Return what trains so many runs in processes of their own.

    Args:
        folder: Folder of the runs.
        config: What the jobs request, or None if the trainings are no jobs.

    Returns:
        The runner, or None if this process trains one run after another; and the devices of this
        machine that are used at the same time.
    """

    def is_job_finished(job: Job) -> bool:
        return is_finished(Run(folder / job.key))

    jobs = JobFolder(folder / JOBS)
    if config is None and not devices.are_separate:
        return None, devices
    if config is None:
        devices.require_available()
        return devices, devices
    if config.where == "slurm":
        return SlurmJobs(jobs, config, devices.names[0], is_job_finished), devices
    if devices.are_separate:
        devices.require_available()
    else:
        machine = inspect_machine(devices.names[0])
        most = config.at_once or (machine.cores if machine.device == "cpu" else 1)
        devices = Devices([*devices.names] * min(most, count))
    names = devices.names[: config.at_once]
    slots = [Slot(name.partition(":")[0], devices.environment(name), name) for name in names]
    return LocalJobs(jobs, slots, is_job_finished), devices


def run_unfinished(
    runner: Runner, runs: Sequence[Run], jobs: Sequence[Job], console: Console, noun: str
) -> RunError | None:
    """Run the trainings that are not finished; there is a job for each run.

    Args:
        noun: What a run is, such as "fold".

    Returns:
        The error of trainings that have failed, which is to be raised once the finished ones are
        summed up.
    """
    unfinished = []
    for run, job in zip(runs, jobs, strict=True):
        if is_finished(run):
            console.say(f"{job.name}: already finished")
        else:
            unfinished.append(job)
    failure = None
    try:
        if unfinished:
            runner.run(unfinished, console)
    except RunError as error:
        if error.code != "fold_failed":
            raise
        failure = error
    count = sum(map(is_finished, runs))
    if count < len(runs):
        console.say(f"{count} of {pluralize(len(runs), noun)} are finished.")
    return failure


@dataclass
class Devices:
    """Devices that run one process each at a time."""

    names: Sequence[str]
    """cpu, cuda:0, cuda:1, ...; a device that is named twice runs two processes."""

    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Devices:
        """Read a list such as "cuda:0,cuda:1".

        Raises:
            ConfigError: if a device is unknown, or its index not a number.
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
                    hint=f"Use {kind}. A device that is named twice, as in --device cpu,cpu, runs "
                    "two trainings at the same time.",
                )
        return cls(names)

    def require_available(self) -> None:
        """Check that this machine has all of the devices.

        Raises:
            PlanError: if it has none of a type.
            ConfigError: if it has fewer than the number of one.
        """
        for name in self.names:
            kind, _, number = name.partition(":")
            inspect_machine(kind)
            if number and int(number) >= torch.cuda.device_count():
                raise ConfigError(
                    f"{name} is not available: this machine has "
                    f"{pluralize(torch.cuda.device_count(), 'GPU')}, and the first one is cuda:0.",
                    code="unknown_device",
                    hint="Name other devices with --device.",
                )

    @property
    def are_separate(self) -> bool:
        """Whether the runs need processes of their own."""
        return len(self.names) > 1 or ":" in self.names[0]

    def share(self, cores: int) -> int:
        """Return how many threads each process uses, so that they use all cores together."""
        return max(1, cores // len(self.names))

    def at_once(self, count: int) -> int:
        """Return how many of so many trainings run at the same time."""
        return min(count, len(self.names))

    def environment(self, name: str) -> dict[str, str | None]:
        """Return the environment variables of a process on one of the devices."""
        threads = self.share(inspect_machine("cpu").cores)
        _, _, number = name.partition(":")
        visible = _visible(number) if number else os.environ.get(VISIBLE)
        alone: dict[str, str | None] = dict.fromkeys(GROUP)
        return {**alone, THREADS: os.environ.get(THREADS, str(threads)), VISIBLE: visible}

    def run(self, jobs: Sequence[Job], console: Console) -> None:
        """Run all jobs, each on the device that is free first.

        Every Ctrl-C is passed on to the processes; once they have ended, it is raised again.
        SIGTERM has the same effect.

        Raises:
            RunError: if a job fails; running jobs are completed and no other is started.
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
        """Interrupt all processes now and at each further signal, until they have ended."""
        while True:
            number = getattr(interrupt, "signal_number", signal.SIGINT)
            for process in list(self._running) if os.name == "posix" else ():
                process.send_signal(number)  # On Windows the terminal has done it.
            try:
                wait(pending)
                return
            except KeyboardInterrupt as further:
                interrupt = further

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
                hint="Correct the cause and repeat the command; what is finished is kept.",
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
    """Raise an error that names all trainings that have failed, if there are any."""
    for error in errors:
        if not isinstance(error, RunError):
            raise error
    texts = [error.message for error in errors if isinstance(error, RunError)]
    if texts:
        raise RunError(
            "\n".join(texts),
            code="fold_failed",
            hint="Correct the cause and repeat the command; what is finished is kept.",
        )


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that no process is left running; the command does it always."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # Signals belong to the main thread.
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
