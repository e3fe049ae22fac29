"""Causes of a failure of processes that train together."""

import pytest

from codes import raises_code
from ushape.api._launcher import Place
from ushape.api._processes import Team, result_of
from ushape.errors import RunError

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
    own, started = Team(2)._hint_after_loss("x"), Team(2, place=place)._hint_after_loss("x")
    assert "--devices 1" in own
    assert "--devices" not in started
    assert "ushape resume x" in own
    assert "ushape resume x" in started


def test_result_of_raises_the_cause_instead_of_what_followed_from_it():
    with pytest.raises(MemoryError):
        result(FAILURE, MEMORY)
    with raises_code(RunError, "loss_not_finite"):
        result(FAILURE, USER_ERROR)
    with pytest.raises(KeyboardInterrupt):
        result(FAILURE, {"kind": "interrupt"})
    with pytest.raises(RuntimeError, match="Process 1 of 2"):
        result(FAILURE, RESULT)
