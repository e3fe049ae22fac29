"""Entry point of the command and of `python -m ushape`."""

import os
import signal
import sys
import time
from collections.abc import MutableMapping
from types import FrameType

from ushape.interrupts import REPEAT, Terminated

_received: list[int] = []
"""Signals that asked the command to end; typer replaces the exception that they raise."""

SPIN_COUNT = 10_000
"""How long threads of GNU OpenMP spin before they sleep. Without other programs, this costs up to
3%; if other programs use the processor, it is up to 9 times as fast as the default."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Limit the time that OpenMP threads spin, unless the user has set how they wait.

    It has no effect once PyTorch is loaded.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))


def main() -> None:
    """Run the command line.

    Ctrl-C ends it with exit code 130, SIGTERM with 143 and SIGHUP with 129, also while modules are
    loaded.
    """
    started_s = time.monotonic()
    # A shell may start background jobs with Ctrl-C ignored, which the processes that train
    # cross-validation folds would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # nohup starts commands with SIGHUP ignored, so that they outlive the terminal.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # A name may have letters that the terminal lacks.
            stream.reconfigure(errors="backslashreplace")
    limit_spinning()
    try:
        from ushape import cli
        from ushape.console import command_started, outlive_terminal

        outlive_terminal()
        with command_started(started_s):
            cli.main()
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _exit_stopped(interrupt)
    except BrokenPipeError:
        _exit_broken_pipe()
    except SystemExit as ended:
        if ended.code == 130 or _received:  # Typer has caught the interrupt.
            _exit_stopped(ended)
        if isinstance(ended.__context__, BrokenPipeError):
            _exit_broken_pipe()
        raise


def _terminate(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise Terminated(number)


def _exit_stopped(error: BaseException | None) -> None:
    name = f" by {signal.Signals(_received[0]).name}" if _received else ""
    while error is not None and not getattr(error, "__notes__", None):
        error = error.__cause__ or error.__context__
    hint = " ".join(getattr(error, "__notes__", [REPEAT]))
    print(f"\nStopped{name}. {hint}", file=sys.stderr)
    sys.exit(128 + _received[0] if _received else 130)


def _exit_broken_pipe() -> None:
    """End like a command that SIGPIPE has killed: the reader of the output needs no more of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)


if __name__ == "__main__":
    main()
