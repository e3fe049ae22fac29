"""Processes: started, watched, stopped, and found again."""

import sys
import threading

import pytest

from codes import raises_code
from ushape.errors import RunError
from ushape.studio.jobs import Jobs, curves_of


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Function that writes a module which a job can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(text):
        (tmp_path / "program.py").write_text(text)
        return "program"

    return write


@pytest.fixture
def jobs(tmp_path):
    ended = []
    (tmp_path / "state").mkdir()
    found = Jobs(tmp_path / "state", ended.append)
    found.ended = ended
    yield found
    found.stop()
    found.stop()
    assert found.wait(30)


WAITS = """
import signal, sys, time
def stop(*arguments):
    print("stopped by a signal", flush=True)
    sys.exit(CODE)
signal.signal(signal.SIGINT, stop)
print("waiting", flush=True)
time.sleep(60)
"""


def wait_for_line(jobs, text):
    event = threading.Event()
    for _ in range(600):
        if text in jobs.lines():
            return
        event.wait(0.05)
    raise AssertionError(jobs.lines())


def test_job_shows_its_output_and_its_end(jobs, program):
    jobs.start("check", ["one", "two"], module=program("import sys; print(*sys.argv[1:])"))
    assert jobs.wait(30)
    described = jobs.describe()
    assert (described["state"], described["lines"]) == ("done", ["one two"])
    assert [job.kind for job in jobs.ended] == ["check"]


def test_failed_job_shows_its_error(jobs, program):
    text = "import sys; print('Error: It is broken.\\nHint: Mend it.'); sys.exit(2)"
    jobs.start("check", [], module=program(text))
    assert jobs.wait(30)
    described = jobs.describe()
    assert (described["state"], described["error"]) == ("failed", "It is broken.\nHint: Mend it.")


def test_second_job_is_refused_while_one_runs(jobs, program):
    module = program(WAITS.replace("CODE", "130"))
    jobs.start("predict", [], module=module)
    with raises_code(RunError, "job_running"):
        jobs.start("predict", [], module=module)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT")
@pytest.mark.parametrize(
    ("kind", "code", "state"), [("predict", 130, "stopped"), ("train", 0, "done")]
)
def test_job_is_stopped_as_by_ctrl_c(jobs, program, kind, code, state):
    jobs.start(kind, [], module=program(WAITS.replace("CODE", str(code))))
    wait_for_line(jobs, "waiting")
    jobs.stop()
    assert jobs.wait(30)
    assert jobs.describe()["state"] == state
    assert jobs.lines()[-1] == "stopped by a signal"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT")
def test_job_of_a_killed_server_is_found_again(jobs, program, tmp_path):
    jobs.start("predict", [], module=program(WAITS.replace("CODE", "130")))
    wait_for_line(jobs, "waiting")
    ended = threading.Event()
    second = Jobs(tmp_path / "state", lambda job: ended.set())
    assert second.is_running
    second.stop()
    assert ended.wait(30)
    assert second.describe()["state"] == "stopped"


def test_job_that_ended_while_no_server_ran_is_not_running(jobs, program, tmp_path):
    jobs.start("train", [], module=program("pass"), folder=tmp_path / "run")
    assert jobs.wait(30)
    path = tmp_path / "state" / "job.json"
    path.write_text(path.read_text().replace('"done"', '"running"'))
    second = Jobs(tmp_path / "state", lambda job: None)
    assert second.wait(30)
    assert second.describe()["state"] == "failed"


def test_curves_are_read_from_the_log_of_a_run(tmp_path):
    assert curves_of(tmp_path) == {"loss": [], "dice": []}
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,loss,validation_dice\n1,10,0.5,0.25\n2,20,nan,0.75\n"
    )
    assert curves_of(tmp_path) == {"loss": [(10, 0.5)], "dice": [(10, 0.25), (20, 0.75)]}


def test_output_has_all_letters_whatever_encoding_the_system_uses(jobs, program, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # As files on Windows.
    module = program("print('Gr\\u00f6\\u00dfe \\u00d7')")
    jobs.start("check", [], module=module)
    assert jobs.wait(30)
    assert jobs.lines() == ["Gr\u00f6\u00dfe \u00d7"]
