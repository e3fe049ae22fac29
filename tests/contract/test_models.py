"""Promises of every form of network."""

import itertools

import pytest
import torch

from ushape.models import MODELS, build_model
from ushape.models.unet import UNetConfig

SMALL = {"widths": (4, 6, 8)}
FORMS = [
    UNetConfig(**SMALL, norm=norm, **extra)
    for norm, extra in itertools.chain(
        (("batch", {"dims": dims}) for dims in (2, 3)),
        (("group", {"down": down}) for down in ("max_pool", "average_pool", "stride")),
        (("instance", {"up": up}) for up in ("transposed", "bilinear", "nearest", "bilinear_3x3")),
        (("none", {"padding": "valid", "dims": dims}) for dims in (2, 3)),
        (("batch", {"block": "residual", "activation": "silu"}),),
        (("batch", {"dropout": 0.5, "dropout_place": p}) for p in ("between", "after", "bottom")),
        (("none", {"convolutions": 3, "decoder_convolutions": 1, "centre_convolutions": 1}),),
    )
]


def describe(config):
    return repr(config).removeprefix("UNetConfig")


@pytest.fixture(params=FORMS, ids=describe)
def network(request):
    torch.manual_seed(0)
    return build_model(request.param, 2, 3).eval()


def image_for(network, at_least=20):
    side = network.legal_size(at_least)
    return torch.randn(2, 2, *[side] * network.config.dims)


def test_every_model_is_in_the_table(network):
    assert type(network) in MODELS.values()


def test_output_has_the_announced_size(network):
    image = image_for(network)
    side = image.shape[-1]
    assert network(image).shape[2:] == (side - 2 * network.margin,) * network.config.dims
    assert network.output_size(side) == side - 2 * network.margin


def test_images_of_a_batch_do_not_mix_in_prediction(network):
    image = image_for(network)
    together, apart = network(image), network(image[:1])
    torch.testing.assert_close(together[:1], apart, atol=1e-4, rtol=1e-4)


def test_channels_last_changes_the_layout_and_not_the_result(network):
    image = image_for(network)
    layout = torch.channels_last if network.config.dims == 2 else torch.channels_last_3d
    other = network(image.to(memory_format=layout))
    torch.testing.assert_close(network(image), other, atol=1e-4, rtol=1e-4)


def test_every_weight_gets_a_gradient(network):
    network.train()
    network(image_for(network)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_double_precision(network):
    image = image_for(network)
    double = network.double()(image.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(network.float()(image), double.float(), atol=1e-4, rtol=1e-4)
