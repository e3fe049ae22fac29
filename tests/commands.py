"""Run `ushape ...` as a user does, in a process of its own that needs no time for its imports.

A server process imports torch once, and each command is a fork of it. Where processes cannot be
forked, each command imports torch, which takes some seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

import pytest

from ushape.errors import UshapeError

TIMEOUT_S = 1200


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Exit code."""

    output: str
    error: str
    error_code: str
    """`UshapeError.code` of the error that ended the command."""


def command_environment() -> dict[str, str]:
    """Return the environment of a command: one thread, because the tests run in parallel."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def start_command(
    arguments: list[str], output: Path, error: Path, cwd: Path | None = None
) -> BaseProcess:
    """Start `ushape ARGUMENTS`; its output goes to two files."""
    os.environ.update(command_environment())  # The server inherits it when it starts.
    can_fork = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if can_fork else "spawn")
    if can_fork:
        context.set_forkserver_preload(
            ["ushape.api.train", "ushape.api.predict", "ushape.training.trainer"]
        )
    process = context.Process(
        target=_be_the_command, args=(arguments, cwd or Path.cwd(), output, error)
    )
    process.start()
    return process


def run_command(arguments: list[str], cwd: Path | None) -> Outcome:
    """Run `ushape ARGUMENTS` and wait for it."""
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder, "output"), Path(folder, "error")
        process = start_command(arguments, output, error, cwd)
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"ushape {' '.join(arguments)} did not end within {TIMEOUT_S} s")
        name = _code_path(error)
        error_code = name.read_text() if name.exists() else ""
        return Outcome(process.exitcode, output.read_text(), error.read_text(), error_code)


def _be_the_command(arguments: list[str], cwd: Path, output: Path, error: Path) -> None:
    os.chdir(cwd)
    for number, path in ((1, output), (2, error)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    sys.argv = ["ushape", *arguments]
    from ushape import cli

    print_error = cli.print_error

    def store_code(failure: UshapeError) -> NoReturn:
        _code_path(error).write_text(failure.code)
        print_error(failure)

    cli.print_error = store_code
    cli.main()


def _code_path(error: Path) -> Path:
    return error.with_suffix(".code")


def wait_for(
    is_reached: Callable[[], bool], process: subprocess.Popen[str], limit_s: float = 120
) -> None:
    """Wait until a condition holds; the test fails if the process ends before."""
    deadline = time.monotonic() + limit_s
    while not is_reached():
        if process.poll() is not None and not is_reached():
            assert process.stdout is not None
            pytest.fail(f"ended too early:\n{process.stdout.read()}")
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
