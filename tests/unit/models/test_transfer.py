"""Weights of one network as the start of another: worked-out values, and properties."""

import pytest
import torch

from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.models.transfer import have_equal_bodies, transfer_weights

SMALL = NetworkConfig(widths=(2, 4), norm="batch")

FIRST, HEAD = "encoder.blocks.0.layers.0.weight", "heads.0.weight"


def weights_of(config=SMALL, channels=1, classes=1, seed=0):
    torch.manual_seed(seed)
    return build_model(config, channels, classes).state_dict()


def transfer(source, channels=1, classes=1, config=SMALL, rows=None):
    fresh = weights_of(config, channels, classes, seed=1)
    return transfer_weights(source, fresh, config, channels, classes, rows=rows), fresh


def test_transfer_of_an_equal_network_takes_every_tensor():
    source = weights_of()
    found, fresh = transfer(source)
    assert found.loaded == len(fresh) == len(found.weights)
    assert (found.adapted, found.fresh) == ((), ())
    assert all(torch.equal(found.weights[name], value) for name, value in source.items())


def test_first_convolution_has_the_mean_over_the_channels_and_their_sum():
    source = weights_of(channels=2)
    source[FIRST] = torch.zeros(2, 2, 3, 3)
    source[FIRST][0, 0, 1, 1], source[FIRST][0, 1, 1, 1] = 1.0, 5.0
    found, _ = transfer(source, channels=3)
    # The mean of 1 and 5 is 3; two channels become three, so that each has 3 * 2 / 3 = 2.
    assert found.weights[FIRST][0, :, 1, 1].tolist() == [2.0, 2.0, 2.0]
    assert found.weights[FIRST][1].eq(0).all()
    assert (found.adapted, found.fresh) == (("first convolution",), ())


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5)])
def test_a_gray_image_has_the_same_output_whatever_its_number_of_channels(before, after):
    source = weights_of(channels=before, seed=3)
    found, _ = transfer(source, channels=after)
    gray = torch.randn(1, 1, 8, 8)
    outputs = []
    for weights, channels in ((source, before), (found.weights, after)):
        network = build_model(SMALL, channels, 1).eval()
        network.load_state_dict(weights)
        outputs.append(network(gray.expand(-1, channels, -1, -1)))
    assert torch.allclose(*outputs, atol=1e-5)


def test_head_is_fresh_with_another_number_of_classes():
    found, fresh = transfer(weights_of(), classes=3)
    assert found.fresh == ("head",)
    assert found.loaded == len(fresh) - 2
    assert torch.equal(found.weights[HEAD], fresh[HEAD])


def test_head_keeps_the_rows_of_known_classes():
    source = weights_of(classes=3)
    found, fresh = transfer(source, classes=4, rows=[0, 2, None, 1])
    assert found.adapted == ("head",)
    assert found.fresh == ()
    for target, row in enumerate([0, 2, None, 1]):
        expected = fresh[HEAD][target] if row is None else source[HEAD][row]
        assert torch.equal(found.weights[HEAD][target], expected)


def test_head_of_the_same_classes_in_another_order_is_permuted():
    source = weights_of(classes=2)
    found, _ = transfer(source, classes=2, rows=[1, 0])
    assert torch.equal(found.weights[HEAD], source[HEAD].flip(0))


@pytest.mark.parametrize("rows", [[None, None, None], [0, 1, 7]])
def test_head_without_known_classes_is_fresh(rows):
    found, fresh = transfer(weights_of(classes=2), classes=3, rows=rows)
    assert found.fresh == ("head",)
    assert torch.equal(found.weights[HEAD], fresh[HEAD])


def test_tensors_without_a_counterpart_are_fresh_and_further_ones_are_ignored():
    source = weights_of() | {"classifier.weight": torch.ones(3)}
    del source["decoder.blocks.0.layers.0.weight"]
    source["decoder.blocks.0.layers.3.weight"] = torch.ones(7, 7)
    found, _ = transfer(source)
    assert found.fresh == ("decoder.blocks.0.layers.0.weight", "decoder.blocks.0.layers.3.weight")
    assert "classifier.weight" not in found.weights


def test_stem_keeps_the_places_of_the_pixels():
    config = NetworkConfig(widths=(2, 4), norm="batch", stem=2)
    source = weights_of(config, channels=3, classes=2)
    found, _ = transfer(source, channels=1, classes=2, config=config)
    # Twelve input channels: the four pixels of a block for red, then green, then blue.
    red, green, blue = source[FIRST].split(4, dim=1)
    assert torch.allclose(found.weights[FIRST], red + green + blue)
    found, _ = transfer(source, channels=3, classes=1, config=config, rows=[1])
    assert torch.equal(found.weights[HEAD], source[HEAD][4:])


def test_bodies_are_equal_unless_a_tensor_differs():
    same = NetworkConfig(widths=(2, 4), norm="batch", dropout=0.5, activation="gelu")
    assert have_equal_bodies(SMALL, same)
    deep = {"widths": (2, 4, 8), "norm": "batch"}
    assert have_equal_bodies(NetworkConfig(**deep), NetworkConfig(**deep, deep_supervision=1))
    for other in ({"widths": (2, 8)}, {"norm": "instance"}, {"block": "residual"}, {"stem": 2}):
        changed = NetworkConfig(**{"widths": (2, 4), "norm": "batch", **other})
        assert not have_equal_bodies(SMALL, changed)
