"""Training on the first annotated images: strokes, a second round, an image for the score."""

import numpy as np
import pytest
from PIL import Image

from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.labels import LabelConfig
from ushape.studio.learning import AnnotatedImage, training_command

LABELS = LabelConfig(values=(0, 255), names=("background", "cell"), objects="connected")
NOT_ANNOTATED = 128

SMALL = (
    *("network.widths=[8,16,16]", "sampling.patch_shape=[48,48]", "train.precision=fp32"),
    *("train.batch_size=4", "preprocessing.downscale=1"),
)

pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path):
    """Six images of cells, the first of which has strokes instead of a mask."""
    data = tmp_path / "data"
    write_data_set(data, 6, SyntheticConfig(size=96, groups=6, spacing_px=20), seed=3)
    paths = sorted((data / "images").iterdir())
    first = data / "masks" / paths[0].name
    mask = np.array(Image.open(first))
    strokes = np.full_like(mask, NOT_ANNOTATED)
    strokes[20:23] = mask[20:23]
    strokes[70:73, 10:40] = mask[70:73, 10:40]
    Image.fromarray(strokes).save(first)
    return [
        AnnotatedImage(
            id=path.stem,
            image=path,
            mask=data / "masks" / path.name,
            annotated=0.0 if place else 0.04,
            part="test" if place == 5 else "train",
        )
        for place, path in enumerate(paths)
    ]


def annotate(images, *places):
    """Return the images with whole annotations of some of them."""
    return [
        AnnotatedImage(**{**vars(one), "annotated": 1.0}) if place in places else one
        for place, one in enumerate(images)
    ]


def test_strokes_on_one_image_are_enough_to_predict_the_next(images, ushape, tmp_path):
    run = tmp_path / "first"
    command = training_command(
        images,
        tmp_path / "state",
        output=run,
        minutes=0.1,
        labels=LABELS,
        ignore=NOT_ANNOTATED,
        settings=SMALL,
    )
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    assert "128 = ignored (95.9%)" in ended.output
    assert "Warning" not in ended.output.replace("Warning: only", "").replace("Warning: hardly", "")
    assert "No images are held out for testing" in ended.output
    assert not (run / "report.html").exists()
    ended = ushape("predict", run, images[1].image, "-o", tmp_path / "out")
    assert ended.code == 0, ended.error
    predicted = np.array(Image.open(tmp_path / "out" / images[1].image.name))
    assert predicted.shape == (96, 96)
    assert set(np.unique(predicted)) <= {0, 255}

    again = tmp_path / "second"
    command = training_command(
        annotate(images, 1, 5),
        tmp_path / "state",
        output=again,
        minutes=0.1,
        start_from=run,
        labels=LABELS,
        ignore=NOT_ANNOTATED,
        settings=SMALL[1:4],
    )
    ended = ushape(*command)
    assert ended.code == 0, ended.error
    assert "They are not compared" in ended.output
    assert "Dice" in (again / "model_card.md").read_text()
    assert "test" in ended.output
    assert not (again / "start" / "usual").exists()
    assert (again / "report.html").exists()


def test_strokes_of_the_foreground_alone_are_refused(images, ushape, tmp_path):
    mask = np.array(Image.open(images[0].mask))
    Image.fromarray(np.where(mask == 255, mask, NOT_ANNOTATED)).save(images[0].mask)
    command = training_command(
        images,
        tmp_path / "state",
        output=tmp_path / "run",
        minutes=0.1,
        labels=LABELS,
        ignore=NOT_ANNOTATED,
    )
    ended = ushape(*command)
    assert (ended.code, ended.error_code) == (2, "no_background")
    assert not (tmp_path / "run").exists()
