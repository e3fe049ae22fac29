"""Predict in parts by processes that are killed again and again, and compare with one process.

python benchmarks/scale/parts.py RUN IMAGES --parts 4 --kills 5 -- --table --rle {folder}.csv.gz

Each part runs as `ushape predict RUN IMAGES -o OUT --part i/N` and is killed by SIGKILL at random
moments, a third of them anywhere after the start of the process, the others after its first image.
It is started again until it has been killed as often as stated, and then once more. Two more
processes do work that others do, too: part 1/N a second time, and part 1/(N - 1). At the end, one
plain call gathers the results. The outputs must be those of a single process that ran before: every
file, byte for byte. Options after -- are passed to all calls; {folder} is the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ushape.inference.output.manifest import MANIFEST_FILE, PARTS_FOLDER


@dataclass
class Task:
    """A part that is killed and started again."""

    command: list[str]
    part: str
    folder: Path
    kills: int
    seed: int
    span_s: float
    killed: int = 0
    killed_at_work: int = 0
    codes: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Run the part until it ends by itself after all kills."""
        rng = random.Random(self.seed)
        while self.killed < self.kills:
            before = set(self._logs())
            process = self._start()
            if rng.random() > 1 / 3:
                while process.poll() is None and not set(self._logs()) - before:
                    time.sleep(0.005)
            with_pause = rng.uniform(0, self.span_s)
            try:
                self.codes.append(process.wait(with_pause))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.killed += 1
                self.killed_at_work += bool(set(self._logs()) - before)
            if not process.returncode:  # Nothing is left, so only the start can be killed.
                self.span_s = min(self.span_s, 3.0)
        self.codes.append(self._start().wait())

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            command = [*self.command, "--part", self.part]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _logs(self) -> list[Path]:
        name = self.part.replace("/", "-of-")
        return list((self.folder / PARTS_FOLDER).glob(f"{name}.*.jsonl"))


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files, without the logs and locks."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if "/." not in f"/{name}"}


def leftovers_of(folder: Path) -> list[str]:
    """Return hidden files apart from the log of the folder."""
    hidden = (path.relative_to(folder).as_posix() for path in folder.rglob(".*"))
    return sorted(name for name in hidden if name != MANIFEST_FILE)


def finished_twice(folder: Path) -> list[str]:
    """Return the images with several final lines in the merged log."""
    lines = map(json.loads, (folder / MANIFEST_FILE).read_bytes().splitlines()[1:])
    counts = Counter(line["image"] for line in lines if "files" in line)
    return [name for name, count in counts.items() if count > 1]


def main() -> int:
    """Run the comparison; the exit status is 1 if the results differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--kills", type=int, default=5, help="for each process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the outputs, which are kept")
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, passed = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = options.keep or Path(tempfile.mkdtemp(prefix="ushape-parts-"))
    work.mkdir(parents=True, exist_ok=True)

    def command(folder: Path) -> list[str]:
        extra = [one.replace("{folder}", str(folder)) for one in passed]
        start = [sys.executable, "-m", "ushape", "predict", str(options.run), str(options.images)]
        return [*start, "-o", str(folder), *extra]

    single, shared = work / "single", work / "parts"
    begin = time.monotonic()
    subprocess.run(command(single), check=True)
    alone_s = time.monotonic() - begin
    count = options.parts
    names = [*(f"{number}/{count}" for number in range(1, count + 1)), f"1/{count}"]
    names += [f"1/{count - 1}"] if count > 2 else []
    tasks = [
        Task(command(shared), name, shared, options.kills, options.seed + number, alone_s / 4)
        for number, name in enumerate(names)
    ]
    threads = [threading.Thread(target=task.run) for task in tasks]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parts_s = time.monotonic() - begin
    gathered = subprocess.run(command(shared), check=False).returncode

    for task in tasks:
        print(
            f"part {task.part}: killed {task.killed} times ({task.killed_at_work} of them between "
            f"outputs or in one), exit statuses {sorted(Counter(task.codes).items())}"
        )
    expected, found = contents_of(single), contents_of(shared)
    different = [name for name in expected if name in found and found[name] != expected[name]]
    problems = {
        "files missing": sorted(expected.keys() - found.keys()),
        "files too many": sorted(found.keys() - expected.keys()),
        "files that differ": different,
        "images finished twice in the log": finished_twice(shared),
        "files left over": leftovers_of(shared),
    }
    beside = [path for path in work.glob("single*") if path.suffix in (".gz", ".csv")]
    for path in beside:
        other = path.with_name(path.name.replace("single", "parts"))
        if not other.exists() or other.read_bytes() != path.read_bytes():
            problems.setdefault("submissions that differ", []).append(other.name)
    codes = [code for task in tasks for code in task.codes if code]
    print(f"one process {alone_s:.0f} s; {len(tasks)} killed processes {parts_s:.0f} s")
    print(f"{len(expected)} files, {sum(map(len, expected.values()))} bytes; exit {gathered}")
    for name, listed in problems.items():
        print(f"{name}: {len(listed)} {listed[:5] if listed else ''}")
    if options.keep is None:
        shutil.rmtree(work)
    return int(any(problems.values()) or bool(codes) or gathered != 0)


if __name__ == "__main__":
    sys.exit(main())
