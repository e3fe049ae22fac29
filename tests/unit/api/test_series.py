"""Runs that belong together: stored requests, devices and processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codes import raises_code
from ushape.api import _devices
from ushape.api._devices import Devices, Job
from ushape.api._jobs import choose_runner, machine_of_jobs
from ushape.api._launcher import find_place
from ushape.api._requests import describe_request
from ushape.api._series import Series
from ushape.console import Console
from ushape.distributed.job_config import JobConfig
from ushape.errors import ConfigError, RunError
from ushape.planning.hardware import allowed_cores, inspect_machine
from ushape.planning.recipe import Recipe


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Replaces `python -m ushape` by a script; returns the function that writes the script."""

    def write(code):
        (tmp_path / "ushape.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return write


def test_series_finds_the_same_request_only(tmp_path):
    series = Series(tmp_path / "out" / "folds.json", "cross-validation")
    request = describe_request("data", None, Recipe(), folds=2)
    assert series.find(request) is None
    series.begin(request, extra=1)
    assert series.find(request)["extra"] == 1
    with pytest.raises(RunError) as error:
        series.find({**request, "folds": 3})
    assert error.value.code == "other_request"
    series.path.write_text("[]")
    with pytest.raises(RunError) as error:
        series.find(request)
    assert error.value.code == "damaged_run"
    series.path.rename(series.path.with_name("notes.txt"))
    with pytest.raises(RunError) as error:
        series.find(request)
    assert error.value.code == "not_a_series"


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cpu,,cpu", "cpu:1,cpu:7", "mps:0", "auto:1"])
def test_devices_refuse_unknown_names(text):
    with pytest.raises(ConfigError) as error:
        Devices.parse(text)
    assert error.value.code == "unknown_device"


def test_devices_that_this_machine_lacks_are_refused(monkeypatch):
    Devices.parse("cpu,cpu").require_available()
    monkeypatch.setattr(_devices, "inspect_machine", lambda device: None)
    monkeypatch.setattr(_devices.torch.cuda, "device_count", lambda: 2)
    Devices.parse("cuda:0,cuda:1").require_available()
    with raises_code(ConfigError, "unknown_device") as caught:
        Devices.parse("cuda:0,cuda:2").require_available()
    assert "2 GPUs" in caught.value.message


def test_processes_of_devices_belong_to_no_launcher(monkeypatch):
    """A training in such a process would wait for the other programs of the launcher."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert find_place(os.environ) is not None
    job = Job("Fold 1", [], Path("log"), environment=Devices(["cpu"]).environment("cpu"))
    assert find_place(job.variables()) is None


def test_devices_need_processes_if_there_are_several_or_a_number():
    assert not Devices.parse("cuda").are_separate
    assert Devices.parse("cuda:1").are_separate
    assert Devices.parse("cpu, cpu").names == ["cpu", "cpu"]


def test_visible_gpu_is_counted_among_the_allowed_ones(monkeypatch):
    monkeypatch.delenv(_devices.VISIBLE, raising=False)
    assert _devices._visible("3") == "3"
    monkeypatch.setenv(_devices.VISIBLE, "4,7")
    assert _devices._visible("1") == "7"
    with pytest.raises(ConfigError) as error:
        _devices._visible("2")
    assert error.value.code == "unknown_device"


def test_devices_share_the_cores(program, tmp_path, monkeypatch):
    program("import os, sys; print(os.environ['OMP_NUM_THREADS'], *sys.argv[1:])")
    monkeypatch.delenv(_devices.THREADS, raising=False)
    monkeypatch.setattr(_devices, "inspect_machine", lambda device: type("M", (), {"cores": 6}))
    log = tmp_path / "log"
    Devices(["cpu", "cpu"]).run([Job("Fold 1", ["train"], log)], Console(quiet=True))
    assert log.read_text().split() == ["3", "train", "--device", "cpu"]
    monkeypatch.setenv(_devices.THREADS, "1")
    Devices(["cpu", "cpu"]).run(
        [Job("Fold 1", ["train"], log, resume=["resume", "x"], plan=log)], Console(quiet=True)
    )
    assert log.read_text().split()[4:] == ["1", "resume", "x"]


def test_processes_of_devices_share_the_machine(monkeypatch):
    code = "from ushape.planning.hardware import inspect_machine as i; m = i('cpu')\n"
    code += "print(m.cores, m.main_memory_bytes)"
    monkeypatch.setenv(_devices.THREADS, "64")  # Each process would have all cores.
    whole, devices = inspect_machine("cpu"), Devices(["cpu"] * 8)
    own = Job("Fold 1", [], Path("log"), environment=devices.environment("cpu")).variables()
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True)
    cores, memory_bytes = map(int, done.stdout.split())
    assert cores == max(1, len(allowed_cores()) // 8)
    assert memory_bytes == whole.main_memory_bytes // 8
    # Processes that such a process starts share its part.
    monkeypatch.setenv("USHAPE_PROCESSES", "8")
    assert Devices(["cpu"] * 2).environment("cpu")["USHAPE_PROCESSES"] == "16"


@pytest.mark.parametrize(("most", "expected"), [(None, 4), (3, 3)])
def test_jobs_of_this_machine_share_it_by_those_that_run_at_once(most, expected, tmp_path):
    config = JobConfig(where="local", at_once=most)
    runner, devices = choose_runner(tmp_path, config, Devices(["cpu"] * 4), 9)
    assert len(devices.names) == len(runner.slots) == expected
    assert {slot.environment["USHAPE_PROCESSES"] for slot in runner.slots} == {str(expected)}
    whole, part = inspect_machine("cpu"), machine_of_jobs(runner, devices)
    assert part.main_memory_bytes == whole.main_memory_bytes // expected
    assert part.memory_bytes == part.main_memory_bytes


def test_failed_job_is_reported_with_its_log(program, tmp_path):
    program("import sys; sys.exit('Error: broken')")
    with pytest.raises(RunError, match="Error: broken") as error:
        Devices(["cpu"]).run([Job("Fold 1", ["train"], tmp_path / "log")], Console(quiet=True))
    assert error.value.code == "fold_failed"


def test_all_jobs_that_have_failed_are_named_with_their_logs(program, tmp_path):
    program(
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists():\n"
        "    time.sleep(0.01)\n"
        "sys.exit('Error: broken')\n"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    jobs = [Job("Fold 1", [a, b], tmp_path / "1.log"), Job("Fold 2", [b, a], tmp_path / "2.log")]
    with raises_code(RunError, "fold_failed") as caught:
        Devices(["cpu", "cpu"]).run(jobs, Console(quiet=True))
    for job in jobs:
        assert f"{job.name} failed" in caught.value.message
        assert str(job.log) in caught.value.message


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_interrupt_ends_all_jobs(program, tmp_path, number):
    program(
        "import pathlib, sys, time\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try:\n"
        "    path.write_text('started'); time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    path.write_text('interrupted')\n"
    )
    paths = [tmp_path / "a", tmp_path / "b"]
    script = (
        "import os, signal, threading, time, pathlib\n"
        "from ushape.api._devices import Devices, Job\n"
        "from ushape.console import Console\n"
        f"paths = {[str(path) for path in paths]}\n"
        "jobs = [Job(path, [path], pathlib.Path(path + '.log')) for path in paths]\n"
        "def send():\n"
        "    while not all(os.path.exists(p) and open(p).read() for p in paths):\n"
        "        time.sleep(0.05)\n"
        f"    os.kill(os.getpid(), signal.{number})\n"
        "threading.Thread(target=send).start()\n"
        "try:\n"
        "    Devices(['cpu', 'cpu']).run(jobs, Console(quiet=True))\n"
        "except KeyboardInterrupt:\n"
        "    print('ended')\n"
    )
    # The script itself imports the real package, its jobs the replaced one.
    source = str(Path(_devices.__file__).parents[2])
    runner = f"import sys; sys.path.insert(0, {source!r})\n" + script
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-P", "-c", runner], capture_output=True, text=True, check=False
    )
    assert ended.stdout == "ended\n", ended.stderr
    assert time.monotonic() - began < 50
    assert [path.read_text() for path in paths] == ["interrupted", "interrupted"]
