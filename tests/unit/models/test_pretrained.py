from dataclasses import replace

import pytest
import torch

from codes import raises_code
from ushape.errors import PlanError
from ushape.models import build_model
from ushape.models.layers import space_to_depth
from ushape.models.pretrained import (
    SYNTHETIC,
    SYNTHETIC_CONFIG,
    WIDTHS,
    has_synthetic_weights,
    load_synthetic_weights,
)


def network_from(config, channels, classes=2, seed=0):
    torch.manual_seed(seed)
    network = build_model(config, channels, classes)
    network.load_state_dict(load_synthetic_weights(config, channels, network.state_dict()))
    return network.eval()


def of_levels(levels, norm="instance"):
    return replace(SYNTHETIC_CONFIG, widths=WIDTHS[:levels], norm=norm)


@pytest.mark.parametrize("levels", [3, 4, 5])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_synthetic_weights_are_for_planned_networks_of_short_trainings(levels, norm):
    assert has_synthetic_weights(of_levels(levels, norm))


@pytest.mark.parametrize(
    "settings",
    [
        {"widths": (16, 32)},
        {"widths": (*WIDTHS, 256)},
        {"widths": (32, 64, 128)},
        {"widths": "auto"},
        {"stem": 1},
        {"dims": 3},
        {"norm": "none"},
        {"block": "residual"},
        {"upsampling": "bilinear"},
        {"deep_supervision": 1},
    ],
)
def test_synthetic_weights_are_for_no_other_network(settings):
    assert not has_synthetic_weights(replace(SYNTHETIC_CONFIG, **settings))


@pytest.mark.parametrize(("levels", "channels"), [(3, 1), (4, 3), (5, 7)])
def test_all_weights_but_the_head_are_loaded(levels, channels):
    config = of_levels(levels)
    torch.manual_seed(1)
    fresh = build_model(config, channels, 4).state_dict()
    loaded = load_synthetic_weights(config, channels, fresh)
    assert {name for name in fresh if torch.equal(fresh[name], loaded[name])} == {
        "heads.0.weight",
        "heads.0.bias",
    }
    assert all(loaded[name].shape == fresh[name].shape for name in fresh)


def test_gray_image_has_the_features_of_its_three_equal_channels():
    gray, color = network_from(of_levels(3), 1), network_from(of_levels(3), 3)
    image = torch.randn(1, 1, 32, 48)
    found = [
        network.encoder(space_to_depth(x, (2, 2)))
        for network, x in ((gray, image), (color, image.expand(-1, 3, -1, -1)))
    ]
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)


def test_network_of_fewer_levels_has_the_finest_levels_of_the_weights():
    deep, shallow = network_from(of_levels(5), 3), network_from(of_levels(3), 3)
    for mine, theirs in (
        (shallow.encoder.blocks, deep.encoder.blocks[:3]),
        (shallow.decoder.blocks, deep.decoder.blocks[2:]),
        (shallow.decoder.ups, deep.decoder.ups[2:]),
    ):
        for one, other in zip(mine, theirs, strict=True):
            for name, value in one.state_dict().items():
                torch.testing.assert_close(value, other.state_dict()[name])


def test_batch_norm_keeps_its_initial_statistics():
    network = network_from(of_levels(4, "batch"), 1)
    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert norms
    assert all(not one.running_mean.any() and bool((one.running_var == 1).all()) for one in norms)


def test_file_of_synthetic_weights_is_small():
    assert SYNTHETIC.stat().st_size < 5_000_000


def test_weights_for_another_network_are_refused():
    config = replace(SYNTHETIC_CONFIG, widths=(8, 16, 32))
    with raises_code(PlanError, "no_weights_fit"):
        load_synthetic_weights(config, 1, build_model(config, 1, 1).state_dict())
