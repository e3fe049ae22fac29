"""Train, move the run, predict and evaluate with the command, as a user would."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from submissions import decode_runs, read_submission


def test_train_writes_the_documented_files(trained):
    names = {path.name for path in trained.iterdir()}
    assert {
        "plan.json",
        "splits.json",
        "model.safetensors",
        "metrics.csv",
        "scores.csv",
        "report.html",
        "tensorboard",
        "checkpoints",
    } <= names
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))

    epochs = list(csv.DictReader((trained / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert all(0 <= float(row["validation_dice"]) <= 1 for row in epochs)


def test_plan_of_a_run_contains_no_auto(trained):
    plan = json.loads((trained / "plan.json").read_text())
    left = [key for key, value in _leaves(plan["recipe"]) if value == "auto"]
    assert left == ["name"]


def test_train_scores_test_cases_and_keeps_groups_together(trained):
    splits = json.loads((trained / "splits.json").read_text())
    dish_of = {part: {name[:6] for name in splits[part]} for part in _PARTS}
    assert all(dish_of[part] for part in _PARTS)
    assert not dish_of["train"] & dish_of["test"]
    assert not dish_of["train"] & dish_of["validation"]
    assert not dish_of["validation"] & dish_of["test"]

    scored = {
        row["case"] for row in csv.DictReader((trained / "scores.csv").read_text().splitlines())
    }
    assert scored == set(splits["test"])


def test_report_needs_no_network_and_begins_with_the_verdict(trained):
    page = (trained / "report.html").read_text()
    assert "mean Dice" in page
    assert page.index("mean Dice") < page.index("<table")
    assert 'src="http' not in page
    assert "<script src" not in page


@pytest.mark.parametrize("size", [(64, 64), (41, 77), (9, 130)])
def test_predict_keeps_name_size_and_encoding(trained, cells, ushape, tmp_path, size):
    (tmp_path / "in" / "below").mkdir(parents=True)
    gray = load(min((cells / "images").iterdir()))
    Image.fromarray(np.resize(gray, size)).save(tmp_path / "in" / "below" / "one.png")
    out = tmp_path / "out"

    ended = ushape(
        "predict", trained, tmp_path / "in", "-o", out, "--overlay", "--probabilities=npz"
    )

    assert ended.code == 0, ended.error
    mask = load(out / "below" / "one.png")
    assert mask.shape == size
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}
    assert load(out / "below" / "one_overlay.png").shape == (*size, 3)
    probabilities = np.load(out / "below" / "one.npz")["probabilities"]
    assert probabilities.shape == (1, *size)
    assert ((probabilities[0] >= 0.5) == (mask == 255)).all()


def test_predict_is_the_same_with_a_moved_run(trained, cells, ushape, tmp_path):
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(trained, moved)
    for run, out in ((trained, tmp_path / "a"), (moved, tmp_path / "b")):
        assert ushape("predict", run, cells / "images", "-o", out).code == 0
    names = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_evaluate_again_gives_the_scores_of_the_training(trained, ushape, tmp_path):
    ended = ushape("evaluate", trained, "-o", tmp_path / "again", "--device", "cpu")
    assert ended.code == 0, ended.error
    again = (tmp_path / "again" / "scores.csv").read_text()
    assert again == (trained / "scores.csv").read_text()


def test_evaluate_other_data(trained, cells, ushape, tmp_path):
    ended = ushape("evaluate", trained, cells, "-o", tmp_path / "all")
    assert ended.code == 0, ended.error
    rows = list(csv.DictReader((tmp_path / "all" / "scores.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert "mean Dice" in ended.output


def test_train_with_a_recipe_file_makes_the_same_plan_and_weights(
    trained, cells, ushape, tiny, tmp_path
):
    written = ushape("recipes", "auto")
    assert written.code == 0
    (tmp_path / "mine.yaml").write_text(written.output)
    run, settings = tmp_path / "run", (*tiny, "--set", "predict.tune=false")
    ended = ushape(
        "train", cells, "-o", run, "--epochs", 2, "--recipe", tmp_path / "mine.yaml", *settings
    )
    assert ended.code == 0, ended.error
    assert json.loads((run / "plan.json").read_text()) == json.loads(
        (trained / "plan.json").read_text()
    )
    # With the same seed and machine, the weights are bitwise equal.
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def load(path):
    with Image.open(path) as image:
        return np.asarray(image)


_PARTS = ("train", "validation", "test")


def _leaves(values, path=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def test_predict_rle_contains_the_masks_and_continues_after_a_kill(
    trained, cells, ushape, tmp_path
):
    submission, masks = tmp_path / "submit.csv.gz", tmp_path / "masks"
    images = cells / "images"
    ended = ushape("predict", trained, images, "-o", masks, "--rle", submission)
    assert ended.code == 0, ended.error
    rows = dict(read_submission(submission))
    assert sorted(rows) == sorted(path.name for path in images.iterdir())
    for name, runs in rows.items():
        mask = np.asarray(Image.open(masks / name))
        assert (decode_runs(runs, mask.shape) == (mask > 0)).all()

    # A kill leaves three complete rows and a part of the next.
    lines = [f"{name},{runs}\n" for name, runs in rows.items()]
    begun = tmp_path / ".again.csv.gz.row.part"
    begun.write_text("".join(lines[:3]) + lines[3][:9])
    ended = ushape("predict", trained, images, "--rle", tmp_path / "again.csv.gz")
    assert ended.code == 0, ended.error
    assert (tmp_path / "again.csv.gz").read_bytes() == submission.read_bytes()
    ended = ushape("predict", trained, images, "--rle", submission)
    assert (ended.code, ended.error_code) == (2, "output_exists")
    assert ushape("predict", trained, images).code == 2


def test_train_keeps_pictures_and_weights_of_every_epoch(cells, tiny, ushape, tmp_path):
    run = tmp_path / "run"
    ended = ushape(
        "train", cells, "-o", run, "--epochs=3", *tiny, "--set=train.save_every_epoch=true"
    )
    assert ended.code == 0, ended.error
    kept = sorted(path.name for path in (run / "epochs").iterdir())
    assert kept == ["0001.safetensors", "0002.safetensors", "0003.safetensors"]
    best = (run / "model.safetensors").read_bytes()
    assert best in [path.read_bytes() for path in (run / "epochs").iterdir()]

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()["images"]
    assert tags
    assert all(len(events.Images(tag)) == 3 for tag in tags)
    assert {"validation/dice", "validation/loss", "train/loss"} <= set(events.Tags()["scalars"])
