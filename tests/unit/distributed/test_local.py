"""Jobs of this machine: which device each of them uses."""

import time
from types import SimpleNamespace

import pytest

from codes import raises_code
from ushape.console import Console
from ushape.distributed import local
from ushape.distributed.jobs import Job
from ushape.distributed.local import LocalJobs, Slot
from ushape.distributed.submission import JobFolder, Submitted
from ushape.errors import RunError

FIRST, SECOND = (Slot("cuda", {}, f"cuda:{number}") for number in range(2))


@pytest.fixture
def jobs(tmp_path):
    return [Job(f"Fold {number}", [], tmp_path / f"fold-{number}.log") for number in (1, 2, 3)]


@pytest.fixture
def started(tmp_path, monkeypatch, jobs):
    """Runs jobs of which the first one, of an earlier command, never ends; its device is given.

    Returns the devices of the others in the order of their start.
    """
    monkeypatch.setattr(local, "POLL_S", 0.0)
    used, looks = [], []

    def is_alive(own):
        looks.append(own)
        return own is not None and own.id == "7" and len(looks) < 50

    def start(self, job, slot):
        used.append(slot.name)
        handle = SimpleNamespace(job_id="999999999", done=lambda: True)
        handle.paths = SimpleNamespace(stdout=tmp_path / "log")
        return handle

    monkeypatch.setattr(local, "is_alive", is_alive)
    monkeypatch.setattr(LocalJobs, "_start", start)

    def run(slots, slot):
        folder = JobFolder(tmp_path / "jobs")
        folder.save({"fold-1": Submitted("7", "log", time.time(), slot)})
        finished = lambda job: job.key != "fold-1" and bool(used)  # noqa: E731
        with raises_code(RunError, "fold_failed"):  # The first one ends without a result.
            LocalJobs(folder, slots, finished).run(jobs, Console(quiet=True))
        return used

    return run


def test_jobs_use_no_device_of_a_job_that_still_runs(started):
    assert started([FIRST, SECOND], "cuda:1") == ["cuda:0", "cuda:0"]


def test_jobs_of_another_device_count_but_take_no_slot(started):
    assert started([FIRST, SECOND], "cuda:5") == ["cuda:0", "cuda:1"]


def test_jobs_whose_device_is_unknown_take_the_first_slot(started):
    assert started([FIRST, SECOND], "") == ["cuda:1", "cuda:1"]
