"""Cross-validation by group, as one command."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time


def test_each_group_is_tested_once_and_a_kill_costs_one_fold_at_most(cells, tiny, ushape, tmp_path):
    run = tmp_path / "run"
    command = ("train", cells, "--folds=2", "-o", run, "--epochs=1", *tiny)
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    rows = list(csv.DictReader((run / "scores.csv").read_text().splitlines()))
    assert sorted(row["case"] for row in rows) == sorted(
        p.stem for p in (cells / "masks").iterdir()
    )
    assert "The mean Dice on 4 groups not used in training" in ended.output
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
    assert ended.code == 2
    assert "another cross-validation" in ended.error
    shutil.rmtree(run)
    ended = ushape(*(a if a != "--folds=2" else "--folds=9" for a in command))
    assert ended.code == 2
    assert "9 folds were requested" in ended.error
    assert not (run / "folds.json").exists()


def test_folds_of_data_that_have_changed_since_are_refused(cells, tiny, ushape, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    command = ("train", data, "--folds=2", "-o", tmp_path / "run", "--epochs=1", *tiny)
    assert ushape(*command).code == 0
    assert "finished before" in ushape(*command).output
    for folder in ("images", "masks"):
        first = min((data / folder).iterdir())
        shutil.copy(first, first.with_stem("dish09_01"))
    ended = ushape(*command)
    assert ended.code == 2
    assert "files were added, taken away or changed" in ended.error


def test_folds_of_another_question_are_refused(cells, tiny, ushape, tmp_path):
    run = tmp_path / "run"
    command = ("train", cells, "--folds=2", "-o", run, "--epochs=1", *tiny)
    assert ushape(*command).code == 0
    ended = ushape(*command, "--seed=9")
    assert ended.code == 2
    assert "another cross-validation: recipe was not" in ended.error
    other = shutil.copytree(cells, tmp_path / "other")
    ended = ushape("train", other, *command[2:])
    assert ended.code == 2
    assert "another cross-validation: data was not" in ended.error
    assert "finished before" in ushape(*command).output


def test_folds_take_the_length_that_was_asked_for(cells, tiny, ushape, tmp_path):
    command = ("train", cells, "--folds=2", "-o", tmp_path / "run", *tiny)
    ended = ushape(*command, "--epochs=1", "--minutes=3")
    assert ended.code == 2
    assert "Both minutes and epochs" in ended.error
    assert ushape(*command, "--minutes=0").code == 2
    assert ushape(*command, "--set=train.epochs=1").code == 0
    rows = (tmp_path / "run" / "fold-2" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2


def test_folds_side_by_side_on_several_devices(cells, tiny, ushape, tmp_path):
    run = tmp_path / "run"
    tiny = [option for option in tiny if not option.startswith("--device")]
    command = ("train", cells, "--folds=2", "-o", run, "--epochs=1", *tiny)
    ended = ushape(*command, "--device=cpu,cpu")
    assert ended.code == 0, ended.error
    assert "Fold 2 of 2 on cpu" in ended.output
    assert "The mean Dice on 4 groups not used in training" in ended.output
    assert "Epoch 1/1" in (run / "fold-2.log").read_text()
    # One after another they are the same networks.
    ended = ushape(*command[:4], tmp_path / "one", *command[5:], "--device=cpu")
    assert ended.code == 0, ended.error
    for fold in ("fold-1", "fold-2"):
        side, one = (folder / fold / "scores.csv" for folder in (run, tmp_path / "one"))
        assert side.read_bytes() == one.read_bytes()
    # A fold that fails is told, the other is kept.
    (run / "fold-2" / "report.html").unlink()
    (run / "fold-2" / "splits.json").write_text("{}")
    (run / "report.html").unlink()
    ended = ushape(*command, "--device=cpu,cpu")
    assert ended.code == 2
    assert "Fold 1 of 2: finished before" in ended.output
    assert "Fold 2 of 2 failed on cpu:" in ended.error
    assert "splits.json cannot be read" in ended.error
    assert ushape(*command, "--device=cpu,gpu").code == 2


def test_ctrl_c_ends_all_folds_and_the_same_command_goes_on(cells, tiny, tmp_path):
    run = tmp_path / "run"
    tiny = [option for option in tiny if not option.startswith("--device")]
    endless = ["train", str(cells), "--folds=2", "-o", str(run), "--epochs=2000", *tiny]
    process = subprocess.Popen(
        [sys.executable, "-m", "ushape", *endless, "--device=cpu,cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    logs = [run / "fold-1.log", run / "fold-2.log"]
    while not all(log.exists() and "Epoch 1" in log.read_text() for log in logs):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    for number, log in enumerate(logs, start=1):
        # Each was told once: it evaluated what it had.
        assert "Stopped" in log.read_text()
        assert (run / f"fold-{number}" / "report.html").exists()
    assert not (run / "report.html").exists()
