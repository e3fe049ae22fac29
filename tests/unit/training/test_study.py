"""Order of the trials of a search, with scores that are made up."""

import itertools

import pytest

from codes import raises_code
from ushape.errors import RunError
from ushape.planning.search_space import PLANNED, SearchedSetting
from ushape.training.study import MAX_LOSSES, StoppedEarlyError, Study

SPACE = (
    SearchedSetting(key="a", planned="1", values={"2": "2", "3": "3"}),
    SearchedSetting(key="b", planned="1", values={"2": "2"}),
)
VALUES = {("a", "2"): 0.1, ("a", "3"): -0.1, ("b", "2"): 0.1}


def value_of(chosen):
    return 0.5 + sum(VALUES.get(pair, 0.0) for pair in chosen.items())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.log"


def run_trials(study, count=None):
    """Run trials whose scores rise evenly; return how many were run."""
    for done in itertools.count():
        trial = None if done == count else study.next_trial()
        if trial is None:
            return done
        score = value_of(trial.chosen)
        try:
            for check in range(1, 6):
                trial.report(score * check / 5, check / 5)
            study.finish(trial, score, 2.0)
        except StoppedEarlyError:
            study.stop(trial, 1.0)
    raise AssertionError("the loop has no other end")


def test_first_trial_is_the_plan_and_others_change_the_best_one(path):
    study = Study(path, SPACE, 0)
    run_trials(study, 4)
    assert [row.chosen for row in study.rows] == [
        {"a": PLANNED, "b": PLANNED},
        {"a": "2", "b": PLANNED},
        {"a": "3", "b": PLANNED},
        {"a": "2", "b": "2"},
    ]
    assert [row.number for row in study.rows] == [1, 2, 3, 4]
    assert study.rows[0].is_planned
    assert study.best == study.rows[3]
    assert study.best.score == pytest.approx(0.7)


def test_search_ends_when_all_choices_were_tried_once(path):
    study = Study(path, SPACE, 0)
    assert run_trials(study) == 6
    chosen = [tuple(row.chosen.items()) for row in study.rows]
    assert len(set(chosen)) == 6


def test_bad_trials_are_stopped_early_and_never_the_best(path):
    study = Study(path, SPACE, 0)
    run_trials(study)
    stopped = [row for row in study.rows if row.state == "stopped early"]
    assert [row.chosen for row in stopped] == [{"a": "3", "b": "2"}]
    assert study.best.chosen == {"a": "2", "b": "2"}


def test_the_first_trials_are_never_stopped(path):
    study = Study(path, SPACE, 0)
    for score in (0.9, 0.1, 0.1):
        trial = study.next_trial()
        for check in range(1, 6):
            trial.report(score, check / 5)
        study.finish(trial, score, 1.0)
    assert study.best.number == 1


def test_of_equal_trials_the_plan_is_the_best(path):
    study = Study(path, SPACE, 0)
    for _ in range(2):
        study.finish(study.next_trial(), 0.5, 1.0)
    assert study.best.is_planned


def test_another_process_continues_the_same_trials(path):
    run_trials(Study(path, SPACE, 0), 2)
    study = Study(path, SPACE, 0)
    run_trials(study, 1)
    assert [row.chosen["a"] for row in study.rows] == [PLANNED, "2", "3"]


def test_a_lost_trial_is_repeated_some_times(path):
    study = Study(path, SPACE, 0)
    run_trials(study, 1)
    for number in range(2, 2 + MAX_LOSSES):
        assert study.next_trial().chosen == {"a": "2", "b": PLANNED}
        study.lose(number)
        study.lose(number)
    assert study.next_trial().chosen == {"a": "3", "b": PLANNED}
    assert [row.state for row in study.rows] == ["finished", *["lost"] * MAX_LOSSES, "running"]


def test_a_choice_that_fails_is_not_repeated(path):
    study = Study(path, SPACE, 0)
    run_trials(study, 1)
    study.fail(study.next_trial(), 3.0, "It does not fit.")
    assert study.next_trial().chosen == {"a": "3", "b": PLANNED}
    assert (study.rows[1].state, study.rows[1].note) == ("failed", "It does not fit.")


def test_an_unfinished_line_of_the_file_is_removed(path):
    run_trials(Study(path, SPACE, 0), 2)
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study = Study(path, SPACE, 0)
    run_trials(study, 1)
    assert len(Study(path, SPACE, 0).rows) == 3


def test_a_damaged_file_is_refused(path):
    run_trials(Study(path, SPACE, 0), 1)
    path.write_bytes(b"{broken\n" + path.read_bytes())
    with raises_code(RunError, "damaged_run"):
        Study(path, SPACE, 0)
