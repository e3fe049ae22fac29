"""The scan inside whole commands: how often images are decoded, and merged groups."""

import csv
import json
import shutil
from collections import Counter

import pytest

import ushape
from ushape import io


@pytest.fixture(scope="module")
def reads(cells, tmp_path_factory):
    """Number of times that a training decodes each image, by the part of the split."""
    counts = Counter()
    run = tmp_path_factory.mktemp("reads") / "run"

    def counting(path, original=io.read):
        counts[path.stem] += 1
        return original(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "read", counting)
        ushape.train(
            cells,
            output=run,
            epochs=1,
            device="cpu",
            settings=["network.widths=[4,8]", "train.batch_size=2", "train.steps_per_epoch=2"],
        )
    splits = json.loads((run / "splits.json").read_text())
    return {
        part: [counts[case_id] for case_id in splits[part]]
        for part in ("train", "validation", "test")
    }


def test_training_images_are_decoded_by_scan_and_preprocessing_only(reads):
    assert set(reads["train"]) == {2}


def test_validation_images_are_decoded_at_most_twice(reads):
    assert max(reads["validation"]) <= 2


def test_test_images_are_decoded_at_most_twice(reads):
    assert max(reads["test"]) <= 2


def test_evaluation_of_other_data_merges_groups_that_share_duplicates(trained, cells, tmp_path):
    data = shutil.copytree(cells, tmp_path / "data")
    shutil.copy(data / "images" / "dish01_01.png", data / "images" / "dish03_02.png")
    ushape.evaluate(trained, data, output=tmp_path / "scores", device="cpu")
    rows = csv.DictReader((tmp_path / "scores" / "scores.csv").read_text().splitlines())
    group_of = {row["case"]: row["group"] for row in rows}
    assert group_of["dish01_01"] == group_of["dish03_02"] == "dish01"
    assert len(set(group_of.values())) == 3
