import numpy as np
import pytest
import torch
from torch import nn

from ushape.labels import LabelSpace
from ushape.models import build_model
from ushape.models.unet import UNetConfig
from ushape.prediction.tiled import TileSettings, predict_probabilities
from ushape.spatial.symmetry import symmetries
from ushape.spatial.tiles import TilingConfig

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))
rng = np.random.default_rng(0)


class Identity(nn.Module):
    """Gives its input back as logits; legal sizes are multiples of 4; may lose a margin."""

    def __init__(self, margin=0):
        super().__init__()
        self.margin, self.unused = margin, nn.Parameter(torch.zeros(1))
        self.shapes = []

    def legal_size(self, at_least):
        return -(-at_least // 4) * 4

    def forward(self, x):
        assert all(size % 4 == 0 for size in x.shape[2:])
        self.shapes.append(tuple(x.shape[2:]))
        inner = [slice(self.margin, size - self.margin) for size in x.shape[2:]]
        return x[(slice(None), slice(None), *inner)]


def settings(*shape, overlap=0.25, average="none", axes=()):
    return TileSettings(
        shape=shape,
        tiling=TilingConfig(overlap_fraction=overlap),
        symmetries=symmetries(average, axes, len(shape)),
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("margin", [0, 6])
@pytest.mark.parametrize("shape", [(8, 8), (33, 50), (3, 70), (1, 1), (9, 10, 11)])
@pytest.mark.parametrize("average", ["none", "mirrored", "rotated_7", "all_8"])
def test_identity_network_gives_the_image_back(shape, margin, average):
    image = rng.standard_normal((1, *shape)).astype(np.float32)
    network = Identity(margin).eval()
    tile = (16,) * len(shape)
    found = predict_probabilities(
        network, image, SPACE, settings(*tile, average=average, axes=(0, 1))
    )
    np.testing.assert_allclose(found, sigmoid(image), atol=1e-5)


def test_what_fits_is_predicted_in_one_pass():
    network = Identity().eval()
    predict_probabilities(network, np.zeros((1, 30, 31), np.float32), SPACE, settings(32, 32))
    assert network.shapes == [(32, 32)]
    network.shapes.clear()
    predict_probabilities(network, np.zeros((1, 100, 31), np.float32), SPACE, settings(32, 32))
    assert len(network.shapes) == 4
    assert set(network.shapes) == {(32, 32)}


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_parts_equal_the_whole_where_the_network_sees_enough(padding):
    """A shallow network whose view is smaller than the overlap: tiles change nothing inside."""
    torch.manual_seed(0)
    config = UNetConfig(widths=(4, 4), norm="batch", padding=padding)
    network = build_model(config, 1, 1).eval()
    image = rng.standard_normal((1, 96, 96)).astype(np.float32)
    with torch.inference_mode():
        whole = predict_probabilities(network, image, SPACE, settings(96, 96))
        tiled = predict_probabilities(network, image, SPACE, settings(64, 64, overlap=0.75))
    if padding == "valid":
        np.testing.assert_allclose(tiled, whole, atol=1e-5)
    else:  # Zeros at a tile's edges disturb it there, where it is hardly trusted.
        assert np.abs(tiled - whole)[:, 20:-20, 20:-20].max() < 0.02


def test_mirroring_averages_what_the_network_says_of_each_side():
    class Leaning(Identity):
        def forward(self, x):
            ramp = torch.linspace(-2, 2, x.shape[-1])
            return x + ramp

    image = np.zeros((1, 8, 8), np.float32)
    found = predict_probabilities(
        Leaning().eval(), image, SPACE, settings(8, 8, average="mirrored", axes=(1,))
    )
    np.testing.assert_allclose(found, 0.5, atol=1e-5)


def test_a_network_in_training_is_refused():
    with pytest.raises(AssertionError, match="prediction"):
        predict_probabilities(Identity().train(), np.zeros((1, 8, 8)), SPACE, settings(8, 8))
