"""The benefit of more annotated groups, as one command."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

import ushape as package
from commands import command_environment
from ushape.datasets.synthetic import SyntheticConfig, write_data_set

POSIX = pytest.mark.skipif(os.name != "posix", reason="sends signals to process groups")


@pytest.fixture(scope="module")
def dishes(tmp_path_factory):
    """Two small images from each of nine dishes: six for training."""
    folder = tmp_path_factory.mktemp("data") / "dishes"
    write_data_set(folder, 18, SyntheticConfig(size=64, groups=9), seed=3)
    return folder


@pytest.fixture(scope="module")
def command(dishes, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "curve"
    return ("learning-curve", dishes, "-o", folder, "--epochs=2", "--points=3", *tiny)


@pytest.fixture(scope="module")
def curve(command, ushape):
    """A finished curve: its folder and what was said."""
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    return command[3], ended.output


def _start(command, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "ushape", *map(str, command)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=command_environment(),
        **{"stdout": subprocess.DEVNULL, **options},
    )


def _wait_for(is_reached, process):
    deadline = time.monotonic() + 120
    while not is_reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _has_epochs(run, count):
    metrics = run / "metrics.csv"
    return metrics.exists() and len(metrics.read_text().splitlines()) > count


def _splits(folder, count):
    return json.loads((folder / f"groups-{count}" / "splits.json").read_text())


def test_learning_curve_points_are_runs_and_the_last_has_all_groups(
    curve, dishes, ushape, tmp_path
):
    folder, output = curve
    assert "training on 2, 3, 6 groups" in output
    small, middle, whole = (_splits(folder, count) for count in (2, 3, 6))
    for part in ("validation", "test"):
        assert small[part] == middle[part] == whole[part]
    assert set(small["train"]) < set(middle["train"]) < set(whole["train"])
    assert len(small["train"]) == 4
    assert len({case.split("_")[0] for case in small["train"]}) == 2
    assert whole["unused"] == []
    assert sorted(small["unused"] + small["train"]) == whole["train"]
    assert "Not used: 8 cases" in small["text"]

    ended = ushape("predict", folder / "groups-2", dishes / "images", "-o", tmp_path / "masks")
    assert ended.code == 0, ended.error
    plans = [json.loads((folder / f"groups-{n}" / "plan.json").read_text()) for n in (2, 3, 6)]
    assert {plan["recipe"]["train"]["epochs"] for plan in plans} == {2}
    assert {plan["recipe"]["train"]["steps_per_epoch"] for plan in plans} == {6}


def test_learning_curve_writes_page_and_tables_that_agree(curve):
    folder, output = curve
    stored = json.loads((folder / "learning_curve.json").read_text())
    assert stored["verdict"] in output
    rows = list(csv.DictReader((folder / "learning_curve.csv").read_text().splitlines()))
    assert [(row["groups"], row["run"]) for row in rows] == [
        ("2", "groups-2"),
        ("3", "groups-3"),
        ("6", "groups-6"),
    ]
    assert stored["test_groups"] == 2
    page = (folder / "learning_curve.html").read_text()
    assert "<svg" in page
    assert stored["verdict"].split(":")[0] in page


def test_learning_curve_keeps_finished_points_and_refuses_other_requests(
    curve, command, ushape, dishes
):
    folder, _ = curve
    kept = folder / "groups-2" / "model.safetensors"
    before, numbers = kept.stat().st_mtime_ns, (folder / "learning_curve.csv").read_bytes()
    # As a kill in the last point leaves it: weights, no scores.
    for path in (folder / "groups-6" / "report.html", folder / "learning_curve.csv"):
        path.unlink()
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    assert ended.output.count("already finished") == 2
    assert kept.stat().st_mtime_ns == before
    assert (folder / "learning_curve.csv").read_bytes() == numbers

    for other, key in (("--seed=9", "recipe"), ("--points=4", "points")):
        ended = ushape(*command, other)
        assert (ended.code, ended.error_code) == (2, "other_request")
        assert f"different value of {key}" in ended.error
    ended = ushape("cross-validate", dishes, "-o", folder, "--folds=2", "--epochs=1")
    assert (ended.code, ended.error_code) == (2, "not_a_series")


@POSIX
def test_ctrl_c_ends_a_point_that_the_same_command_continues(command, tmp_path):
    folder = tmp_path / "curve"
    endless = [*command[:3], folder, "--epochs=2000", *command[5:]]
    for epochs in (1, 3):
        process = _start(endless, stdout=subprocess.PIPE, text=True)
        _wait_for(partial(_has_epochs, folder / "groups-2", epochs), process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 130, said
        assert "Stopped in point 1 of 3, 2 of 6 groups for training." in said
        assert "already finished" not in said
        assert (folder / "groups-2" / "report.html").exists()
        assert not (folder / "groups-3").exists()
        assert not (folder / "learning_curve.html").exists()


@POSIX
def test_learning_curve_is_the_same_after_kills(curve, command, ushape, tmp_path):
    folder, _ = curve
    again = [*command[:3], tmp_path / "curve", *command[4:]]
    for moment in ("points.json", "groups-2/plan.json", "groups-3/metrics.csv"):
        process = _start(again)
        _wait_for((tmp_path / "curve" / moment).exists, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ended = ushape(*again)
    assert ended.code == 0, ended.error
    for name in ("learning_curve.csv", "groups-3/scores.csv", "groups-3/model.safetensors"):
        assert (tmp_path / "curve" / name).read_bytes() == (folder / name).read_bytes(), name


def test_learning_curve_refuses_few_groups_few_points_and_other_folders(
    cells, dishes, tiny, ushape, tmp_path
):
    ended = ushape("learning-curve", cells, "-o", tmp_path / "few", "--epochs=1", *tiny)
    assert (ended.code, ended.error_code) == (2, "too_few_groups")
    assert "Annotate 1 more" in ended.error
    assert not (tmp_path / "few").exists()

    ended = ushape("learning-curve", dishes, "--points=2")
    assert (ended.code, ended.error_code) == (2, "value_out_of_range")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    ended = ushape("learning-curve", dishes, "-o", tmp_path / "mine")
    assert (ended.code, ended.error_code) == (2, "not_a_series")


def test_learning_curve_shares_the_minutes_and_returns_the_numbers(dishes, tmp_path):
    found = package.learning_curve(
        dishes,
        output=tmp_path / "curve",
        minutes=0.6,
        points=3,
        device="cpu",
        settings=["network.widths=[4,8,8]", "sampling.patch_shape=[32,32]"],
    )
    assert [point.groups for point in found.points] == [2, 3, 6]
    assert "2 test groups" in found.verdict
    assert [gain.factor for gain in found.gains] == [2, 4]
    minutes = [
        json.loads((point.folder / "plan.json").read_text())["recipe"]["train"]["minutes"]
        for point in found.points
    ]
    assert len(set(minutes)) == 1
    # A third of what the scan has left, and on a slow machine at least a tenth of that.
    assert 0.019 < minutes[0] < 0.2
    shutil.rmtree(tmp_path / "curve")
