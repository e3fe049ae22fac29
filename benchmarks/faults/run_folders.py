"""Edit the folder of a trained run at random, and use it.

A tiny network is trained once. Each edit is applied to a copy of its folder, and a process of its
own then loads it, predicts, evaluates, resumes or reports. What happens is judged:

- refused: an error of ushape, with a message. Always right.
- same: the result is that of the folder that was not edited.
- as stated: the result differs because a valid value was changed, and the checksum of the file was
  removed before, as someone does who edits a file on purpose.
- wrong: an exception of another kind, a different result although nobody removed the checksum, a
  mask with values that are no classes, or more than 60 s or 2 GB.

    OMP_NUM_THREADS=1 nice python benchmarks/faults/run_folders.py --edits 500
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from commands import GIBIBYTE, SOURCE, TINY, Commands, Limits, kill_tree, measure_tree, shorten

USES = ("load", "predict", "evaluate", "resume", "report")
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 0.3, 1e9, 1e308, float("nan"), float("inf"), 2**63, 100_000, "", "x",
    "auto", "../../../etc/passwd", "\x00", [], {}, [1], [0, 0], [1] * 1000, [[[]]], "a" * 5000,
)  # fmt: skip
"""Values that take the place of others in JSON files."""

DURATIONS = {"epochs", "steps_per_epoch", "minutes", "accumulate_grad_batches", "batch_size"}
"""Settings that may make a training as long as they state."""


@dataclass(frozen=True)
class Edit:
    """A change of a run folder."""

    file: str
    what: str
    keeps_checksum: bool = True
    keys: tuple[str, ...] = ()
    """Keys of the changed JSON value."""


@dataclass(frozen=True)
class Outcome:
    """What a use of an edited folder led to."""

    kind: str
    """refused, done, failed, or killed."""

    text: str = ""
    result: Any = None
    seconds: float = 0.0
    peak_bytes: int = 0


def main() -> None:
    """Try random edits, and print a table of what happened."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="Number of the one edit to try.")
    parser.add_argument("--elapsed", type=float, default=60.0, help="Seconds that a use may take.")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(SOURCE))
    limits = Limits(wall_s=given.elapsed)
    with tempfile.TemporaryDirectory(prefix="run_folders_") as place:
        sys.exit(try_edits(Path(place), given.edits, given.seed, given.only, limits))


def try_edits(place: Path, edits: int, seed: int, only: int | None, limits: Limits) -> int:
    """Return how many edits do not end right."""
    run, images = train(place)
    load_everything()
    right = {}
    copy = place / "edited"
    for use in USES:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        right[use] = watch(lambda use=use: apply(use, copy, images, place), limits)
        assert right[use].kind == "done", f"{use}: {right[use].text}"
    counts: Counter[str] = Counter()
    print("| edit | file | what | use | outcome | right |\n|---|---|---|---|---|---|", flush=True)
    for number in [only] if only is not None else range(edits):
        rng = random.Random(f"{seed}-{number}")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        edit, use = edit_at_random(copy, rng), USES[number % len(USES)]
        outcome = watch(lambda use=use, copy=copy: apply(use, copy, images, place), limits)
        verdict, text = judge(edit, use, outcome, right[use])
        counts[verdict] += 1
        if sys.stderr.isatty() or number % 50 == 49:
            print(f"{number + 1} edits: {dict(counts)}", file=sys.stderr, flush=True)
        if verdict == "wrong" or only is not None:
            cells = (number, edit.file, edit.what, use, text)
            row = " | ".join(shorten(str(cell), 300) for cell in cells)
            print(f"| {row} | {'no' if verdict == 'wrong' else 'yes'} |", flush=True)
            if outcome.kind == "failed":
                print(outcome.text, file=sys.stderr)
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"\n{sum(counts.values())} edits: {listed}.")
    return counts["wrong"]


def train(place: Path) -> tuple[Path, Path]:
    """Train a tiny network, and interrupt it after an epoch so that it can be resumed."""
    commands = Commands(place, Limits(cpu_s=600, wall_s=600))
    commands.run("example", place / "data", "--count", "12")
    options = ["--set", "sampling.patch_shape=[32,32]", "-o", place / "run"]
    commands.run("train", place / "data", *TINY, "--epochs", "2", *options)
    (place / "run" / "checkpoints" / "ended").unlink()  # As if it had been killed after its end.
    return place / "run", place / "data" / "images"


def load_everything() -> None:
    """Import what the uses need, so that processes can be forked from this one."""
    import torch

    import ushape

    torch.set_num_threads(1)
    for name in ("load", "predict", "evaluate", "resume", "report"):
        getattr(ushape, name)


def apply(use: str, run: Path, images: Path, place: Path) -> Any:
    """Use a run folder; return what must not depend on the edit."""
    import ushape

    if use == "report":
        page = ushape.report(run, quiet=True).read_text()
        return hashlib.sha256(page.replace(str(run), "RUN").encode()).hexdigest()
    if use == "resume":
        return repr(ushape.resume(run, quiet=True).summary.classes)
    if use == "evaluate":
        return repr(ushape.evaluate(run, device="cpu", quiet=True).classes)
    names = sorted(images.iterdir())[:3]
    if use == "load":
        model = ushape.load(run, device="cpu")
        masks = [model.predict(name).mask for name in names]
    else:
        target = place / "masks"
        shutil.rmtree(target, ignore_errors=True)
        paths = ushape.predict(run, names, output=target, device="cpu", quiet=True)
        masks = read(paths)
    values = sorted({int(value) for mask in masks for value in set(mask.ravel().tolist())})
    shapes = [mask.shape for mask in masks]
    return values, shapes, hashlib.sha256(b"".join(mask.tobytes() for mask in masks)).hexdigest()


def read(paths: list[Path]) -> list[Any]:
    """Read masks without the package."""
    import numpy as np
    from PIL import Image

    return [np.asarray(Image.open(path)) for path in paths]


def watch(function: Callable[[], Any], limits: Limits) -> Outcome:
    """Call a function in a forked process, which is killed if it exceeds the limits."""
    receive, send = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(receive)
        os.setsid()
        run_child(function, send)
    os.close(send)
    process, peak = psutil.Process(child), 0
    excess = ""
    while True:
        ended, _ = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        memory, _ = measure_tree(process, limits.memory_bytes)
        peak, seconds = max(peak, memory), time.monotonic() - started
        if peak > limits.memory_bytes:
            excess = f"{peak / GIBIBYTE:.1f} GiB"
        elif seconds > limits.wall_s:
            excess = f"{seconds:.0f} s"
        if excess:
            kill_tree(process)
            os.waitpid(child, 0)
            break
        time.sleep(0.02)
    with os.fdopen(receive, "rb") as pipe:
        content = pipe.read() if not excess else b""
    seconds = time.monotonic() - started
    if excess:
        return Outcome("killed", excess, None, seconds, peak)
    if not content:
        return Outcome("failed", "the process ended without a result", None, seconds, peak)
    kind, text, result = pickle.loads(content)
    return Outcome(kind, text, result, seconds, peak)


def run_child(function: Callable[[], Any], send: int) -> None:
    """Send what the function returns or raises, and end the process."""
    from ushape.errors import UshapeError

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        answer = ("done", "", function())
    except UshapeError as error:
        answer = ("refused", f"{error.code}: {error.message}", None)
    except OSError as error:  # The command line prints these without a traceback.
        kind = "refused" if error.strerror else "failed"
        answer = (kind, f"{error}\n{traceback.format_exc()}", None)
    except BaseException:
        answer = ("failed", traceback.format_exc(), None)
    with os.fdopen(send, "wb") as pipe:
        pickle.dump(answer, pipe)
    os._exit(0)


def judge(edit: Edit, use: str, outcome: Outcome, right: Outcome) -> tuple[str, str]:
    """Return a verdict and what happened in words."""
    if outcome.kind == "refused":
        return "refused", outcome.text.partition("\n")[0]
    if outcome.kind == "killed" and use == "resume" and DURATIONS & set(edit.keys):
        return "as stated", f"killed after {outcome.text}"
    if outcome.kind == "killed":
        return "wrong", f"killed after {outcome.text}"
    if outcome.kind == "failed":
        lines = outcome.text.strip().splitlines()
        return "wrong", f"traceback: {lines[-1] if lines else ''}"
    if outcome.result == right.result:
        return "same", "same result"
    if edit.file.endswith(".json") and not edit.keeps_checksum:
        return "as stated", "another result, as the edited file states"
    if edit.file == "decision.json" and edit.what in ("removed",):
        return "as stated", "the most probable class"
    return "wrong", f"another result: {shorten(str(outcome.result), 120)}"


def edit_at_random(run: Path, rng: random.Random) -> Edit:
    """Change one file of a run folder."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    structured = [path for path in files if path.suffix == ".json"]
    if rng.random() < 0.6:
        return edit_json(run, rng.choice(structured), rng)
    path = rng.choice(files)
    return edit_bytes(run, path, rng)


def edit_json(run: Path, path: Path, rng: random.Random) -> Edit:
    """Change, remove or add a value anywhere in a JSON file."""
    values = json.loads(path.read_text())
    has_checksum = isinstance(values, dict) and "checksum" in values
    keeps = has_checksum and rng.random() < 0.3
    if has_checksum and not keeps:
        del values["checksum"]
    place, keys = values, []
    while True:
        options = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not options:
            break
        key = rng.choice(options)
        keys.append(str(key))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.9:
            place = inner
            continue
        break
    name = path.relative_to(run).as_posix()
    if not keys:
        return edit_bytes(run, path, rng)
    how = rng.choice(("value", "value", "value", "value", "scale", "remove", "add", "repeat"))
    if how == "remove":
        del place[key]
    elif how == "add" and isinstance(place, dict):
        place["surprise"] = rng.choice(VALUES)
    elif how == "repeat" and isinstance(place, list):
        place.extend(list(place) * rng.choice((1, 200)))
    elif how == "scale" and isinstance(place[key], int | float):
        place[key] = place[key] * rng.choice((-1, 2, 1000, 0.1))
    else:
        place[key] = rng.choice(VALUES)
    path.write_text(json.dumps(values, indent=2))
    shown = shorten(f"{how} {'.'.join(keys)} = {place.get(key) if isinstance(place, dict) else ''}")
    return Edit(name, shown, keeps or not has_checksum, tuple(keys))


def edit_bytes(run: Path, path: Path, rng: random.Random) -> Edit:
    """Damage, remove or replace a file."""
    content, name = path.read_bytes(), path.relative_to(run).as_posix()
    kinds = ("removed", "cut", "emptied", "flipped", "noise", "folder", "loop", "appended")
    how = rng.choice((rng.choice(kinds), "flipped", "swapped"))
    if how == "removed":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: rng.randrange(max(1, len(content)))])
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "flipped":
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
    elif how == "noise":
        path.write_bytes(rng.randbytes(1000))
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "loop":
        path.unlink()
        path.symlink_to(path.name)
    elif how == "appended":
        path.write_bytes(content + rng.randbytes(50))
    else:
        others = sorted(one for one in run.rglob("*") if one.is_file() and one != path)
        other = rng.choice(others)
        how = f"swapped with {other.relative_to(run)}"
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    return Edit(name, how)


if __name__ == "__main__":
    main()
