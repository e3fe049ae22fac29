"""Kill commands at random moments, repeat them, and compare with an uninterrupted command.

Each command runs once without interruption. Then it is killed with SIGKILL, together with its
processes, at a random moment of that time, and repeated until it ends (a training is continued with
`ushape resume`). Every output must have the same bytes as without the kill.

    OMP_NUM_THREADS=1 nice python benchmarks/faults/kills.py --times 20
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from commands import TINY, Commands, Limits, RefusedError, WrongResultError, kill_tree, shorten

TRAINING = (*TINY, "--epochs", "3", "--set", "sampling.patch_shape=[32,32]")
RESULTS = ("model.safetensors", "decision.json", "splits.json", "scores.csv")


@dataclass(frozen=True)
class Job:
    """A command that is killed."""

    arguments: Callable[[Path], list[str | Path]]
    """Function of the output that returns the arguments."""

    outputs: tuple[str, ...]
    """Patterns of the files below the output that are compared."""


def jobs(place: Path) -> dict[str, Job]:
    """Return the commands by name, for inputs that `prepare` has made."""
    data, run = place / "data", place / "trained"
    many = place / "many"
    return {
        "training": Job(lambda out: ["train", data, "-o", out, *TRAINING], RESULTS),
        "prediction": Job(lambda out: ["predict", run, many / "images", "-o", out], ("*.png",)),
        "folds": Job(
            lambda out: ["cross-validate", data, "--folds", "2", "-o", out, *TRAINING],
            tuple(f"fold-*/{name}" for name in RESULTS),
        ),
        "learning curve": Job(
            lambda out: ["learning-curve", data, "--points", "3", "-o", out, *TRAINING],
            tuple(f"groups-*/{name}" for name in RESULTS),
        ),
        "check --fix": Job(
            lambda out: ["check", many, "--fix", out, "-o", place / "check"], ("**/*",)
        ),
        "fetch": Job(
            lambda out: ["fetch", "isbi2012", "--from", place / "source.zip", "--to", out],
            ("**/*",),
        ),
    }


def prepare(commands: Commands) -> None:
    """Make the inputs of all commands."""
    place = commands.folder
    commands.run("example", place / "data", "--count", "12")
    commands.run("example", place / "many", "--count", "100")
    commands.run("train", place / "data", "-o", place / "trained", *TRAINING)
    with zipfile.ZipFile(place / "source.zip", "w") as archive:
        for part, name in (("images", "image"), ("masks", "label")):
            for path in sorted((place / "many" / part).iterdir()):
                archive.write(path, f"train/{name}/{path.name}")


def main() -> None:
    """Kill each command several times, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commands", nargs="*", help="Names of commands; all by default.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills_") as place:
        commands = Commands(Path(place), Limits(cpu_s=600, wall_s=1200))
        prepare(commands)
        print("| command | kills | finished before | equal | problems |\n|---|---|---|---|---|")
        wrong = 0
        for name, job in jobs(Path(place)).items():
            if given.commands and name not in given.commands:
                continue
            problems, finished = try_kills(commands, name, job, given.times, given.seed)
            wrong += len(problems)
            right = given.times - len(problems)
            shown = shorten("; ".join(problems[:3]) or "none", 300)
            print(f"| {name} | {given.times} | {finished} | {right} | {shown} |", flush=True)
    sys.exit(wrong)


def try_kills(
    commands: Commands, name: str, job: Job, times: int, seed: int
) -> tuple[list[str], int]:
    """Return the problems, and how many commands ended before they were killed."""
    expected_folder = commands.folder / "expected"
    shutil.rmtree(expected_folder, ignore_errors=True)
    started = time.monotonic()
    commands.run(*job.arguments(expected_folder))
    duration = time.monotonic() - started
    expected = digests(expected_folder, job)
    problems, finished = [], 0
    for number in range(times):
        out = commands.folder / f"out{number}"
        moment = random.Random(f"{seed}-{name}-{number}").uniform(0.05, 1) * duration
        finished += not killed_after(commands, job.arguments(out), moment)
        try:
            repeat(commands, name, job, out)
        except (RefusedError, WrongResultError) as error:
            problems.append(f"killed after {moment:.1f} s: {error}")
        else:
            found = digests(out, job)
            differing = sorted(
                path for path in expected | found if expected.get(path) != found.get(path)
            )
            if differing:
                problems.append(f"killed after {moment:.1f} s: {', '.join(differing[:3])} differ")
        problems += [f"left over: {path}" for path in left_over(out)]
        shutil.rmtree(out, ignore_errors=True)
    return problems, finished


def killed_after(commands: Commands, arguments: list[str | Path], seconds: float) -> bool:
    """Start a command and kill it with its processes; return whether it was still running."""
    process = commands.start(*arguments)
    try:
        process.communicate(timeout=seconds)
    except Exception:
        kill_tree(psutil.Process(process.pid))
        process.communicate()
        return True
    return False


def repeat(commands: Commands, name: str, job: Job, out: Path) -> None:
    """Repeat a command that was killed, as its messages advise."""
    if name == "training" and (out / "plan.json").exists():
        commands.run("resume", out)
    elif name == "check --fix" and out.exists():
        return  # The copy was written before the kill.
    else:
        commands.run(*job.arguments(out))


def digests(folder: Path, job: Job) -> dict[str, str]:
    """Return the checksum of each output by its path."""
    paths = (path for pattern in job.outputs for path in folder.glob(pattern) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def left_over(folder: Path) -> Iterator[str]:
    """Yield unfinished and lock files that nobody removed."""
    for path in folder.rglob(".*"):
        if path.name.endswith((".part", ".lock", ".partial")):
            yield path.name


if __name__ == "__main__":
    main()
