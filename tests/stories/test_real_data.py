"""Each real data set is read, split, learned from, predicted. They lie beside the project."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ushape import io

DATA = Path(__file__).parents[3] / "shared" / "data"
STEPS = (
    "--device=cpu",
    "--epochs=1",
    "--set=network.widths=[4,8,8]",
    "--set=sampling.patch_shape=[64,64]",
    "--set=train.steps_per_epoch=4",
    "--set=train.max_validation_cases=2",
    "--set=predict.tile_shape=[512,512]",
)


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def train(ushape, tmp_path):
    """Trains for a few steps; returns the run folder and what was said."""

    def run(data, *options):
        ended = ushape("train", data, "-o", tmp_path / "run", *STEPS, *options)
        assert ended.code == 0, ended.error
        return tmp_path / "run", ended.output

    return run


def parts_of(run):
    splits = json.loads((run / "splits.json").read_text())
    return [splits[part] for part in ("train", "validation", "test")]


def test_sections_of_a_microscope(train, ushape, tmp_path):
    run, said = train(DATA / "isbi2012" / "train")
    assert (
        "30 pairs of image and mask (images/ next to labels/); 512 × 512 pixels, 1 channel" in said
    )
    assert "0 = background (22" in said
    assert "one stack of 30 neighboring sections" in said
    for part in parts_of(run):
        numbers = sorted(map(int, part))
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    unlabeled = DATA / "isbi2012" / "test" / "images"
    ended = ushape("predict", run, unlabeled / "00.png", "-o", tmp_path / "out")
    assert ended.code == 0, ended.error
    with Image.open(tmp_path / "out" / "00.png") as mask:
        assert mask.size == (512, 512)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_patients_of_a_hospital(ushape, tmp_path):
    """Some of the patients, linked into a folder: reading all would take a while."""
    patients = sorted(path for path in (DATA / "lgg" / "kaggle_3m").iterdir() if path.is_dir())
    (tmp_path / "some").mkdir()
    for patient in patients[:5]:
        target = tmp_path / "some" / patient.name
        target.mkdir()
        for path in patient.glob("*.tif"):
            (target / path.name).symlink_to(path.resolve())
    ended = ushape("train", tmp_path / "some", "-o", tmp_path / "run", *STEPS)
    assert ended.code == 0, ended.error
    assert "3 channels (RGB)" in ended.output
    assert "Groups: 5, by the beginning of the names" in ended.output
    patients_of = [{case.split("/")[0] for case in part} for part in parts_of(tmp_path / "run")]
    assert [len(part) for part in patients_of] == [3, 1, 1]
    assert not set.intersection(*patients_of)
    rows = read_csv(tmp_path / "run" / "scores.csv")
    kinds = {"both present", "missed", "false positive", "both empty"}
    assert {row["kind"] for row in rows} <= kinds
    assert all(row["dice"] == "" for row in rows if row["kind"] == "both empty")


def test_cars_with_palette_masks(train, ushape, tmp_path):
    cars = DATA / "carvana"
    run, said = train(cars / "train_512", "--masks", cars / "train_masks_512")
    assert "512 pairs" in said
    assert "32, by the beginning of the names (16 images each)" in said
    cars_of = [{case.split("_")[0] for case in part} for part in parts_of(run)]
    assert sum(map(len, cars_of)) == 32

    image = min((cars / "train").glob("*.jpg"))
    ended = ushape("predict", run, image, "-o", tmp_path / "out")
    assert ended.code == 0, ended.error
    mask = io.read_mask(tmp_path / "out" / f"{image.stem}.gif")
    assert mask.codes.shape == (1280, 1918)
    assert mask.encoding.kind == "palette"
    assert set(np.unique(mask.codes)) <= {0, 1}
