"""Colors, 16 bits, several classes, volumes, soft edges: nothing but another data folder."""

import csv
import json

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 255]], dtype=np.uint8)


def blobs(rng, shape, classes):
    """A mask of boxes, and an image in which they are brighter by class."""
    mask = np.zeros(shape, np.uint8)
    for index in range(1, classes):
        corner = [int(rng.integers(0, max(1, size // 2))) for size in shape]
        mask[tuple(slice(c, c + max(2, s // 3)) for c, s in zip(corner, shape, strict=True))] = (
            index
        )
    return rng.normal(100, 10, shape) + 60 * mask, mask


@pytest.fixture
def train(ushape, tmp_path):
    def run(*options):
        ended = ushape(
            "train",
            tmp_path / "data",
            "-o",
            tmp_path / "run",
            "--epochs=2",
            "--device=cpu",
            "--set=train.steps_per_epoch=4",
            "--set=network.widths=[4,8]",
            *options,
        )
        assert ended.code == 0, ended.error
        return tmp_path / "run", ended.output

    return run


def test_16_bit_images_with_colored_masks(train, ushape, tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcdef":
        image, mask = blobs(rng, (40, 52), 3)
        for folder in ("images", "labels"):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "data/images" / f"{name}.tif", (image * 100).astype(np.uint16))
        Image.fromarray(COLORS[mask]).save(tmp_path / "data/labels" / f"{name}.png")
    run, said = train()
    assert "uint16" in said
    rows = list(csv.DictReader((run / "scores.csv").read_text().splitlines()))
    assert len({row["class"] for row in rows}) == 2

    assert ushape("predict", run, tmp_path / "data/images", "-o", tmp_path / "out").code == 0
    for name in "abcdef":
        with Image.open(tmp_path / "out" / f"{name}.png") as opened:
            mask = np.asarray(opened)
        assert mask.shape == (40, 52, 3)
        assert (mask[:, :, None] == COLORS).all(axis=-1).any(axis=-1).all()


def test_volumes(train, ushape, tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcd":
        image, mask = blobs(rng, (6, 32, 36), 2)
        for folder, array in (("images", image.astype(np.float32)), ("masks", 255 * mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "data" / folder / f"{name}.tif"
            tifffile.imwrite(path, array, photometric="minisblack")
    run, said = train("--set=train.batch_size=2")
    assert "6 × 32 × 36 pixels" in said
    assert json.loads((run / "plan.json").read_text())["recipe"]["network"]["dims"] == 3
    ended = ushape(
        "predict", run, tmp_path / "data/images/a.tif", "-o", tmp_path / "out", "--overlay"
    )
    assert ended.code == 0, ended.error
    mask = tifffile.imread(tmp_path / "out" / "a.tif")
    assert mask.shape == (6, 32, 36)
    assert set(np.unique(mask)) <= {0, 255}


def test_volumes_of_different_spacings(train, ushape, tmp_path):
    rng = np.random.default_rng(2)
    spacings = [(5, 0.7, 0.8), (4, 1, 1), (6, 0.9, 0.9), (5, 1.2, 1), (3, 0.8, 0.8), (8, 1, 1)]
    for number, spacing in enumerate(spacings):
        shape = tuple(np.divide((48, 40, 36), spacing).round().astype(int).tolist())
        image, mask = blobs(rng, shape, 2)
        for folder, array in (("images", image.astype(np.int16)), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            volume = SimpleITK.GetImageFromArray(array)
            volume.SetSpacing(spacing[::-1])
            volume.SetOrigin((number, -20, 7))
            SimpleITK.WriteImage(volume, str(tmp_path / "data" / folder / f"{number}.nii.gz"))
    run, output = train()
    assert "images are resampled to" in " ".join(output.split())
    images = tmp_path / "data" / "images"
    assert ushape("predict", run, images, "-o", tmp_path / "out").code == 0
    for path in images.iterdir():
        image = SimpleITK.ReadImage(str(path))
        mask = SimpleITK.ReadImage(str(tmp_path / "out" / path.name))
        assert mask.GetSize() == image.GetSize()
        assert mask.GetSpacing() == image.GetSpacing()
        assert mask.GetOrigin() == image.GetOrigin()
    np.save(tmp_path / "x.npy", np.zeros((10, 40, 36), np.int16))
    refused = ushape("predict", run, tmp_path / "x.npy", "-o", tmp_path / "other")
    assert refused.code == 2
    assert "does not specify its spacing" in " ".join(refused.error.split())


def test_soft_edges_need_a_threshold_and_ignored_pixels_count_nowhere(train, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(5):
        image, mask = blobs(rng, (32, 32), 2)
        soft = (200 * mask + rng.integers(0, 50, mask.shape)).astype(np.uint8)
        soft[0] = 255
        for folder, array in (("images", image.astype(np.uint8)), ("masks", soft)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "data" / folder / f"x{index}y.png")
    run, said = train("--set=labels.threshold=128", "--set=labels.ignore=255")
    assert "values from 128 are foreground" in said
    rows = list(csv.DictReader((run / "scores.csv").read_text().splitlines()))
    assert all(int(row["truth_px"]) <= 32 * 31 for row in rows)


def test_minutes_plan_a_schedule_that_ends(ushape, cells, tmp_path):
    """However long it takes: the learning rate has fallen, and the run is whole."""
    run = tmp_path / "run"
    ended = ushape(
        "train",
        cells,
        "-o",
        run,
        "--minutes=0.3",
        "--device=cpu",
        "--set=network.widths=[4,8]",
        "--set=sampling.patch_shape=[32,32]",
    )
    assert ended.code == 0, ended.error
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    # The plan's highest rate is 0.002; the last steps have hardly any left.
    assert float(rows[-1]["learning_rate"]) < 0.0002
    assert (run / "report.html").exists()
