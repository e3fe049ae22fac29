"""Send signals to commands, fill their disk, and start two of a kind at once.

For each command and signal: the exit code must be 128 plus the signal, the last line must say
how to continue, no traceback may be shown, and the repeated command must succeed. Exceptions:
the first Ctrl-C during training ends it early, with scores and exit code 0; and a command that is
stopped for 35 s and continued must end as if nothing had happened.

A signal counts only if it reached the command: if the command has ended before, it is repeated with
an earlier signal, and is judged wrong if that does not help either.

The full disk is a limit on the size of files (RLIMIT_FSIZE), with which writing fails in the same
way.

    OMP_NUM_THREADS=1 nice python benchmarks/faults/signals.py
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kills import Job, digests, jobs, prepare

from commands import Commands, Limits, RefusedError, WrongResultError, shorten

ENDS = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}
"""Exit code after each signal."""

FAULTS = (*ENDS, "SIGSTOP", "full disk", "two at once")

MOMENTS = (0.6, 0.35, 0.2, 0.12, 0.07)
"""Moments of a signal, as shares of the duration; the next one is tried if the command has
ended before the signal."""

TRAININGS = ("training", "folds", "learning curve")
"""Commands that the first Ctrl-C may end early with exit code 0."""

FULL_DISK_BYTES = {"training": 20_000, "prediction": 300, "check --fix": 1000, "fetch": 1000}
"""Size of a file above which writing fails."""


def main() -> None:
    """Try every command with every signal, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commands", nargs="*", help="Names of commands; all by default.")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--stopped", type=float, default=35.0, help="Seconds of SIGSTOP.")
    given = parser.parse_args()
    for name in ENDS:  # nohup and background jobs ignore signals, which the commands would inherit.
        signal.signal(getattr(signal, name), signal.default_int_handler)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="signals_") as place:
        commands = Commands(Path(place), Limits(cpu_s=600, wall_s=1200))
        prepare(commands)
        print(
            "| command | fault | exit code | message | right |\n|---|---|---|---|---|", flush=True
        )
        for name, job in jobs(Path(place)).items():
            if given.commands and name not in given.commands:
                continue
            for fault, code, message, problem in try_faults(
                commands, name, job, given.faults, given.stopped
            ):
                wrong += bool(problem)
                answer = f"no: {problem}" if problem else "yes"
                shown = shorten(message, 200)
                print(f"| {name} | {fault} | {code} | {shown} | {answer} |", flush=True)
    sys.exit(wrong)


def try_faults(
    commands: Commands, name: str, job: Job, faults: Sequence[str], stopped_s: float
) -> Iterator[tuple[str, int, str, str]]:
    """Yield each fault with the exit code, the last line, and what is wrong with them."""
    expected = commands.folder / "expected"
    shutil.rmtree(expected, ignore_errors=True)
    started = time.monotonic()
    commands.run(*job.arguments(expected))
    duration = time.monotonic() - started
    right = digests(expected, job)
    for fault in faults:
        out = commands.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        if fault == "SIGSTOP":
            code, text, problem = stop_and_continue(commands, job, out, duration, stopped_s)
            if not problem and (code != 0 or digests(out, job) != right):
                problem = "another result"
        elif fault == "full disk":
            code, text = on_full_disk(commands, name, job, out)
            problem = judge_refusal(code, text)
        elif fault == "two at once":
            code, text, problem = two_at_once(commands, job, out, right)
        else:
            code, text = send(commands, job, out, getattr(signal, fault), duration)
            problem = judge_end(name, fault, code, text)
        if not problem and fault != "two at once":
            problem = repeat(commands, name, job, out, right, fault)
        yield fault, code, last_line(text), problem


def send(
    commands: Commands, job: Job, out: Path, number: int, duration_s: float
) -> tuple[int, str]:
    """Start a command, send a signal to it, and return its exit code and output."""
    for moment in MOMENTS:
        shutil.rmtree(out, ignore_errors=True)
        process = commands.start(*job.arguments(out))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment * duration_s)
        process.send_signal(number)  # Does nothing if the command has ended.
        text, _ = process.communicate()
        if process.returncode > 0 or "Stopped" in text:
            break  # Otherwise it had ended, or had only its exit left.
    return process.returncode, text


def stop_and_continue(
    commands: Commands, job: Job, out: Path, duration_s: float, stopped_s: float
) -> tuple[int, str, str]:
    """Stop a command for some time, and let it continue."""
    for moment in MOMENTS:
        shutil.rmtree(out, ignore_errors=True)
        process = commands.start(*job.arguments(out))
        try:
            process.wait(moment * duration_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGSTOP)
            time.sleep(stopped_s)
            process.send_signal(signal.SIGCONT)
            text, _ = process.communicate()
            return process.returncode, text, ""
        text, _ = process.communicate()
    return process.returncode, text, "it ended before the signal"


def on_full_disk(commands: Commands, name: str, job: Job, out: Path) -> tuple[int, str]:
    """Run a command that cannot write large files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = FULL_DISK_BYTES.get(name, FULL_DISK_BYTES["training"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        process = commands.start(*job.arguments(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    text, _ = process.communicate()
    return process.returncode, text


def two_at_once(
    commands: Commands, job: Job, out: Path, right: dict[str, str]
) -> tuple[int, str, str]:
    """Start a command twice; one must end well, and the other one too or with a refusal."""
    processes = [commands.start(*job.arguments(out)) for _ in range(2)]
    texts = [process.communicate()[0] for process in processes]
    codes = [process.returncode for process in processes]
    problem = ""
    if sorted(codes) not in ([0, 0], [0, 2]):
        problem = f"exit codes {codes}"
    elif any("Traceback" in text for text in texts):
        problem = "traceback"
    elif digests(out, job) != right:
        problem = "another result"
    loser = texts[codes.index(max(codes))]
    return max(codes), loser, problem


def judge_end(name: str, fault: str, code: int, text: str) -> str:
    """Return what is wrong with the end of a command after a signal; '' if nothing is."""
    if "Traceback" in text:
        return "traceback"
    if code == 0 and "Stopped" not in text:
        return "it ended before the signal, or ignored it"
    if code == 0 and fault == "SIGINT" and name in TRAININGS:
        return ""
    if code != ENDS[fault]:
        return f"exit code {code} instead of {ENDS[fault]}"
    return "" if "Stopped" in text else "no message"


def judge_refusal(code: int, text: str) -> str:
    """Return what is wrong with the error for a full disk; '' if nothing is."""
    if "Traceback" in text:
        return "traceback"
    if code != 2 or "Error: " not in text:
        return f"exit code {code}"
    return "a temporary file is named" if ".part" in text else ""


def repeat(
    commands: Commands, name: str, job: Job, out: Path, right: dict[str, str], fault: str
) -> str:
    """Repeat a command after a fault; return what is wrong, '' if nothing is."""
    ended_early = fault == "SIGINT" and name in TRAININGS
    if name == "check --fix" and out.exists():
        return "" if digests(out, job) == right else "another result"
    is_run = name == "training" and (out / "plan.json").exists()
    try:
        commands.run(*(["resume", out] if is_run else job.arguments(out)))
    except (RefusedError, WrongResultError) as error:
        return f"repeated: {error}"
    return "" if ended_early or digests(out, job) == right else "another result after repetition"


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


if __name__ == "__main__":
    main()
