"""Trainings as jobs of SLURM, submitted by submitit."""

from __future__ import annotations

import getpass
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ushape.console import Console
from ushape.distributed.job_config import JobConfig
from ushape.distributed.jobs import EXTRA, Job
from ushape.distributed.submission import IsFinished, JobFolder, Submitted
from ushape.errors import RunError, require_package
from ushape.interrupts import interrupts_handled_by, interrupts_held_off

MOST_TIMEOUTS = 100
"""How often a job that has reached its time limit is requeued."""

SHARE_CORES = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
"""Since SLURM 22.05, srun does not take the number of cores from sbatch."""


@dataclass(frozen=True)
class SlurmJobs:
    """Jobs of one output folder. They run without the command that submits them."""

    folder: JobFolder
    config: JobConfig
    device: str
    """Device on which they train: auto, cpu or cuda."""

    is_finished: IsFinished

    def at_once(self, count: int) -> int:
        """Return how many of so many jobs may run at the same time."""
        return min(count, self.config.at_once or count)

    def run(self, jobs: Sequence[Job], console: Console) -> None:
        """Submit the jobs that are neither finished nor in the queue, and return.

        Raises:
            RunError: if jobs have failed, the first time that this is seen; or if the cluster does
                not accept them.
        """
        _require_slurm()
        active = list_active()  # Before the results are looked at: a job may end at any moment.
        known, new, failed = self._find_unanswered(self.folder.load(), active), [], []
        for job in jobs:
            own = known.get(job.key)
            if self.is_finished(job):
                continue
            if own is not None and own.id in active:
                state = active[own.id].state.lower()
                console.say(f"{job.name}: {state} as job {own.id}, log in {own.log}")
            elif own is not None and own.id and not own.is_reported:
                failed.append(job)
            else:
                new.append(job)
        self.folder.report(failed, known, _describe_end)
        if new:
            running = sum(one.id in active for one in known.values())
            self._submit(new, known, max(1, self.at_once(len(jobs)) - running), console)

    def _find_unanswered(
        self, known: dict[str, Submitted], active: Mapping[str, Active]
    ) -> dict[str, Submitted]:
        """Return the jobs with the numbers of those whose submission was cut off.

        The number of a job is known only from the answer of sbatch, which is lost if this command
        is killed, or if the cluster is slow to answer.
        """
        paths = require_package("submitit.core.utils", EXTRA, "--submit slurm").JobPaths
        found = dict(known)
        for key, own in known.items():
            for number, job in active.items():
                _, _, place = number.partition("_")
                if not own.id and own.array == job.name and int(place or 0) == own.place:
                    log = str(paths(self.folder.path, number).stdout)
                    found[key] = replace(own, id=number, log=log)
        if found != known:
            self.folder.save(found)
        return found

    def _submit(
        self, jobs: Sequence[Job], known: dict[str, Submitted], at_once: int, console: Console
    ) -> None:
        submitit, config = require_package("submitit", EXTRA, "--submit slurm"), self.config
        name = f"ushape-{self.folder.path.parent.name}-{secrets.token_hex(4)}"
        executor = submitit.SlurmExecutor(self.folder.path, max_num_timeout=MOST_TIMEOUTS)
        executor.update_parameters(
            job_name=name,
            time=config.minutes,
            partition=config.partition,
            account=config.account,
            mem=None if config.memory_gb is None else f"{round(1024 * config.memory_gb)}M",
            gpus_per_node=config.gpus or None,
            array_parallelism=at_once,
            setup=[SHARE_CORES],
            stderr_to_stdout=True,
            wckey=None,
            additional_parameters={"requeue": True, **config.slurm},
        )
        own = [replace(job, arguments=[*job.arguments, "--device", self.device]) for job in jobs]
        for place, job in enumerate(jobs):
            known[job.key] = Submitted("", "", array=name, place=place)
        self.folder.save(known)
        try:
            with interrupts_held_off():
                with interrupts_handled_by(signal.SIG_IGN):  # sbatch receives Ctrl-C as well.
                    submitted = executor.submit_array(own)
                for job, one in zip(jobs, submitted, strict=True):
                    log = str(one.paths.stdout)
                    known[job.key] = replace(known[job.key], id=one.job_id, log=log)
                self.folder.save(known)
        except (submitit.core.utils.FailedJobError, OSError) as error:
            raise RunError(
                f"SLURM did not accept the jobs: {str(error).strip() or type(error).__name__}",
                code="submission_failed",
                hint="Correct options such as --partition, and repeat the command.",
            ) from None
        for job, one in zip(jobs, submitted, strict=True):
            console.say(f"{job.name}: submitted as job {one.job_id}")
        console.say(
            f"Logs and scripts of the jobs: {self.folder.path}\n"
            "The jobs keep running without this command. Repeat it to see their state and to "
            f"collect the results. To cancel them: scancel {submitted[0].job_id.partition('_')[0]}"
        )


@dataclass(frozen=True)
class Active:
    """A job that waits or runs."""

    state: str
    """State of SLURM, such as PENDING."""

    name: str


def list_active() -> dict[str, Active]:
    """Return each of the user's jobs that waits or runs, by its number.

    Raises:
        RunError: if the cluster does not answer.
    """
    command = ["squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i %T %j"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RunError(
            f"squeue did not list the jobs: {ended.stderr.strip()}",
            code="cluster_unavailable",
            hint="Repeat the command later; submitted jobs are not affected.",
        )
    lines = (line.split(" ", 2) for line in ended.stdout.splitlines() if line.strip())
    return {number: Active(state, name.strip()) for number, state, name in lines}


def _describe_end(job_id: str) -> str:
    """Return the state in which a job ended, or '' if the cluster has no record of it."""
    if shutil.which("sacct") is None:
        return ""
    command = ["sacct", "-n", "-X", "-P", "-j", job_id, "-o", "State"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stdout.strip().splitlines()[-1] if ended.stdout.strip() else ""


def _require_slurm() -> None:
    """Raise RunError if the commands of SLURM are missing."""
    missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
    if missing:
        raise RunError(
            f"--submit slurm requires the command {missing[0]}, which was not found.",
            code="no_slurm",
            hint="Run the command on a login node of the cluster, or use --submit local.",
        )
