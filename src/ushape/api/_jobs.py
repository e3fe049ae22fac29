"""Train the runs of a series in separate processes, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ushape import config
from ushape.api._devices import Devices
from ushape.api._series import is_finished
from ushape.config import AUTO
from ushape.console import Console
from ushape.distributed.job_config import JobConfig
from ushape.distributed.jobs import Job
from ushape.distributed.local import LocalJobs, Slot
from ushape.distributed.slurm import SlurmJobs
from ushape.distributed.submission import JobFolder
from ushape.errors import ConfigError, RunError
from ushape.formatting import pluralize
from ushape.io.files import write_bytes
from ushape.planning.hardware import Machine, inspect_machine
from ushape.planning.recipe import Recipe, with_some_rate
from ushape.planning.run import Run
from ushape.planning.shares import share_of_machine

PLENTY = 2**50
"""Memory in bytes that the nodes of a cluster are assumed to have."""

JOBS = "jobs"
"""Folder of submitted jobs in the folder of a series."""


class Runner(Protocol):
    """Trains models in separate processes: on devices of this machine, or as jobs."""

    def at_once(self, count: int) -> int:
        """Return how many of `count` runs are trained at the same time."""

    def run(self, jobs: Sequence[Job], console: Console) -> None:
        """Run the jobs, or submit them if they are not in a queue yet."""


def refuse_own_code(recipe: Recipe) -> None:
    """Raise ConfigError if the recipe contains Python code, which other processes cannot load."""
    if recipe.code is not None:
        raise ConfigError(
            f"{recipe.code.name} cannot be trained in a separate process.",
            code="custom_code_several_devices",
            hint="Use a single device, without --submit; a recipe in a Python file is trained in "
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
    """Return a training run as a command for a separate process, and write its recipe.

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
        unplanned=(run.cases_path, run.splits_path, run.seen_images_path),
    )


def machine_of_jobs(runner: Runner, devices: Devices) -> Machine:
    """Return the machine for which runs are planned before they are started.

    Runs that are trained on this machine at the same time share its cores and its main memory. The
    nodes of a cluster are not known; they are assumed to have enough memory, and a device of each
    type, so that nothing is rejected or reduced that may be possible there.

    Args:
        devices: Devices that are used at the same time; all are of one type.

    Raises:
        PlanError: if models are trained on this machine, and it has no such device.
    """
    device = devices.names[0].partition(":")[0]
    if not isinstance(runner, SlurmJobs):
        return share_of_machine(inspect_machine(device), len(devices.names))
    kind = inspect_machine(AUTO).device if device == AUTO else device
    return replace(
        inspect_machine("cpu"), device=kind, memory_bytes=PLENTY, main_memory_bytes=PLENTY
    )


def without_measuring(recipe: Recipe) -> Recipe:
    """Return a recipe with fixed epochs and learning rate, so that planning measures no speed."""
    if recipe.train.minutes is not None:
        recipe = replace(recipe, train=replace(recipe.train, minutes=None, epochs=1))
    return with_some_rate(recipe)


def choose_runner(
    folder: Path, config: JobConfig | None, devices: Devices, count: int
) -> tuple[Runner | None, Devices]:
    """Return the runner that trains these runs in separate processes.

    Args:
        folder: Folder of the runs.
        config: What the jobs request, or None if the runs are not trained as jobs.

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
    devices = Devices(devices.names[: config.at_once])
    slots = [
        Slot(name.partition(":")[0], devices.environment(name), name) for name in devices.names
    ]
    return LocalJobs(jobs, slots, is_job_finished), devices


def run_unfinished(
    runner: Runner, runs: Sequence[Run], jobs: Sequence[Job], console: Console, noun: str
) -> RunError | None:
    """Train the runs that are not finished; there is one job for each run.

    Args:
        noun: What a run is, such as "fold".

    Returns:
        The error of runs that failed, which is to be raised once the finished ones are summarized.
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
