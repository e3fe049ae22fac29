"""What was submitted for an output folder, so that the same command can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ushape.distributed.jobs import Job
from ushape.errors import RunError
from ushape.formatting import pluralize
from ushape.io.files import read_json, write_json

SHOWN_LINES = 12
"""Last lines of the log of a failed process that are shown."""

IsFinished = Callable[[Job], bool]

DescribeEnd = Callable[[str], str]
"""Returns how a job of this number ended, such as TIMEOUT, or '' if that is unknown."""


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted."""

    id: str
    """Number of the job; on this machine, of the process that controls it. '' until the cluster has
    answered, which a command that was killed in the meantime does not learn."""

    log: str
    """Path of its log."""

    started: float | None = None
    """`start_time` of the process; None on a cluster."""

    slot: str = ""
    """On this machine, the device that it uses; '' if that is unknown."""

    array: str = ""
    """Unique name under which it was given to a cluster."""

    place: int = 0
    """Index among the jobs of this name."""

    is_reported: bool = False
    """Whether its failure was reported, so that the next call submits it again."""


@dataclass(frozen=True)
class JobFolder:
    """Folder of the logs, of the files of submitit, and of the list of submitted jobs."""

    path: Path

    def load(self) -> dict[str, Submitted]:
        """Return the job that was submitted last for each run.

        Raises:
            RunError: if the list is damaged.
        """
        if not self._list.exists():
            return {}
        hint = f"Remove {self._list}, after making sure that no job is running."
        stored = read_json(self._list, RunError, code="damaged_run", hint=hint)
        try:
            return {key: Submitted(**values) for key, values in stored.items()}
        except (AttributeError, TypeError):
            raise RunError(
                f"{self._list} is not a list of jobs.", code="damaged_run", hint=hint
            ) from None

    def save(self, known: dict[str, Submitted]) -> None:
        """Store what `load` returns."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self._list, {key: asdict(one) for key, one in known.items()})

    @property
    def _list(self) -> Path:
        return self.path / "jobs.json"

    def report(
        self, failed: Sequence[Job], known: dict[str, Submitted], state: DescribeEnd | None = None
    ) -> None:
        """Raise an error that names all failed jobs; the next call submits them again.

        Args:
            state: Describes how a job ended.

        Raises:
            RunError: if any job has failed.
        """
        if not failed:
            return
        texts = []
        for job in failed:
            own = known[job.key]
            known[job.key] = replace(own, is_reported=True)
            end = f" ({end})" if state and (end := state(own.id)) else ""
            lines = end_of_log(Path(own.log))
            texts.append(f"{job.name} failed as job {own.id}{end}, log in {own.log}:\n{lines}")
        self.save(known)
        raise RunError(
            "\n".join(texts),
            code="fold_failed",
            hint=f"Fix the cause and repeat the command, which resubmits the "
            f"{pluralize(len(failed), 'failed job')}; finished ones are kept.",
        )


def end_of_log(path: Path) -> str:
    """Return the last lines of a log."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "(The job has written no log.)"
    return "\n".join(lines[-SHOWN_LINES:])
