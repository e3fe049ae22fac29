from dataclasses import dataclass

import numpy as np
import pytest
import torch

from probabilities import BINARY
from standalone import import_program
from ushape.inference.sliding_window import TileSettings, _cut, sliding_window
from ushape.transforms.tiling import symmetries

tiles = import_program("tiles")


@dataclass
class Smoothing:
    """A network whose output depends on the neighbors of a pixel, and on its direction."""

    name = "torch"
    margin: int = 0
    step: int = 4

    def legal_size(self, at_least):
        return 2 * self.margin + self.step * max(1, -(-(at_least - 2 * self.margin) // self.step))

    def legal_shape(self, at_least):
        return tuple(map(self.legal_size, at_least))

    def logits(self, batch):
        array = batch.numpy()
        mixed = array + 0.3 * np.roll(array, 1, -1) - 0.2 * np.roll(array, 1, -2)
        inside = slice(self.margin, -self.margin or None)
        return torch.from_numpy(np.ascontiguousarray(mixed[..., inside, inside]))


def both(network, **settings):
    """Return the settings of ushape, and those of the program."""
    own = TileSettings(**settings)
    smallest = network.legal_size(1)
    return own, tiles.Tiling(
        margin=network.margin,
        legal_sizes=(tiles.LegalSizes(smallest, network.step),) * 2,
        shape=own.shape,
        overlap_fraction=own.overlap_fraction,
        stretch=own.stretch,
        blend=own.blend,
        symmetries=tuple(
            tiles.Symmetry(one.mirror_axes, one.is_transposed) for one in own.symmetries
        ),
    )


SIZES = [(1, 1), (5, 70), (64, 64), (81, 80), (150, 97), (33, 400)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("margin", [0, 6])
@pytest.mark.parametrize("blend", ["gaussian", "uniform"])
@pytest.mark.parametrize("average", ["none", "mirrored", "all_8"])
def test_probabilities_equal_those_of_ushape_bit_for_bit(size, margin, blend, average):
    network = Smoothing(margin)
    ours, own = both(
        network, shape=(64, 48), blend=blend, symmetries=symmetries(average, (-2, -1), 2)
    )
    image = np.random.default_rng(0).random((1, *size), np.float32)
    expected = sliding_window(network, image, BINARY, ours)

    def program(batch):
        return BINARY.probabilities_of(network.logits(torch.from_numpy(batch)).numpy())

    assert np.array_equal(tiles.predict_image(program, image, own), expected)


@pytest.mark.parametrize("size", [*SIZES, (4096, 4096), (300, 40_000), (40_000, 300)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
@pytest.mark.parametrize("average", ["none", "rotated_7"])
def test_tiles_are_those_of_ushape(size, overlap, average):
    network = Smoothing(3, 10)
    ours, own = both(
        network,
        shape=(512, 300),
        overlap_fraction=overlap,
        symmetries=symmetries(average, (-2, -1), 2),
    )
    expected = _cut(network, size, BINARY, ours)
    found = tiles.cut_axes(size, own)
    assert [one.starts for one in found] == [one.starts for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.shares, other.shares)


def test_legal_sizes_are_those_of_a_sequence():
    legal = tiles.LegalSizes(188, 16)
    assert [legal.at_least(size) for size in (1, 188, 189, 204, 205)] == [188, 188, 204, 204, 220]
