"""Shared by all tests: the command as a user runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from commands import Outcome, run_command

# The same examples each time, however slow the machine: what fails here fails for everybody.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def ushape() -> Command:
    """Runs `ushape ...` in a process of its own, one thread, and returns how it ended."""

    def run(*arguments: object, cwd: Path | None = None) -> Outcome:
        return run_command([str(argument) for argument in arguments], cwd)

    return run
