"""A search for better settings, as one command."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import ushape as package
from commands import command_environment
from ushape.api import tune as module
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning.run import Run
from ushape.training.study import Study

POSIX = pytest.mark.skipif(os.name != "posix", reason="kills a process")
TINY = ("network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.workers=0")


@pytest.fixture(scope="module")
def dishes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "dishes"
    write_data_set(folder, 9, SyntheticConfig(size=48, groups=9), seed=3)
    return folder


opened = []
is_recording = False


def _record(event, arguments):
    if is_recording and event == "open":
        opened.append(str(arguments[0]))


def test_no_trial_reads_a_test_case_and_the_final_training_does(dishes, tmp_path, monkeypatch):
    run_all = module.TrialRunner.run_all

    def recorded(*arguments):
        global is_recording
        is_recording = True
        try:
            run_all(*arguments)
        finally:
            is_recording = False

    sys.addaudithook(_record)
    # srun starts the command several times; any of the programs trains in the end, alone.
    for name, value in {"STEP_NUM_TASKS": "2", "PROCID": "1", "LOCALID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(module.TrialRunner, "run_all", recorded)
    found = package.tune(
        dishes,
        output=tmp_path / "out",
        epochs=1,
        trials=3,
        settings=[*TINY, "train.steps_per_epoch=2"],
        search=["train.learning_rate=0.01,0.02"],
        device="cpu",
        quiet=True,
    )
    splits = json.loads((tmp_path / "out" / "splits.json").read_text())
    read = {case_id for case_id in splits["test"] if any(case_id in name for name in opened)}
    assert splits["test"]
    assert not read
    for part in ("train", "validation"):
        assert all(any(case_id in name for name in opened) for case_id in splits[part])

    assert [row.chosen["train.learning_rate"] for row in found.trials] == [
        "planned",
        "0.01",
        "0.02",
    ]
    assert found.summary.classes
    plan = Run(found.folder).load_plan()
    rate = float(found.settings[0].partition("=")[2]) if found.settings else 0.002
    assert plan.recipe.train.learning_rate == rate
    assert json.loads((found.folder / "splits.json").read_text())["test"] == splits["test"]
    result = json.loads((tmp_path / "out" / "search.json").read_text())
    assert [one["number"] for one in result["trials"]] == [1, 2, 3]
    assert (tmp_path / "out" / "search.html").exists()
    assert not list((tmp_path / "out" / "trials").rglob("*.safetensors"))


@POSIX
def test_processes_share_trials_and_a_killed_one_loses_only_its_trial(dishes, tmp_path):
    folder = tmp_path / "out"
    search = ("--search=train.learning_rate=0.01,0.02", "--search=augment=planned")
    search += ("--search=loss.terms=planned", "--search=preprocessing.downscale=planned")
    settings = [f"--set={one}" for one in (*TINY, "train.steps_per_epoch=20")]
    command = ["tune", dishes, "-o", folder, "--epochs=8", "--trials=3", "--device=cpu"]
    command = [sys.executable, "-m", "ushape", *map(str, command), *search, *settings]

    def start():
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=command_environment(), **quiet)

    first = start()
    while not (folder / "trials" / "001" / "metrics.csv").exists():
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    ended = [process.communicate() for process in [start(), start()]]
    assert (folder / "best" / "report.html").exists(), ended

    stored = json.loads((folder / "tune.json").read_text())
    design = module.config.from_dict(module.SearchDesign, stored["design"], source="design")
    rows = Study(folder / "trials.log", design.space, 0).rows
    assert [row.state for row in rows].count("lost") == 1
    assert [row.state for row in rows].count("finished") == 3
    assert sorted(row.chosen["train.learning_rate"] for row in rows if row.state != "lost") == [
        "0.01",
        "0.02",
        "planned",
    ]


def test_search_on_several_devices_trains_in_the_end_on_the_whole_machine(ushape, dishes, tmp_path):
    folder = tmp_path / "out"
    settings = [f"--set={one}" for one in (*TINY, "train.steps_per_epoch=2")]
    search = ("--epochs=1", "--trials=2", "--search=train.learning_rate=0.01")
    ended = ushape("tune", dishes, "-o", folder, "--device=cpu,cpu", *search, *settings)
    assert ended.code == 0, ended.output + ended.error
    assert "Final training:" in ended.output
    logs = [path.read_text() for path in folder.glob("process-*.log")]
    assert len(logs) == 2
    assert not any("Final training:" in text for text in logs)
    final, trial = (Run(folder / name).load_plan().machine for name in ("best", "trials/001"))
    assert final.main_memory_bytes // 2 == trial.main_memory_bytes
    assert max(1, final.cores // 2) == trial.cores
