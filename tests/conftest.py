"""Shared by all tests: the command as a user runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from commands import Outcome, run_command

# Before PyTorch is imported: otherwise, trainings of the same seed could use different numbers of
# threads, because the tests that run beside them use some of the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples each time, however slow the machine: what fails here fails for everybody.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

STORIES = Path(__file__).parent / "stories"
SLOW_TIMEOUT_S = 1500
"""Limit of one slow test: generous, since a busy machine is no failure."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole-command tests as slow, and give slow tests more time."""
    for item in items:
        if STORIES in item.path.parents:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


Command = Callable[..., Outcome]

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="Rewrite the files in tests/golden."
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a file in tests/golden, or rewrite the file with --update-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), "Run pytest --update-golden to accept."

    return compare


@pytest.fixture(scope="session")
def ushape() -> Command:
    """Runs `ushape ...` in a process of its own, one thread, and returns how it ended."""

    def run(*arguments: object, cwd: Path | None = None) -> Outcome:
        return run_command([str(argument) for argument in arguments], cwd)

    return run
