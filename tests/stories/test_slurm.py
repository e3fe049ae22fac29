"""Folds as jobs of SLURM, whose programs are replaced by ones that run them on this machine."""

import os
import signal
import subprocess
import sys
import time

import pytest

import fake_slurm
from commands import command_environment
from ushape.datasets.synthetic import SyntheticConfig, write_data_set

pytestmark = pytest.mark.skipif(os.name != "posix", reason="starts shell scripts")

LIMIT_S = 600


@pytest.fixture
def cluster(tmp_path):
    """Folder of the replaced programs, and a function that runs `ushape` with them."""
    folder = tmp_path / "slurm"
    variables = fake_slurm.install(folder)

    def run(*arguments, **more):
        ended = subprocess.run(
            [sys.executable, "-m", "ushape", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**command_environment(), **variables, **more},
            timeout=LIMIT_S,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    return folder, run


def wait_until(is_reached):
    deadline = time.monotonic() + LIMIT_S
    while not is_reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def options(cells, run, tiny, epochs=1, folds=2):
    given = ("cross-validate", cells, "-o", run, f"--folds={folds}", f"--epochs={epochs}", *tiny)
    return (*given, "--submit=slurm", "--job-minutes=30", "--partition=gpu", "--max-jobs=1")


def test_the_same_command_submits_gathers_and_repeats_what_failed(cluster, cells, tiny, tmp_path):
    folder, ushape = cluster
    command = options(cells, tmp_path / "run", tiny)
    code, said = ushape(*command, FAKE_SLURM_FAIL="1")
    assert code == 0, said
    assert "Fold 2 of 2: submitted as job 1_1" in said
    submitted = fake_slurm.jobs_of(folder)["1_0"]["options"]
    assert (submitted["partition"], submitted["time"]) == ("gpu", "30")
    assert submitted["array"] == "0-1%1"
    wait_until(lambda: fake_slurm.is_idle(folder))

    code, said = ushape(*command)
    assert code == 2, said
    assert "Fold 2 of 2 failed as job 1_1 (FAILED), log in" in said
    assert "1 of 2 folds are finished" in said
    assert (tmp_path / "run" / "report.html").exists()

    code, said = ushape(*command)
    assert code == 0, said
    assert "Fold 1 of 2: already finished" in said
    assert "Fold 2 of 2: submitted as job 2" in said
    wait_until(lambda: fake_slurm.is_idle(folder))
    code, said = ushape(*command)
    assert code == 0, said
    assert "Fold 2 of 2: already finished" in said
    assert "4 groups" in said
    assert set(fake_slurm.jobs_of(folder)) == {"1_0", "1_1", "2"}


def test_a_preempted_job_is_requeued_and_resumes(cluster, cells, tiny, tmp_path):
    folder, ushape = cluster
    run = tmp_path / "run"
    command = options(cells, run, tiny, epochs=40)
    code, said = ushape(*command)
    assert code == 0, said
    metrics = run / "fold-1" / "metrics.csv"
    wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 2)
    fake_slurm.preempt(folder, "1_0")
    wait_until(lambda: fake_slurm.is_idle(folder))
    log = (run / "jobs" / "1_0_0_log.out").read_text()
    assert log.count("Running: ") == 2
    assert "ushape resume" in log.rsplit("Running: ", 1)[1]
    code, said = ushape(*command)
    assert code == 0, said
    assert "Fold 1 of 2: already finished" in said
    assert len(metrics.read_text().splitlines()) == 41


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_jobs_are_not_submitted_twice_after_a_signal_to_the_command(
    cluster, cells, tiny, tmp_path, number
):
    folder, ushape = cluster
    command = options(cells, tmp_path / "run", tiny)
    code, said = ushape(*command, FAKE_SLURM_HOLD="1", FAKE_SLURM_SIGNAL=str(int(number)))
    expected = {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert code == expected[number], said
    code, said = ushape(*command)
    assert code == 0, said
    assert "Fold 1 of 2: pending as job 1_0" in said
    assert "Fold 2 of 2: pending as job 1_1" in said
    assert set(fake_slurm.jobs_of(folder)) == {"1_0", "1_1"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--folds=9",), "9 folds were requested, but there are only 4 groups"),
        (("--set=network.dims=3",), "network.dims is 3"),
        (("--set=train.nothing=3",), "train.nothing"),
        (("--masks=missing",), "missing"),
    ],
)
def test_what_every_job_would_refuse_is_refused_before_the_submission(
    cluster, cells, tiny, tmp_path, more, message
):
    folder, ushape = cluster
    command = options(cells, tmp_path / "run", tiny)
    code, said = ushape(*command, *more)
    assert code == 2, said
    assert message in said
    assert fake_slurm.jobs_of(folder) == {}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("limit", ["--minutes=3", "--epochs=1"])
def test_a_learning_curve_on_gpus_is_submitted_from_a_machine_without_one(cluster, tmp_path, limit):
    folder, ushape = cluster
    data = tmp_path / "dishes"
    write_data_set(data, 12, SyntheticConfig(size=64, groups=6), seed=3)
    command = ("learning-curve", data, "-o", tmp_path / "run", "--points=3", limit, "--device=cuda")
    code, said = ushape(*command, "--submit=slurm", "--job-minutes=30", FAKE_SLURM_HOLD="1")
    assert code == 0, said
    jobs = fake_slurm.jobs_of(folder)
    assert set(jobs) == {"1_0", "1_1", "1_2"}
    assert {job["options"]["gpus-per-node"] for job in jobs.values()} == {"1"}
