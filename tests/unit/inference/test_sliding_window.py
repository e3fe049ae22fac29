import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ushape.errors import DataError
from ushape.inference import sliding_window
from ushape.inference.network import TorchNetwork
from ushape.inference.sliding_window import (
    ArrayRows,
    TileSettings,
    sliding_bands,
    sliding_window_batch,
)
from ushape.inference.sliding_window import (
    sliding_window as predict_image,
)
from ushape.labels import LabelSpace
from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.transforms.tiling import symmetries

SPACE = LabelSpace(values=(0, 1), names=("background", "foreground"))
rng = np.random.default_rng(0)


class Identity(nn.Module):
    """Network that returns its input without a margin as logits; legal sizes are multiples of 4."""

    def __init__(self, margin=0):
        super().__init__()
        self.margin, self.unused = margin, nn.Parameter(torch.zeros(1))
        self.shapes = []

    def legal_size(self, at_least):
        return -(-at_least // 4) * 4

    def logits(self, tiles):
        return self(tiles)

    def forward(self, x):
        assert all(size % 4 == 0 for size in x.shape[2:])
        self.shapes += [tuple(x.shape[2:])] * len(x)
        inner = [slice(self.margin, size - self.margin) for size in x.shape[2:]]
        return x[(slice(None), slice(None), *inner)]


class Layers(Identity):
    """Layers that keep the size of their input."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return self.layers(x.to(memory_format=torch.channels_last))


@pytest.fixture
def restored_threads():
    """Restore the number of threads of torch after the test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def settings(*shape, overlap=0.25, average="none", axes=()):
    return TileSettings(
        shape=shape,
        overlap_fraction=overlap,
        symmetries=symmetries(average, axes, len(shape)),
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("margin", [0, 6])
@pytest.mark.parametrize("shape", [(8, 8), (33, 50), (3, 70), (1, 1), (9, 10, 11)])
@pytest.mark.parametrize("average", ["none", "mirrored", "rotated_7", "all_8"])
def test_sliding_window_of_an_identity_network_is_the_identity(shape, margin, average):
    image = rng.standard_normal((1, *shape)).astype(np.float32)
    network = Identity(margin).eval()
    tile = (16,) * len(shape)
    found = predict_image(network, image, SPACE, settings(*tile, average=average, axes=(0, 1)))
    np.testing.assert_allclose(found, sigmoid(image), atol=1e-5)


def test_sliding_window_uses_one_pass_for_a_small_image():
    network = Identity().eval()
    predict_image(network, np.zeros((1, 40, 31), np.float32), SPACE, settings(32, 32))
    assert network.shapes == [(40, 32)]
    network.shapes.clear()
    predict_image(network, np.zeros((1, 100, 31), np.float32), SPACE, settings(32, 32))
    # (100 + 2 * 8) / 3 = 39 rows, in sizes that the network takes.
    assert network.shapes == [(40, 32)] * 3


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_sliding_window_equals_the_whole_image_if_tiles_overlap_enough(padding):
    """A shallow network whose receptive field is smaller than the overlap of tiles."""
    torch.manual_seed(0)
    config = NetworkConfig(widths=(4, 4), norm="batch", padding=padding)
    module = build_model(config, 1, 1).eval()
    network = TorchNetwork(module, torch.contiguous_format)
    image = rng.standard_normal((1, 96, 96)).astype(np.float32)
    whole = predict_image(network, image, SPACE, settings(96, 96))
    tiled = predict_image(network, image, SPACE, settings(48, 48, overlap=0.6))
    if padding == "valid":
        np.testing.assert_allclose(tiled, whole, atol=1e-5)
    else:  # Zeros at a tile's edges disturb it there, where it is hardly trusted.
        assert np.abs(tiled - whole)[:, 20:-20, 20:-20].max() < 0.02


@pytest.mark.parametrize(("average", "columns"), [("none", 36), ("all_8", 36), ("none", 37)])
def test_sliding_window_with_strides_per_axis_equals_the_whole_volume(average, columns):
    """Tiles have legal sizes along each axis; z has an odd one, and is not padded."""
    torch.manual_seed(0)
    config = NetworkConfig(
        dims=3,
        widths=(2, 2),
        norm="batch",
        stem=(1, 2, 2),
        strides=((1, 1, 2),),
        kernels=((1, 3, 3),) * 2,
    )
    module = build_model(config, 1, 1).eval()
    shapes = []
    module.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape[2:])))
    network = TorchNetwork(module, torch.contiguous_format)
    volume = rng.standard_normal((1, 5, 48, columns)).astype(np.float32)
    whole = predict_image(network, volume, SPACE, settings(5, 48, 48, average=average))
    assert {shape[0] for shape in shapes} == {5}
    shapes.clear()
    tiled = predict_image(network, volume, SPACE, settings(3, 48, 48, overlap=0, average=average))
    assert {shape[0] for shape in shapes} == {3}  # Overlapping ones: no slice sees another.
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    rows = predict_image(network, volume, SPACE, settings(5, 32, 48, overlap=0.6, average=average))
    assert np.abs(rows - whole)[:, :, 10:-10, 10:-10].max() < 0.1


def test_sliding_window_averages_mirrored_predictions():
    class Leaning(Identity):
        def forward(self, x):
            ramp = torch.linspace(-2, 2, x.shape[-1])
            return x + ramp

    image = np.zeros((1, 8, 8), np.float32)
    found = predict_image(
        Leaning().eval(), image, SPACE, settings(8, 8, average="mirrored", axes=(1,))
    )
    np.testing.assert_allclose(found, 0.5, atol=1e-5)


def test_torch_network_refuses_training_mode():
    with pytest.raises(AssertionError, match="prediction"):
        TorchNetwork(Identity().train(), torch.contiguous_format)


@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    tile=st.tuples(st.integers(4, 24), st.integers(4, 24)),
    overlap=st.floats(0, 0.6),
    margin=st.sampled_from([0, 6]),
)
def test_sliding_bands_cover_the_image_in_order(shape, tile, overlap, margin):
    image = rng.standard_normal((1, *shape)).astype(np.float32)
    bands = list(
        sliding_bands(
            Identity(margin).eval(), ArrayRows(image), SPACE, settings(*tile, overlap=overlap)
        )
    )
    assert sum(band.shape[1] for band in bands) == shape[0]
    np.testing.assert_allclose(np.concatenate(bands, axis=1), sigmoid(image), atol=1e-5)


def test_sliding_window_batch_predicts_images_of_one_size_together(monkeypatch):
    images = rng.standard_normal((3, 1, 14, 9)).astype(np.float32)
    batches = []

    class Watched(Identity):
        def forward(self, x):
            batches.append(len(x))
            return super().forward(x)

    network = Watched(2).eval()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for tiles, expected in ((settings(16, 16, average="all_8"), [3] * 8), (settings(8, 8), None)):
        batches.clear()
        found = sliding_window_batch(network, list(images), SPACE, tiles)
        np.testing.assert_allclose(found, sigmoid(images), atol=1e-5)
        assert expected in (batches, None)


@pytest.mark.parametrize(
    ("images", "pixels", "threads", "expected"),
    [
        (1, 64 * 64, 1, 2),
        (1, 64 * 64, 4, 4),
        (5, 64 * 64, 4, 8),
        (8, 64 * 64, 4, 8),
        (1, 256 * 256, 8, 4),  # Only four such images are computed together.
        (5, 256 * 256, 8, 5),
        (1, 512 * 512, 8, 1),  # Always computed alone.
        (1, 1024 * 1024, 8, 1),
    ],
)
def test_batches_of_small_images_are_padded(monkeypatch, images, pixels, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert sliding_window._padded_batch_size(images, pixels) == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_result_of_an_image_does_not_depend_on_the_others_of_its_batch(restored_threads, threads):
    torch.manual_seed(0)
    layers = nn.Sequential(  # Each of these layers adds in another order for some batches.
        nn.Conv2d(1, 32, 3, padding=1),
        nn.GroupNorm(4, 32),
        nn.Conv2d(32, 256, 3, padding=1),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.Conv2d(256, 1, 1),
    )
    layers = layers.requires_grad_(False).to(memory_format=torch.channels_last)
    network = Layers(layers).eval()
    images = list(rng.standard_normal((7, 1, 16, 16)).astype(np.float32))
    torch.set_num_threads(threads)
    whole = sliding_window_batch(network, images, SPACE, settings(16, 16))
    for count in (1, 2, 3, 5):
        found = sliding_window_batch(network, images[:count], SPACE, settings(16, 16))
        np.testing.assert_array_equal(found, whole[:count])


@pytest.mark.parametrize("dims", [2, 3])
def test_sliding_window_probabilities_are_at_most_1(dims):
    image = np.full((1, *(150, 130, 20)[:dims]), 40, np.float32)  # Its sigmoid is 1.
    tiles = settings(*(32, 32, 16)[:dims], overlap=0.3)
    found = predict_image(Identity().eval(), image, SPACE, tiles)
    assert found.max() == 1
    assert found.min() == pytest.approx(1)


def test_sliding_window_of_wide_images_uses_lower_tiles(monkeypatch):
    image = rng.standard_normal((1, 90, 200)).astype(np.float32)
    cut = settings(40, 40, overlap=0.25)
    expected = predict_image(Identity().eval(), image, SPACE, cut)
    monkeypatch.setattr(sliding_window, "MIN_TILE", 12)
    monkeypatch.setattr(sliding_window, "MAX_STRIP_PX", 200 * 16)
    network = Identity().eval()
    found = predict_image(network, image, SPACE, cut)
    assert max(shape[-2] for shape in network.shapes) <= 20
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sliding_window_of_volumes_with_a_large_cross_section_uses_lower_tiles(monkeypatch):
    image = rng.standard_normal((1, 60, 40, 50)).astype(np.float32)
    cut = settings(40, 40, 40, overlap=0.25)
    expected = predict_image(Identity().eval(), image, SPACE, cut)
    monkeypatch.setattr(sliding_window, "MIN_TILE_DEPTH", 12)
    monkeypatch.setattr(sliding_window, "MAX_LAYER_VALUES", SPACE.outputs * 40 * 50 * 16)
    network = Identity().eval()
    found = predict_image(network, image, SPACE, cut)
    assert max(shape[0] for shape in network.shapes) <= 20
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("yielded", [1, 3 * 24 * 32, 7 * 24 * 32, 1 << 24])
def test_sliding_bands_pass_on_few_rows_at_a_time(monkeypatch, yielded):
    image = rng.standard_normal((1, 200, 24, 32)).astype(np.float32)
    cut = settings(40, 24, 32, overlap=0.25)
    expected = predict_image(Identity().eval(), image, SPACE, cut)
    monkeypatch.setattr(sliding_window, "YIELDED_PX", yielded)
    bands = []
    for band in sliding_bands(Identity().eval(), ArrayRows(image), SPACE, cut):
        bands.append(band.copy())
        band[...] = np.nan  # Rows that were passed on are not used again.
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), expected)
    assert max(band.shape[1] for band in bands) <= max(1, yielded // (24 * 32))


def test_sliding_bands_hold_one_strip_of_tiles(monkeypatch):
    image = rng.standard_normal((1, 200, 64, 64)).astype(np.float32)
    monkeypatch.setattr(sliding_window, "YIELDED_PX", 64 * 64)
    monkeypatch.setattr(sliding_window, "BATCH_PX", 1)
    strip = SPACE.outputs * 48 * 64 * 64 * 4  # Bytes; tiles may be up to a fifth longer.
    tracemalloc.start()
    try:
        for _ in sliding_bands(
            Identity().eval(), ArrayRows(image), SPACE, settings(40, 16, 16, overlap=0.25)
        ):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.8 * strip


@pytest.mark.parametrize("size", [16, 100])
def test_sliding_window_refuses_probabilities_that_are_nan(size):
    image = np.zeros((1, size, size), np.float32)
    image[0, 3, 4] = np.nan
    with pytest.raises(DataError) as caught:
        predict_image(Identity().eval(), image, SPACE, settings(32, 32))
    assert caught.value.code == "probabilities_not_finite"
