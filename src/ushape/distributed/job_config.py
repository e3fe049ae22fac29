"""Resources that training jobs request, from the options of a command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from ushape.distributed.jobs import EXTRA
from ushape.errors import ConfigError, check_range, require_package

TIME_FACTOR, TIME_MORE = 1.25, 15
"""Additional time of a job if training has a time limit: for slow file systems and a slow start."""

RESERVED = {
    "array": "--max-jobs",
    "time": "--job-minutes",
    "partition": "--partition",
    "account": "--account",
    "mem": "--memory-gb",
    "gpus-per-node": "--gpus",
    "error": "",
    "open-mode": "",
    "output": "",
    "signal": "",
    "wrap": "",
}
"""Parameters of sbatch that ushape sets itself, each with the option of ushape for it, or ''."""

ONE_TASK = (
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "ntasks-per-gpu",
    "ntasks-per-socket",
    "ntasks-per-core",
)
"""Parameters of sbatch that multiply the tasks of a job."""


class JobOptions(TypedDict, total=False):
    """Options of a command that can train its runs as jobs; by default, it trains them itself."""

    submit: Literal["slurm", "local"] | None
    """Train each run as a job: slurm (the call returns, and the same call later gathers the
    results) or local (processes of this machine, for which the call waits)."""

    partition: str | None
    """SLURM partition of the jobs."""

    account: str | None
    """SLURM account of the jobs."""

    job_minutes: int | None
    """Time limit of each SLURM job in minutes; a job that reaches it is requeued and continues
    (default: from minutes; needed with epochs)."""

    memory_gb: float | None
    """Main memory of each SLURM job in GB (default: that of the partition)."""

    gpus: int | None
    """GPUs of each SLURM job (default: 1 with device cuda, otherwise none)."""

    max_jobs: int | None
    """Number of jobs that run at the same time (default: all of them)."""

    slurm: Iterable[str]
    """Additional parameter of sbatch as key=value, e.g. cpus-per-task=8 (repeatable)."""


ONLY_SLURM = ("partition", "account", "job_minutes", "memory_gb", "gpus", "slurm")
"""Options that need `--submit slurm`."""

LOWEST = {"job_minutes": 1, "memory_gb": 0.1, "gpus": 0, "max_jobs": 1}
"""Lowest values of options."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """Where training runs as jobs, and which resources they request."""

    where: Literal["slurm", "local"]
    """Cluster, or this machine."""

    partition: str | None = None
    account: str | None = None
    minutes: int | None = None
    """Wall time of a job in minutes. A job that reaches it is requeued and continues."""

    memory_gb: float | None = None
    gpus: int | None = None
    at_once: int | None = None
    """Largest number of jobs that run at the same time; None: no limit."""

    slurm: Mapping[str, str | bool] = field(default_factory=dict)
    """Additional parameters of sbatch; True for those without a value."""

    @classmethod
    def resolve(
        cls, options: JobOptions, *, minutes: float | None, device: str
    ) -> JobConfig | None:
        """Return the options of a command as a config; None without `--submit`.

        Args:
            minutes: Time limit of training, if there is one.
            device: Device on which they train.

        Raises:
            ConfigError: if an option is impossible, missing, or needs another one.
            MissingPackageError: if submitit is not installed.
            TypeError: if there is no such option.
        """
        if unknown := options.keys() - JobOptions.__annotations__.keys():
            raise TypeError(f"There is no option {min(unknown)!r}.")
        parameters = list(options.get("slurm") or ())
        given: dict[str, Any] = {**options, "slurm": parameters or None}
        given = {key: value for key, value in given.items() if value is not None}
        submit, at_once = options.get("submit"), options.get("max_jobs")
        _refuse_options_elsewhere(submit, given)
        if submit is None:
            return None
        require_package("submitit", EXTRA, f"--submit {submit}")
        for key, low in LOWEST.items():
            if key in given:
                hint = "Correct the option, or omit it."
                check_range(_flag(key), given[key], low, hint=hint)
        if submit == "local":
            return cls(where="local", at_once=at_once)
        if ":" in device or "," in device:
            raise ConfigError(
                f"Each SLURM job trains on one device, but --device is {device}.",
                code="conflicting_options",
                hint="Use --device cuda --gpus 1; --max-jobs limits how many run at once.",
            )
        job_minutes, gpus = options.get("job_minutes"), options.get("gpus")
        if job_minutes is None and minutes is None:
            raise ConfigError(
                "The time of a job is unknown, because training is limited by epochs instead of "
                "time.",
                code="missing_job_minutes",
                hint="Add --job-minutes. A job that reaches it is requeued and continues.",
            )
        return cls(
            where="slurm",
            partition=options.get("partition"),
            account=options.get("account"),
            minutes=round(job_minutes or TIME_FACTOR * (minutes or 0) + TIME_MORE),
            memory_gb=options.get("memory_gb"),
            gpus=1 if gpus is None and device == "cuda" else gpus,
            at_once=at_once,
            slurm=dict(map(_parse_parameter, parameters)),
        )


def _refuse_options_elsewhere(submit: str | None, given: Mapping[str, Any]) -> None:
    """Raise ConfigError if an option is given without the kind of submission that it is for."""
    if submit not in (None, "slurm", "local"):
        raise ConfigError(
            f"Jobs cannot be submitted to {submit!r}.",
            code="unknown_scheduler",
            hint="Use --submit slurm, or --submit local for processes on this machine.",
        )
    refused = {None: (*ONLY_SLURM, "max_jobs"), "local": ONLY_SLURM, "slurm": ()}[submit]
    for key in refused:
        if key in given:
            raise ConfigError(
                f"{_flag(key)} requires --submit slurm.",
                code="conflicting_options",
                hint=f"Add --submit slurm, or omit {_flag(key)}.",
            )


def _flag(key: str) -> str:
    """Return the name of an option on the command line."""
    return "--" + key.replace("_", "-")


def _parse_parameter(text: str) -> tuple[str, str | bool]:
    """Read a parameter of sbatch: key=value, or a key without a value.

    Raises:
        ConfigError: if another option sets the parameter, or if it asks for several tasks.
    """
    key, equals, value = text.partition("=")
    key = key.strip().lstrip("-").replace("_", "-")
    if not key or key in RESERVED:
        option = RESERVED.get(key, "")
        raise ConfigError(
            f"--slurm {text} cannot be used, because another option sets this parameter."
            if key
            else f"--slurm {text} is not a parameter of sbatch.",
            code="reserved_parameter",
            hint=f"Use {option}." if option else "Omit it, or use --slurm KEY=VALUE.",
        )
    if key in ONE_TASK and value.strip() != "1":
        raise ConfigError(
            f"--slurm {text} cannot be used: each task would train the same run, so a job has one "
            "task on one node.",
            code="reserved_parameter",
            hint="Omit it. For more cores, use --slurm cpus-per-task=N; for GPUs, --gpus N.",
        )
    return key, value if equals else True
