"""Trainings as jobs of this machine."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from commands import command_environment, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="starts shell scripts and sends signals"),
]


def processes_below(folder):
    """Processes whose command names a folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid()
        and any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ushape", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=command_environment(),
    )


def test_ctrl_c_ends_local_jobs(cells, tiny, tmp_path):
    run = tmp_path / "run"
    command = ["cross-validate", cells, "--folds=2", "-o", run, "--epochs=2000", *tiny]
    command += ["--submit=local", "--max-jobs=2"]
    process = start(*command)

    def have_begun(epoch):
        texts = [path.read_text() for path in (run / "jobs").glob("*log.out")]
        return sum(f"Epoch {epoch}/2000" in text for text in texts) == 2

    wait_for(lambda: have_begun(2), process, limit_s=200)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 130, said
    assert processes_below(run) == []
