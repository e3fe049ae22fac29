"""Work that the page starts: plans, and trainings that are continued."""

import subprocess
import threading
from types import SimpleNamespace

import pytest

from ushape.planning.run import Run
from ushape.studio import session
from ushape.studio.jobs import Job
from ushape.studio.runs import RunFolders

EPOCHS, MINUTES = 3, 2.0


@pytest.fixture
def store_runs(monkeypatch):
    """Function that stores runs in a folder, each with some of: checkpoint, weights, end."""
    train = SimpleNamespace(epochs=EPOCHS, minutes=MINUTES)
    plan = SimpleNamespace(recipe=SimpleNamespace(train=train))
    monkeypatch.setattr(Run, "load_plan", lambda run: plan)

    def store(folder, *runs):
        for number, parts in enumerate(runs, 1):
            run = Run(folder / f"run-{number}")
            run.checkpoint_path.parent.mkdir(parents=True)
            run.plan_path.write_text("{}")
            if "checkpoint" in parts:
                run.checkpoint_path.write_bytes(b"")
            if "weights" in parts:
                run.weights_path.write_bytes(b"")
            if "end" in parts:
                run.note_end(plan)

    return store


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], None),
        (["checkpoint"], 1),
        (["checkpoint weights"], 1),
        (["checkpoint weights end"], None),
        (["weights"], None),
        (["checkpoint weights", ""], 1),  # The second one ended before its first epoch did.
        (["checkpoint weights", "checkpoint weights end"], None),
        (["checkpoint weights end", "checkpoint"], 2),
        (["checkpoint weights"] * 10, 10),
    ],
)
@pytest.mark.parametrize("last", [None, "train", "predict"])
def test_last_training_is_continued_whatever_the_last_job_was(
    images, open_studio, store_runs, monkeypatch, runs, expected, last
):
    client = open_studio(images)
    studio, folder = client.studio, client.studio.project.state / "runs"
    store_runs(folder, *map(str.split, runs))
    if last is not None:
        studio.jobs.job = Job(last, [], str(folder / "run-1"), state="done")
    started = []
    monkeypatch.setattr(studio.jobs, "start", lambda *own, **more: started.append((*own, more)))
    assert client.get("/api/state").json()["can_resume"] == (expected is not None)
    answer = client.post("/api/train", {"resume": True})
    if expected is None:
        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_resume")
        assert started == []
    else:
        run = folder / f"run-{expected}"
        values = {"folder": run, "minutes": MINUTES}
        assert started == [("train", ["resume", str(run)], values)]


def test_run_that_was_opened_is_not_continued(tmp_path, store_runs):
    store_runs(tmp_path, ["checkpoint", "weights"])
    assert RunFolders(tmp_path / "state", Run(tmp_path / "run-1")).unfinished() is None


def test_running_training_is_not_continued(images, open_studio, store_runs):
    client = open_studio(images)
    folder = client.studio.project.state / "runs"
    store_runs(folder, ["checkpoint"])
    client.studio.jobs.job = Job("train", [], str(folder / "run-1"))
    assert client.get("/api/state").json()["can_resume"] is False
    client.studio.jobs.job.state = "failed"
    assert client.get("/api/state").json()["can_resume"] is True


def test_predictions_of_a_run_are_outdated_when_it_was_continued(images, open_studio):
    studio = open_studio(images).studio
    run = studio.project.state / "runs" / "run-1"
    stored = studio.project.runs.predictions_of(run) / "0"
    for state in ("failed", "done", "stopped"):
        stored.mkdir(parents=True, exist_ok=True)
        studio._after_job(Job("train", [], str(run), state=state))
        assert not stored.exists()


def test_plan_that_takes_too_long_is_given_up_with_a_reason(images, open_studio, monkeypatch):
    client = open_studio(images)
    client.edit(client.ids[0], "brush", [5, 5], radius=2)
    monkeypatch.setattr(session, "PLAN_TIMEOUT_S", 0.01)
    answer = client.get("/api/plan")
    assert (answer.status_code, answer.json()["lines"]) == (200, [])
    assert "took more than 0.01 s and was stopped. Start training" in answer.json()["problem"]


def test_no_plan_is_made_while_a_job_runs(images, open_studio, monkeypatch):
    client = open_studio(images)
    client.edit(client.ids[0], "brush", [5, 5], radius=2)
    planned = []
    monkeypatch.setattr(session.subprocess, "run", lambda *own, **more: planned.append(own))
    client.studio.jobs.job = Job("train", [])
    answer = client.get("/api/plan")
    client.studio.jobs.job.state = "done"
    assert (answer.status_code, answer.json()["lines"]) == (200, [])
    assert "Another job is running" in answer.json()["problem"]
    assert planned == []


def test_two_plans_are_made_one_after_the_other(images, open_studio, monkeypatch):
    client = open_studio(images)
    client.edit(client.ids[0], "brush", [5, 5], radius=2)
    client.studio.project.saver.flush()
    both, seen = threading.Barrier(2), []

    def plan(command, **options):
        try:
            both.wait(0.5)
            seen.append("together")
        except threading.BrokenBarrierError:
            both.reset()
            seen.append("alone")
        return subprocess.CompletedProcess(command, 0, "A plan.\n", "")

    monkeypatch.setattr(session.subprocess, "run", plan)
    threads = [threading.Thread(target=client.studio.plan, args=(1.0,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["alone", "alone"]
