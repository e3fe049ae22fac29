"""Cross-validation by group, as one command."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from commands import command_environment


def test_cross_validate_tests_each_group_once_and_continues_after_a_kill(
    cells, tiny, ushape, tmp_path
):
    run = tmp_path / "run"
    command = ("cross-validate", cells, "--folds=2", "-o", run, "--epochs=1", *tiny)
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    rows = list(csv.DictReader((run / "scores.csv").read_text().splitlines()))
    assert sorted(row["case"] for row in rows) == sorted(
        p.stem for p in (cells / "masks").iterdir()
    )
    assert "4 groups" in ended.output
    assert (run / "report.html").exists()
    assert len((run / "audit.csv").read_text().splitlines()) == 9
    assert "8 cases" in (run / "audit.html").read_text()
    facts = json.loads((run / "scores.json").read_text())
    assert sum(facts["summary"]["classes"][0]["reliability"]["pixels"]) == 8 * 64 * 64

    # As a kill in the second fold leaves it: a checkpoint, no scores.
    scores = (run / "scores.csv").read_bytes()
    first = (run / "fold-1" / "model.safetensors").stat().st_mtime_ns
    for name in ("report.html", "scores.csv"):
        (run / "fold-2" / name).unlink()
        (run / name).unlink()
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    assert (run / "scores.csv").read_bytes() == scores
    assert (run / "fold-1" / "model.safetensors").stat().st_mtime_ns == first

    ended = ushape(*(a if a != "--folds=2" else "--folds=3" for a in command))
    assert (ended.code, ended.error_code) == (2, "other_request")
    shutil.rmtree(run)
    ended = ushape(*(a if a != "--folds=2" else "--folds=9" for a in command))
    assert (ended.code, ended.error_code) == (2, "too_many_folds")
    assert not (run / "folds.json").exists()


def test_folds_that_are_finished_are_summed_up_if_another_one_fails(cells, tiny, ushape, tmp_path):
    run = tmp_path / "run"
    command = ("cross-validate", cells, "--folds=2", "-o", run, "--epochs=1", *tiny)
    assert ushape(*command).code == 0
    for path in (run / "fold-2/report.html", run / "scores.csv", run / "report.html"):
        path.unlink()
    plan = run / "fold-2/plan.json"
    whole = plan.read_text()
    plan.write_text("{")
    ended = ushape(*command)
    assert (ended.code, ended.error_code) == (2, "damaged_run")
    assert "1 of 2 folds" in (run / "report.html").read_text()
    cases = [row["case"] for row in csv.DictReader((run / "scores.csv").read_text().splitlines())]
    assert len(cases) == 4

    plan.write_text(whole)
    assert ushape(*command).code == 0
    assert "2 of 2 folds" in (run / "report.html").read_text()


def test_cross_validate_refuses_data_that_have_changed(cells, tiny, ushape, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    command = ("cross-validate", data, "--folds=2", "-o", tmp_path / "run", "--epochs=1", *tiny)
    assert ushape(*command).code == 0
    assert "already finished" in ushape(*command).output
    for folder in ("images", "masks"):
        first = min((data / folder).iterdir())
        shutil.copy(first, first.with_stem("dish09_01"))
    ended = ushape(*command)
    assert (ended.code, ended.error_code) == (2, "data_changed")


def test_cross_validate_refuses_another_request(cells, tiny, ushape, tmp_path):
    run = tmp_path / "run"
    command = ("train", cells, "--folds=2", "-o", run, "--epochs=1", *tiny)  # Former spelling.
    assert ushape(*command).code == 0
    ended = ushape(*command, "--seed=9")
    assert (ended.code, ended.error_code) == (2, "other_request")
    assert "different value of recipe" in ended.error
    other = shutil.copytree(cells, tmp_path / "other")
    ended = ushape("train", other, *command[2:])
    assert (ended.code, ended.error_code) == (2, "other_request")
    assert "different value of data" in ended.error
    assert "already finished" in ushape(*command).output


def test_cross_validate_checks_the_duration(cells, tiny, ushape, tmp_path):
    command = ("cross-validate", cells, "--folds=2", "-o", tmp_path / "run", *tiny)
    ended = ushape(*command, "--epochs=1", "--minutes=3")
    assert (ended.code, ended.error_code) == (2, "conflicting_options")
    assert ushape(*command, "--minutes=0").code == 2
    plan = ushape(*command, "--plan=plan.json")  # A plan has one split; the option does not exist.
    assert plan.code == 2
    ended = ushape("cross-validate", cells, "--folds=1")
    assert (ended.code, ended.error_code) == (2, "value_out_of_range")
    assert ushape(*command, "--set=train.epochs=1").code == 0
    rows = (tmp_path / "run" / "fold-2" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2


def test_cross_validate_trains_folds_in_parallel_on_several_devices(cells, tiny, ushape, tmp_path):
    run = tmp_path / "run"
    tiny = [option for option in tiny if not option.startswith("--device")]
    command = ("cross-validate", cells, "--folds=2", "-o", run, "--epochs=1", *tiny)
    ended = ushape(*command, "--device=cpu,cpu")
    assert ended.code == 0, ended.error
    assert "Fold 2 of 2: training on cpu" in ended.output
    assert "4 groups" in ended.output
    assert "Epoch 1/1" in (run / "fold-2.log").read_text()
    # Trained one after another, the folds have the same scores.
    ended = ushape(*command[:4], tmp_path / "one", *command[5:], "--device=cpu")
    assert ended.code == 0, ended.error
    for fold in ("fold-1", "fold-2"):
        side, one = (folder / fold / "scores.csv" for folder in (run, tmp_path / "one"))
        assert side.read_bytes() == one.read_bytes()
    # The failure of a fold is reported, and the other fold is kept.
    (run / "fold-2" / "report.html").unlink()
    (run / "fold-2" / "splits.json").write_text("{}")
    (run / "report.html").unlink()
    ended = ushape(*command, "--device=cpu,cpu")
    assert (ended.code, ended.error_code) == (2, "fold_failed")
    assert "Fold 1 of 2: already finished" in ended.output
    assert "splits.json" in ended.error
    assert ushape(*command, "--device=cpu,gpu").code == 2


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("at_start", [signal.SIG_DFL, signal.SIG_IGN])
def test_ctrl_c_ends_all_folds_and_the_same_command_continues(cells, tiny, tmp_path, at_start):
    """Also where a shell has started the command in the background, with SIGINT ignored."""
    run = tmp_path / "run"
    tiny = [option for option in tiny if not option.startswith("--device")]
    endless = ["cross-validate", str(cells), "--folds=2", "-o", str(run), "--epochs=2000", *tiny]
    process = subprocess.Popen(
        [sys.executable, "-m", "ushape", *endless, "--device=cpu,cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=command_environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, at_start),
    )
    logs = [run / "fold-1.log", run / "fold-2.log"]
    try:
        deadline = time.monotonic() + 200
        while not all(log.exists() and "Epoch 1" in log.read_text() for log in logs):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.terminate()  # Ends the folds as well.
            process.communicate()
    assert process.returncode == 130, said
    assert "Stopped." in said
    for number, log in enumerate(logs, start=1):
        # Each fold has received one interrupt and has evaluated its best weights.
        assert "Stopped" in log.read_text()
        assert (run / f"fold-{number}" / "report.html").exists()
    assert not (run / "report.html").exists()
