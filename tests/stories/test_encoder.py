"""A training starts from a file of weights of an encoder: network.encoder_weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from ushape.models.efficientnet import EfficientNetLite0

SMALL = (
    "--device=cpu",
    "--epochs=1",
    "--set=network.widths=[16,24]",
    "--set=sampling.patch_shape=[64,64]",
    "--set=train.batch_size=2",
    "--set=train.steps_per_epoch=3",
    "--set=train.precision=fp32",
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Six color images of a disk."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    y, x = np.mgrid[:72, :80]
    for number in range(6):
        disk = (y - rng.integers(20, 52)) ** 2 + (x - rng.integers(20, 60)) ** 2 < 15**2
        image = rng.integers(90, 160, (72, 80, 3)) + disk[..., None] * np.array([60, -40, 10])
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(disk.astype(np.uint8) * 255).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights as that of timm, with random values."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    safetensors.torch.save_file(EfficientNetLite0(3).state_dict(), path)
    return path


def test_training_from_the_weights_of_an_encoder(photographs, weights, ushape, tmp_path):
    run = tmp_path / "run"
    named = f"--set=network.encoder_weights={weights}"
    frozen = "--set=train.encoder_freeze_fraction=1"
    ended = ushape("train", photographs, "-o", run, named, frozen, *SMALL)
    assert ended.code == 0, ended.error
    assert "Encoder: EfficientNet-Lite0, starting from the weights of encoder.saf" in ended.output
    plan = json.loads((run / "plan.json").read_text())
    assert plan["encoder"]["checksum"] in (run / "model_card.md").read_text()

    # The encoder did not change: it still has the kernels of the file.
    known = safetensors.torch.load_file(weights)
    found = safetensors.torch.load_file(run / "model.safetensors")
    kernels = [name for name in known if name.startswith("blocks.0") and name.endswith("pw.weight")]
    assert kernels
    for name in kernels:
        torch.testing.assert_close(found[f"encoder.{name}"], known[name])

    # Afterwards the file is not needed.
    Path(weights).rename(tmp_path / "moved.safetensors")
    image = next((photographs / "images").iterdir())
    ended = ushape("predict", run, image, "-o", tmp_path / "masks")
    assert ended.code == 0, ended.error
    ended = ushape("train", photographs, "-o", tmp_path / "other", named, *SMALL)
    assert ended.code != 0
    assert "there is no such file" in ended.error
