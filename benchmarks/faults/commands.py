"""Run the public commands of ushape under limits, and read what they report.

Nothing of ushape is imported here: a command is a process, and what counts is its exit code, its
output and the files that it leaves.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

SOURCE = Path(__file__).parents[2] / "src"
TINY = (
    "--epochs", "1", "--device", "cpu", "--set", "network.widths=[4,8]",
    "--set", "train.steps_per_epoch=2",
)  # fmt: skip
"""Options of a training that ends after a few seconds."""

GIBIBYTE = 2**30


class WrongResultError(Exception):
    """A command did something other than what is right; the message says what."""


class RefusedError(Exception):
    """A command ended with exit code 2, which is right if its message names the cause."""

    def __init__(self, command: str, text: str):
        super().__init__(text)
        self.command = command
        self.text = text

    @property
    def explanation(self) -> str:
        """The message and the hint without the indented listing of what lies in the folder."""
        return "\n".join(line for line in self.text.splitlines() if not line.startswith("  "))

    @property
    def first_line(self) -> str:
        """The message's first line."""
        line = self.explanation.partition("\n")[0] or "no message"
        return line.removesuffix(" Seen:")


@dataclass(frozen=True)
class Limits:
    """What one command may use."""

    cpu_s: float = 60.0
    """Seconds of processor time of the process and its children."""

    wall_s: float = 60.0
    memory_bytes: int = 2 * GIBIBYTE
    """Memory of the process and its children; pages that they share are counted once."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str
    """Standard output."""

    errors: str
    """Standard error."""

    peak_bytes: int
    cpu_s: float
    wall_s: float


@dataclass
class Commands:
    """Runs commands of ushape in a folder, and holds each to the limits.

    A command that ends in a traceback, is killed for a limit or has an exit code other than 0, 1
    and 2 raises WrongResultError. Exit code 2 raises RefusedError.
    """

    folder: Path
    limits: Limits = Limits()
    environment: dict[str, str] = field(default_factory=dict)
    training: str = ""
    """What the last training printed."""

    def run(self, *arguments: str | Path) -> Outcome:
        """Run `ushape ARGUMENTS` to its end."""
        name = f"ushape {arguments[0]}"
        outcome = self._watch(name, arguments)
        text = outcome.errors + outcome.output
        if "Traceback (most recent call last)" in text:
            raise WrongResultError(f"{name}: traceback, {_last_line(text)}")
        if outcome.code == 2:
            raise RefusedError(name, _message_in(outcome.errors))
        if outcome.code not in (0, 1):
            raise WrongResultError(f"{name}: exit code {outcome.code}, {_last_line(text)}")
        return outcome

    def check(self, data: Path, *options: str | Path) -> Report:
        """Run `ushape check DATA --json`."""
        outcome = self.run("check", data, "--json", "-o", self.folder / "check", *options)
        try:
            return Report(outcome.code, json.loads(outcome.output))
        except ValueError:
            raise WrongResultError("ushape check: standard output is not JSON") from None

    def train(self, data: Path, *options: str | Path, run: str = "run", dims: int = 2) -> Outcome:
        """Train a tiny network for one epoch."""
        patch = "[32,32]" if dims == 2 else "[8,32,32]"
        shape = ("--set", f"sampling.patch_shape={patch}")
        outcome = self.run("train", data, "-o", self.folder / run, *TINY, *shape, *options)
        self.training = outcome.output + outcome.errors
        return outcome

    def predict(self, images: Path, *options: str | Path, output: str = "predictions") -> Path:
        """Predict with the run that `train` wrote; returns the folder of the masks."""
        target = self.folder / output
        run = self.folder / "run"
        self.run("predict", run, images, "-o", target, "--device", "cpu", *options)
        return target

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command whose standard output and error are read by the caller."""
        return subprocess.Popen(
            _command(arguments),
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        )

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(SOURCE), "COLUMNS": "300"} | self.environment

    def _watch(self, name: str, arguments: Sequence[str | Path]) -> Outcome:
        """Run a command and measure the memory and the time of its process tree."""
        start = time.monotonic()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = psutil.Popen(
                _command(arguments),
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
            peak, cpu, excess = 0, 0.0, ""
            while process.poll() is None:
                memory, now = measure_tree(process, self.limits.memory_bytes)
                peak, cpu = max(peak, memory), max(cpu, now)
                excess = self._excess(peak, cpu, time.monotonic() - start)
                if excess:
                    kill_tree(process)
                    break
                time.sleep(0.1)
            code = process.wait()
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "backslashreplace"))
        if excess:
            raise WrongResultError(f"{name}: killed after {excess}")
        return Outcome(code, *texts, peak, cpu, time.monotonic() - start)

    def _excess(self, peak: int, cpu: float, wall: float) -> str:
        """The limit that is exceeded, in words; empty if none is."""
        if peak > self.limits.memory_bytes:
            return f"it took {peak / GIBIBYTE:.1f} GiB"
        if cpu > self.limits.cpu_s:
            return f"{cpu:.0f} s of processor time"
        return f"{wall:.0f} s" if wall > self.limits.wall_s else ""


@dataclass(frozen=True)
class Report:
    """What `ushape check --json` prints.

    Facts that the JSON does not offer as values yet are taken from its sentences in one place, so
    that nothing else depends on their wording. It should offer:

    - `groups`: an object with the group of each case, the group's kind, and whether it was stated
      or inferred (here: `group_count`, `group_of`).
    """

    code: int
    values: dict[str, Any]

    @property
    def pairs(self) -> int:
        return int(self.values["pairs"])

    @property
    def cases(self) -> list[str]:
        """Case ids that the split names."""
        split = self.values["split"] or {}
        return sorted(case for part in split.values() for case in part)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Findings with which training stops."""
        return [one for one in self.values["findings"] if one["severity"] == "error"]

    @property
    def text(self) -> str:
        """All facts and findings as text, for facts that only a sentence states."""
        findings = [f"{one['text']} {one['fix']}" for one in self.values["findings"]]
        return "\n".join([*self.values["facts"], *findings])

    @property
    def warnings_text(self) -> str:
        """Text of the findings that are at least a warning."""
        severe = (one for one in self.values["findings"] if one["severity"] != "note")
        return "\n".join(f"{one['text']} {one['fix']}" for one in severe)

    @property
    def classes(self) -> dict[str, str]:
        """Name of each class by its mask value or color, background first; empty if unknown."""
        return {str(one["value"]): str(one["name"]) for one in self.values["classes"] or ()}

    @property
    def foreground_share(self) -> float:
        """Share of all pixels that belong to any class except the background."""
        return sum(float(one["share"]) for one in (self.values["classes"] or ())[1:])

    @property
    def masks(self) -> int:
        """Number of mask files in use."""
        return int(self.values["masks"])

    @property
    def group_count(self) -> int:
        """Number of groups that are never split."""
        if self.group_of is not None:
            return len(set(self.group_of.values()))
        line = self._fact("Groups")
        match = (
            re.search(r"; (\d+) remain after merging", line)
            or re.match(r"(\d+), ", line)
            or re.search(r"divided into (\d+) ", line)
        )
        return int(match[1]) if match else self.pairs

    @property
    def group_of(self) -> dict[str, str] | None:
        """Group of each case; None where the JSON does not offer it."""
        groups = self.values.get("groups")
        if not isinstance(groups, dict):
            return None
        groups = groups.get("of_case", groups)
        return {str(case): str(group) for case, group in groups.items()}

    @property
    def parts(self) -> dict[str, list[str]]:
        """Cases of train, validation and test; empty where no split is possible."""
        return dict(self.values["split"] or {})

    def require_no_errors(self) -> None:
        """Raise WrongResultError with the first finding that stops a training."""
        if self.errors:
            first = self.errors[0]
            raise WrongResultError(f"check: {first['check']}: {first['text'].splitlines()[0]}")

    def _fact(self, key: str) -> str:
        lines = (fact.partition(": ") for fact in self.values["facts"])
        return next((text for name, _, text in lines if name == key), "")


def measure_tree(process: psutil.Process, exact_from: int) -> tuple[int, float]:
    """Return the bytes and the seconds of processor time of a process and its children.

    Args:
        exact_from: The sum of the resident sets counts shared pages repeatedly. Only where it
            exceeds this number of bytes, the proportional sets are summed, which takes longer.
    """
    try:
        members = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0, 0.0
    resident, seconds = 0, 0.0
    for member in members:
        try:
            resident += member.memory_info().rss
            times = member.cpu_times()
            seconds += times.user + times.system
        except psutil.Error:
            continue
    if resident <= exact_from:
        return resident, seconds
    exact = 0
    for member in members:
        try:
            exact += member.memory_full_info().pss
        except psutil.Error:
            continue
    return exact, seconds


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and all of its children."""
    try:
        members = [*process.children(recursive=True), process]
    except psutil.Error:
        members = [process]
    for member in members:
        try:
            member.kill()
        except psutil.Error:
            continue


def shorten(text: str, most: int = 160) -> str:
    """Return the text on one line, cut to a length, without what breaks a Markdown table."""
    line = " ".join(text.split()).replace("|", "/")
    return line if len(line) <= most else line[: most - 3] + "..."


def _command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "ushape", *(str(argument) for argument in arguments)]


def _message_in(errors: str) -> str:
    """The part of standard error from the line that begins with "Error:"."""
    lines = errors.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("Error:")), 0)
    return "\n".join(lines[start:]).removeprefix("Error: ")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return shorten(lines[-1]) if lines else "no output"
