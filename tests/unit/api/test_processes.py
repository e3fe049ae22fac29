"""Requests to processes that train together, and causes of their failure."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from codes import raises_code
from ushape.api import _processes
from ushape.api._launcher import Place
from ushape.api._processes import Processes, Team, result_of
from ushape.api._rank import _seconds_left
from ushape.errors import RunError
from ushape.planning.run import Run

RESULT = {
    "kind": "result",
    "values": {
        "best_dice": 0.5,
        "best_epoch": 1,
        "epochs": 2,
        "was_interrupted": False,
        "foreground_patches": 1.0,
    },
}
FAILURE = {"kind": "failure", "text": "Connection closed by peer"}
MEMORY = {"kind": "memory", "text": "out of memory"}
KILLED = {"kind": "killed", "text": "was killed by SIGKILL"}
USER_ERROR = {
    "kind": "user_error",
    "class": "RunError",
    "values": {"message": "The loss became nan.", "code": "loss_not_finite", "hint": "Lower it."},
}


def result(*reports):
    return result_of(dict(enumerate(reports)), len(reports), "Continue it.")


def test_result_of_is_that_of_the_first_process():
    other = {**RESULT, "values": {**RESULT["values"], "best_dice": 0.1}}
    assert result(RESULT, other).best_dice == 0.5


def test_result_of_names_the_process_that_was_killed():
    with raises_code(RunError, "process_lost") as caught:
        result(FAILURE, KILLED)
    assert "Process 2 of the 2" in str(caught.value)
    assert caught.value.hint == "Continue it."


def test_hint_after_a_loss_names_devices_only_if_the_user_has_stated_them():
    place = Place(rank=0, count=2, local_rank=0, neighbors=2, address="node1", port=1)
    run = Run(Path("x y"))
    own, started = Team(2)._hint_after_loss(run), Team(2, place=place)._hint_after_loss(run)
    assert "--devices 1" in own
    assert "--devices" not in started
    assert "ushape resume 'x y' --devices 1" in own
    assert "ushape resume 'x y'." in started


def test_errors_of_another_process_keep_how_to_continue():
    values = {"message": "Full.", "code": "full", "hint": "Free it.", "continuation": "Continue."}
    with raises_code(RunError, "full") as caught:
        result({"kind": "user_error", "class": "RunError", "values": values})
    assert (caught.value.advice, caught.value.continuation) == ("Free it.", "Continue.")
    assert caught.value.hint == "Free it. Continue."


def test_result_of_raises_the_cause_instead_of_what_followed_from_it():
    with pytest.raises(MemoryError):
        result(FAILURE, MEMORY)
    with raises_code(RunError, "loss_not_finite"):
        result(FAILURE, USER_ERROR)
    with pytest.raises(KeyboardInterrupt):
        result(FAILURE, {"kind": "interrupt"})
    with pytest.raises(RuntimeError, match="Process 1 of 2"):
        result(FAILURE, RESULT)


def test_time_limit_is_kept_although_the_clock_is_set_while_the_processes_start(monkeypatch):
    passed_s, real = 0.0, time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: real + passed_s)
    monkeypatch.setattr(
        _processes.subprocess, "Popen", lambda *arguments, **options: SimpleNamespace(stdin=None)
    )
    processes = Processes({0: 0, 1: 1}, {"budget_s": 30.0}, 2)
    passed_s = 10.0
    monkeypatch.setattr(time, "time", lambda: 4e9)  # The clock was set to the year 2096.
    for rank in (0, 1):
        request = json.loads(Path(processes.folder.name, f"request-{rank}.json").read_text())
        assert _seconds_left(request) == pytest.approx(20.0)
    processes.folder.cleanup()
    assert _seconds_left({"deadline": None}) is None
