"""Shared by all tests: the command as a user runs it, and a small data set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str
    error: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def ushape() -> Command:
    """Runs `ushape ...` in a process of its own, one thread, and returns how it ended."""

    def run(*arguments: object, cwd: Path | None = None) -> Outcome:
        ended = subprocess.run(
            [sys.executable, "-m", "ushape", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=command_environment(),
            timeout=240,
            check=False,
        )
        return Outcome(ended.returncode, ended.stdout, ended.stderr)

    return run


def command_environment() -> dict[str, str]:
    """One thread: the tests run side by side, and sums come out in one order."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
