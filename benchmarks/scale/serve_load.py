"""Load a server with many clients, restart it in the middle, and print times, errors and memory.

python benchmarks/scale/serve_load.py RUN IMAGES --clients 10 --minutes 10

Each client sends one image after another and compares the answer with the first one for this image.
In the middle, the server receives SIGTERM and is started again on the same port; requests that are
refused with 503, or whose connection is refused, in the meantime are repeated and counted.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil

WARM_UP_S = 20.0
"""Time after the start of a server that is left out of the slope of its memory."""

RESTART_S = 60.0
"""Longest time in which a restarted server may be away."""


@dataclass
class Load:
    """What the clients have seen."""

    url: str
    images: list[Path]
    ends_at: float
    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    answers: dict[Path, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run_client(self, number: int) -> None:
        """Send images until the end."""
        with httpx.Client(timeout=120) as client:
            for path in itertools.islice(itertools.cycle(self.images), number, None):
                if time.monotonic() > self.ends_at:
                    return
                self._send(client, path)

    def _send(self, client: httpx.Client, path: Path) -> None:
        content, refused_since = path.read_bytes(), None
        while True:
            started, problem = time.monotonic(), ""
            try:
                answer = client.post(f"{self.url}/predict", files={"image": (path.name, content)})
            except httpx.ConnectError:
                answer = None
            except httpx.TransportError as error:
                problem, answer = type(error).__name__, None
            ended = time.monotonic()
            is_away = not problem and (answer is None or answer.status_code == 503)
            refused_since = refused_since or ended
            if is_away and ended - refused_since < RESTART_S:
                with self.lock:
                    self.repeated += 1
                time.sleep(0.2)
                continue
            break
        with self.lock:
            if answer is None or answer.status_code != 200:
                self.errors[problem or (str(answer.status_code) if answer else "away")] += 1
                return
            found = hashlib.sha256(answer.content).hexdigest()
            if self.answers.setdefault(path, found) != found:
                self.errors["another answer"] += 1
            self.seconds.append(ended - started)


@dataclass
class Server:
    """A server process, and its memory over time."""

    run: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None
    url: str = ""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the start, and megabytes."""

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [sys.executable, "-m", "ushape", "serve", str(self.run), "--port", str(self.port)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+:(\d+)", line)
        if found is None:
            raise SystemExit(f"The server did not start: {line}")
        self.url, self.port = found[0], int(found[1])
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        self.memory, started = [], time.monotonic()
        threading.Thread(target=self._watch, args=(self.process, started), daemon=True).start()

    def stop(self) -> int:
        """Stop the server, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def describe_memory(self) -> str:
        """Return the memory at the begin and at the end, and its slope after the warm-up."""
        if not self.memory:
            return "not measured"
        late = np.array([point for point in self.memory if point[0] > WARM_UP_S])
        text = f"{self.memory[0][1]:.0f} MB at the start, {self.memory[-1][1]:.0f} MB at the end"
        if len(late) > 10:
            slope = 60 * np.polyfit(late[:, 0], late[:, 1], 1)[0]
            text += f", {slope:+.2f} MB a minute after {WARM_UP_S:.0f} s"
        return text

    def _watch(self, process: subprocess.Popen[str], started: float) -> None:
        points, own = self.memory, psutil.Process(process.pid)
        while process.poll() is None:
            try:
                points.append((time.monotonic() - started, own.memory_info().rss / 1e6))
            except psutil.NoSuchProcess:
                return
            time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    images = sorted(path for path in options.images.iterdir() if path.is_file())
    server = Server(options.run)
    server.start()
    started = time.monotonic()
    load = Load(server.url, images, ends_at=started + 3600 * options.minutes)
    threads = [
        threading.Thread(target=load.run_client, args=(number,))
        for number in range(options.clients)
    ]
    try:
        for thread in threads:
            thread.start()
        time.sleep(30 * options.minutes)
        before = time.monotonic()
        first = server.describe_memory()
        code = server.stop()
        server.start()
        away_s = time.monotonic() - before
        load.ends_at = time.monotonic() + 30 * options.minutes
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - started - away_s
        second = server.describe_memory()
        last_code = server.stop()
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
    times = np.array(load.seconds)
    print(f"{options.clients} clients, {seconds:.0f} s without the restart, {len(images)} images")
    print(f"{len(times)} answers, {len(times) / seconds:.1f} a second")
    print(f"p50 {np.percentile(times, 50):.3f} s, p95 {np.percentile(times, 95):.3f} s, "
          f"longest {times.max():.3f} s")  # fmt: skip
    print(f"errors: {sum(load.errors.values())} {dict(load.errors)}")
    print(
        f"restart: {away_s:.1f} s, {load.repeated} requests repeated, exit codes {code} and "
        f"{last_code}"
    )
    print(f"memory of the first server: {first}")
    print(f"memory of the second server: {second}")


if __name__ == "__main__":
    main()
