"""Errors that a user can act on, with a message, a stable code and a hint."""

from __future__ import annotations

import errno
import importlib
import math
import re
import shlex
from pathlib import Path
from typing import Any, ClassVar


class UshapeError(Exception):
    """Base class of all errors that a user can act on.

    The command line prints them without a traceback and ends with exit code 2, or with 75 after a
    `TemporaryError`.

    Args:
        message: What is wrong, and where (file, case or key).
        code: Stable name of this kind of error in snake_case, for programs; by default that of
            the class.
        hint: What to do next; empty if nothing can be advised.
        continuation: How to continue afterwards, as the end of the hint; empty if nothing can be
            continued. A caller may replace it, since a trial cannot be continued by itself.
    """

    default_code: ClassVar[str] = "ushape_error"

    def __init__(self, message: str, *, code: str = "", hint: str = "", continuation: str = ""):
        super().__init__(message)
        self.message, self.advice, self.continuation = message, hint, continuation
        self.code = code or self.default_code

    @property
    def hint(self) -> str:
        """What to do next, and how to continue afterwards."""
        return " ".join(filter(None, (self.advice, self.continuation)))

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class DataError(UshapeError):
    """A file, a mask or a folder cannot be used for segmentation."""

    default_code = "data_error"


class ConfigError(UshapeError):
    """A setting is unknown or has an impossible value."""

    default_code = "config_error"


class PlanError(UshapeError):
    """The data, the network and the machine do not fit together."""

    default_code = "plan_error"


class RunError(UshapeError):
    """The run folder is missing, incomplete or damaged, or an output already exists."""

    default_code = "run_error"


class TemporaryError(RunError):
    """A server cannot be used now; the same command may succeed later.

    The command line ends with exit code 75 (EX_TEMPFAIL of sysexits.h), so that a scheduler can
    start it again.
    """

    default_code = "temporary_error"


class MissingPackageError(DataError, PlanError):
    """An optional package is not installed: a file cannot be read, or a backend cannot be used."""

    default_code = "missing_package"


def require_package(module: str, extra: str, purpose: str) -> Any:
    """Import an optional package.

    Args:
        module: Name of the module to import.
        extra: Extra of ushape that installs it.
        purpose: What needs the package, as the subject of a sentence ("Backend onnx").

    Raises:
        MissingPackageError: if the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingPackageError(
            f"{purpose} needs the package {module.partition('.')[0]}, which is not installed.",
            hint=f'Install it with: pip install "ushape[{extra}]"',
        ) from None


def check_range(
    name: str, value: float, low: float, high: float = math.inf, *, hint: str = "0 disables it."
) -> None:
    """Check that a setting is a number from `low` to `high`.

    Raises:
        ConfigError: if it is smaller, larger, infinite, or NaN.
    """
    if not (low <= value <= high and value < math.inf):
        limits = f"from {low} to {high}" if high < math.inf else f"at least {low}"
        limits += " and finite" if value == math.inf else ""
        raise ConfigError(
            f"{name} is {value}; it must be {limits}.", code="value_out_of_range", hint=hint
        )


MINIMUM_ADDRESS_BYTES = 1_500_000_000
"""Smallest limit of virtual memory that is accepted. PyTorch, SciPy and OpenCV map 0.8 GB when they
are loaded, and a small training 1.8 GB. With less, OpenBLAS may request memory in an endless loop
that no signal ends."""

NO_MEMORY = re.compile(
    "out of memory|can't allocate memory|cannot allocate memory|failed to map segment"
    "|can't start new thread",
    re.IGNORECASE,
)
"""Messages of allocators, of the loader of shared libraries, and of threads without a stack."""

LESS_MEMORY = (
    "Close other programs, or raise the limit: ulimit -v unlimited in a shell, or the memory of "
    "the job on a cluster."
)
"""Hint of errors about memory."""


MAIN_GUARD = (
    'In a Python script on macOS and Windows, write the call below `if __name__ == "__main__":`, '
    "because the processes import the script."
)
"""Part of the hint about processes that have ended: without it, they cannot start."""


def require_address_space() -> None:
    """Check that the limit of virtual memory allows the libraries to be loaded.

    Raises:
        UshapeError: if the limit is too low.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MINIMUM_ADDRESS_BYTES:
        raise UshapeError(
            f"The limit of virtual memory is {limit / 1e9:.1f} GB, but at least "
            f"{MINIMUM_ADDRESS_BYTES / 1e9:.1f} GB are needed.",
            code="memory_limit",
            hint=LESS_MEMORY,
        )


def _run_above(path: Any) -> str:
    """Return the run folder that contains a file, or RUN if there is none."""
    folders = Path(path).parents if isinstance(path, str | Path) else ()
    found = next((folder for folder in folders if (folder / "plan.json").is_file()), None)
    return "RUN" if found is None else shlex.quote(str(found))


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error was caused by a full disk or a used-up quota, maybe indirectly."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def explained(error: Exception) -> UshapeError | None:
    """Return the error with its cause and what to do, or None if it is of no known kind."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return UshapeError("There is not enough memory.", code="memory_exhausted", hint=LESS_MEMORY)
    if isinstance(error, OSError) and error.strerror is not None:
        place = f"{error.filename}: " if error.filename else ""
        hint = "Check the path, the free space and the permissions."
        if is_disk_full(error):
            hint = (
                "Free some space on this disk. An interrupted training run or evaluation "
                f"continues with `ushape resume {_run_above(error.filename)}`."
            )
        return UshapeError(f"{place}{error.strerror}.", code="system_error", hint=hint)
    return None


def plain_finding(message: str) -> str:
    """Return what pydantic found about a value, without its words for exceptions and values.

    A message such as "Value error, two cases have the same id" begins with the kind of the
    exception by which a check reported it; others begin with "Input should be".
    """
    text = re.sub(r"^(Value error|Assertion failed), ", "", message)
    return re.sub(r"^Input should", "it should", text)
