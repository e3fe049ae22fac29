"""Trials of a search whose process has ended, or runs on another machine."""

import errno
import json
import os
import socket
import sys
import time

import pytest

from ushape.api._search import SILENT_S, TrialRunner, trial_run
from ushape.io.lock import LOCK_FILE
from ushape.planning.search_space import SearchedSetting
from ushape.training.study import Study

SPACE = (SearchedSetting(key="a", planned="1", values={"2": "2"}),)


@pytest.fixture
def runner(tmp_path):
    """Runner of a search with a trial that has begun."""
    runner = object.__new__(TrialRunner)
    runner.study, runner.folder = Study(tmp_path / "trials.log", SPACE, 0), tmp_path
    assert runner.study.next_trial().number == 1
    return runner


def leave_trial(folder, host, age_s=0.0):
    """Leave a trial of a process that this machine does not have."""
    folder.mkdir(parents=True)
    owner = {"process": 1, "started": 1.0, "host": host}
    (folder / LOCK_FILE).write_text(json.dumps(owner))
    (folder / "metrics.csv").touch()
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - age_s,) * 2)


def give_up(runner):
    """Return the state of the trial after a look at it, and whether its folder is kept."""
    runner._give_up_lost_trials()
    return runner.study.rows[0].state, trial_run(runner.folder, 1).folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
@pytest.mark.parametrize(
    ("host", "age_s", "expected"),
    [
        pytest.param("another", 0.0, ("running", True), id="other machine"),
        pytest.param("another", SILENT_S - 60, ("running", True), id="slow"),
        pytest.param("another", SILENT_S + 60, ("lost", False), id="silent"),
        pytest.param(socket.gethostname(), 0.0, ("lost", False), id="killed here"),
    ],
)
def test_trials_of_other_machines_are_kept_without_locks(
    runner, monkeypatch, host, age_s, expected
):
    import fcntl

    def refuse(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    leave_trial(trial_run(runner.folder, 1).folder, host, age_s)
    for _ in range(2):  # Looking at a trial does not change how old it is.
        assert give_up(runner) == expected


def test_lost_trial_of_another_machine_is_repeated_at_once_if_locks_are_real(runner):
    leave_trial(trial_run(runner.folder, 1).folder, "another")
    assert give_up(runner) == ("lost", False)
