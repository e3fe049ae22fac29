import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ushape.api.plan import TrainOptions
from ushape.data.layouts.table import read_table
from ushape.errors import DataError
from ushape.labels import LabelConfig
from ushape.studio.learning import AnnotatedImage, training_command


@pytest.fixture
def images(tmp_path):
    """Five images: two annotated, one without annotation, one for the test, one set aside."""
    found = []
    for name, annotated, part in (
        ("a", 1.0, "train"),
        ("b, c", 0.01, "train"),
        ("empty", 0.0, "train"),
        ("kept", 1.0, "test"),
        ("aside", 1.0, "none"),
    ):
        for kind in ("images", "masks"):
            path = tmp_path / "data" / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
        found.append(
            AnnotatedImage(
                id=name,
                image=tmp_path / "data" / "images" / f"{name}.png",
                mask=tmp_path / "data" / "masks" / f"{name}.png",
                annotated=annotated,
                group="dish" if name == "kept" else None,
                part=part,
            )
        )
    return found


def test_training_command_lists_annotated_images_with_their_part(images, tmp_path):
    command = training_command(images, tmp_path / "state", output=tmp_path / "run", minutes=0.4)
    table = tmp_path / "state" / "training.csv"
    assert command[:2] == ["train", str(table)]
    assert command[command.index("-o") + 1] == str(tmp_path / "run")
    assert command[command.index("--minutes") + 1] == "0.4"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["split"]) for row in rows] == [
        ("a", "train"),
        ("b, c", "train"),
        ("dish", "test"),
    ]
    assert len(read_table(table).images) == 3


def test_training_command_has_settings_that_train_accepts(images, tmp_path):
    labels = LabelConfig(values=(0, 128, 255), names=("back", "a: b", "c"), objects="connected")
    command = training_command(
        images, tmp_path, output=tmp_path / "run", minutes=1, labels=labels, ignore=7
    )
    settings = [command[place + 1] for place, word in enumerate(command) if word == "--set"]
    recipe = TrainOptions.resolve(settings=settings, minutes=1).recipe
    assert recipe.labels.values == (0, 128, 255)
    assert recipe.labels.names == ("back", "a: b", "c")
    assert recipe.labels.ignore == 7
    assert recipe.labels.objects == "connected"
    assert recipe.split.parts == ()
    assert not recipe.train.compare_start


def test_training_command_refuses_images_without_annotation(images, tmp_path):
    with pytest.raises(DataError) as error:
        training_command(images[2:], tmp_path, output=tmp_path / "run", minutes=1)
    assert error.value.code == "nothing_annotated"


def test_training_that_splits_gets_no_parts_and_only_known_groups(images, tmp_path):
    used = [one for one in images if one.part == "train"]
    for group, columns in ((None, ["image", "mask"]), ("g", ["image", "mask", "group"])):
        rows = [replace(one, group=group) for one in used]
        command = training_command(rows, tmp_path, output=tmp_path / "run", minutes=1, splits=True)
        assert not any(part.startswith("split.") for part in command)
        with (tmp_path / "training.csv").open(newline="") as file:
            assert csv.DictReader(file).fieldnames == columns
