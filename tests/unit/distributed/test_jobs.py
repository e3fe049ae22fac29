"""Trainings as jobs: their options, and the command that each job runs."""

import pickle
import sys

import pytest

from ushape.distributed.job_config import JobConfig
from ushape.distributed.jobs import Job
from ushape.errors import ConfigError, MissingPackageError


def resolve(submit, *, minutes=None, device="auto", **options):
    return JobConfig.resolve({"submit": submit, **options}, minutes=minutes, device=device)


def test_job_starts_a_training_or_continues_it(tmp_path):
    plan, old = tmp_path / "plan.json", tmp_path / "cases.json"
    old.touch()
    job = Job("Fold", ["train", "x"], tmp_path / "a.log", ["resume", "y"], plan, (old,))
    assert pickle.loads(pickle.dumps(job)) == job
    assert job.command() == [sys.executable, "-m", "ushape", "train", "x"]
    assert not old.exists()
    plan.touch()
    old.touch()
    assert job.command()[3:] == ["resume", "y"]
    assert old.exists()


def test_variables_of_a_job_are_set_or_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("GONE", "1")
    job = Job("Fold", [], tmp_path, environment={"GONE": None, "NEW": "2"})
    assert "GONE" not in job.variables()
    assert job.variables()["NEW"] == "2"


def test_jobs_without_their_time_have_that_of_the_training_and_more():
    assert resolve("slurm", minutes=60).minutes == 90
    assert resolve("slurm", minutes=60, job_minutes=7).minutes == 7
    with pytest.raises(ConfigError) as error:
        resolve("slurm")
    assert error.value.code == "missing_job_minutes"


def test_a_gpu_is_requested_with_device_cuda_only():
    assert resolve("slurm", minutes=1).gpus is None
    assert resolve("slurm", minutes=1, device="cuda").gpus == 1
    assert resolve("slurm", minutes=1, device="cuda", gpus=0).gpus == 0


def test_parameters_of_sbatch_have_values_or_are_switches():
    found = resolve("slurm", minutes=1, slurm=["cpus_per_task=8", "exclusive", "--qos=a=b"])
    assert found.slurm == {"cpus-per-task": "8", "exclusive": True, "qos": "a=b"}


def test_options_without_a_value_count_as_not_given():
    assert resolve(None, partition=None, slurm=[]) is None
    assert resolve("local", slurm=()).where == "local"


def test_misspelled_option_is_refused():
    with pytest.raises(TypeError, match="partitoin"):
        resolve("slurm", minutes=1, partitoin="gpu")


@pytest.mark.parametrize("text", ["ntasks=2", "--nodes=1-2", "ntasks_per_gpu=2", "nodes"])
def test_jobs_have_one_task(text):
    with pytest.raises(ConfigError, match="one task on one node"):
        resolve("slurm", minutes=1, slurm=[text])
    assert resolve("slurm", minutes=1, slurm=["nodes=1"]).slurm == {"nodes": "1"}


@pytest.mark.parametrize("text", ["time=5", "--output=x", "open_mode=x", "=1", ""])
def test_parameters_that_are_set_already_are_refused(text):
    with pytest.raises(ConfigError) as error:
        resolve("slurm", minutes=1, slurm=[text])
    assert error.value.code == "reserved_parameter"


@pytest.mark.parametrize(
    ("submit", "options", "code"),
    [
        (None, {"max_jobs": 2}, "conflicting_options"),
        (None, {"slurm": ["a=1"]}, "conflicting_options"),
        ("local", {"partition": "gpu"}, "conflicting_options"),
        ("local", {"job_minutes": 5}, "conflicting_options"),
        ("slurm", {"device": "cuda:0,cuda:1", "minutes": 1}, "conflicting_options"),
        ("pbs", {}, "unknown_scheduler"),
        ("slurm", {"job_minutes": 0}, "value_out_of_range"),
        ("slurm", {"memory_gb": 0, "minutes": 1}, "value_out_of_range"),
        ("slurm", {"gpus": -1, "minutes": 1}, "value_out_of_range"),
        ("local", {"max_jobs": 0}, "value_out_of_range"),
    ],
)
def test_impossible_options_are_refused(submit, options, code):
    with pytest.raises(ConfigError) as error:
        resolve(submit, **options)
    assert error.value.code == code


def test_missing_package_is_named(monkeypatch):
    assert resolve(None) is None
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingPackageError):
        resolve("local")
