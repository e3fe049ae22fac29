"""Division of work among the tasks of an array job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ushape.errors import ConfigError

PARTS_VARIABLE = "USHAPE_PARTS"
"""Environment variable with the number of parts, which Kubernetes does not provide."""

SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
SLURM_STEP, SLURM_LAST = "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_MAX"
AWS_INDEX, AWS_SIZE = "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"
KUBERNETES_INDEX = "JOB_COMPLETION_INDEX"

ALL = "To process everything instead, add --part 1/1."


@dataclass(frozen=True)
class Part:
    """One of several parts of approximately equal size into which work is divided."""

    number: int
    """Number of the part, from 1."""

    count: int
    """Number of parts."""

    origin: str = field(default="", compare=False)
    """The environment variables that define the part, in words; '' if the user specified it."""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"Part {self.number} of {self.count} does not exist"
                f"{f' ({self.origin})' if self.origin else ''}.",
                code="invalid_part",
                hint="Parts are numbered from 1: 1/4, 2/4, 3/4 and 4/4.",
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def is_all(self) -> bool:
        """Whether there is only one part."""
        return self.count == 1

    def holds(self, key: str) -> bool:
        """Return whether a piece of work belongs to this part.

        Each key belongs to one of the parts, whatever other keys there are, so that nothing moves
        to another part when work is added.

        Args:
            key: Name of the piece. Pieces that must be done together have the same key.
        """
        digest = hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1


WHOLE = Part(1, 1)


def parse_part(text: str) -> Part:
    """Return the part that a text such as "3/8" specifies.

    Raises:
        ConfigError: if the text is not two numbers, or the part does not exist.
    """
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if found is None:
        raise ConfigError(
            f"The part is {text!r}, but must be two numbers such as 3/8.",
            code="invalid_part",
            hint="The first number is the part, from 1, and the second one the number of parts.",
        )
    return Part(int(found[1]), int(found[2]))


def part_of_task(environment: Mapping[str, str]) -> Part:
    """Return the part of the task of an array job that this process is, or the whole outside one.

    The variables of SLURM, of indexed jobs of Kubernetes and of AWS Batch are read. Kubernetes
    does not provide the number of tasks: USHAPE_PARTS specifies it.

    Raises:
        ConfigError: if the variables do not contain the number of tasks, or the position of this
            task among them.
    """
    if environment.get(SLURM[0]):
        return _slurm_part(environment)
    for index, size in ((AWS_INDEX, AWS_SIZE), (KUBERNETES_INDEX, PARTS_VARIABLE)):
        if environment.get(index):
            return _indexed_part(environment, index, size)
    return WHOLE


def _slurm_part(environment: Mapping[str, str]) -> Part:
    """Return the part of a SLURM task.

    `--array=0-7`, `1-8` and `1-15:2` are eight parts. A task does not know its position in a list
    such as `--array=1,5,6`.

    Source:
        sbatch(1) of SLURM, "Output environment variables".
    """
    present = tuple(name for name in (*SLURM, SLURM_LAST, SLURM_STEP) if name in environment)
    values = {name: _number(environment, name, present) for name in present}
    missing = [name for name in SLURM if name not in values]
    if missing:
        raise _unknown_count(_describe(environment, present), missing[0])
    task, count, first = (values[name] for name in SLURM)
    step = values.get(SLURM_STEP, 1) or 1
    position, rest = divmod(task - first, step)
    last = values.get(SLURM_LAST, first + (count - 1) * step)
    if rest or not 0 <= position < count or last != first + (count - 1) * step:
        raise ConfigError(
            f"The task numbers of this array are irregular ({_describe(environment, present)}), so "
            "the part of this task is unknown.",
            code="irregular_array",
            hint="Submit a range such as --array=1-8, or specify the part: "
            f"--part $SLURM_ARRAY_TASK_ID/8. {ALL}",
        )
    return Part(position + 1, count, _describe(environment, present))


def _indexed_part(environment: Mapping[str, str], index: str, size: str) -> Part:
    """Return the part of a task whose number is counted from 0."""
    origin = _describe(environment, (index, size))
    if not environment.get(size):
        raise _unknown_count(_describe(environment, (index,)), size)
    number, count = (_number(environment, name, (index, size)) for name in (index, size))
    return Part(number + 1, count, origin)


def _number(environment: Mapping[str, str], name: str, shown: tuple[str, ...]) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise ConfigError(
            f"{name} is not a number ({_describe(environment, shown)}).",
            code="invalid_array_variables",
            hint=f"Correct the variable, or specify the part as in --part 3/8. {ALL}",
        ) from None


def _describe(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={environment.get(name, '')}" for name in names)


def _unknown_count(found: str, missing: str) -> ConfigError:
    return ConfigError(
        f"This is a task of an array job ({found}), but {missing} is not set.",
        code="array_size_unknown",
        hint=f"Set the environment variable {missing}, or specify the part as in --part 3/8. {ALL}",
    )
