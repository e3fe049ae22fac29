"""Promises of every form of network."""

import itertools

import pytest
import torch

from ushape.errors import PlanError
from ushape.models import build_model
from ushape.models.config import NetworkConfig

SMALL = {"widths": (4, 6, 8)}
COARSE_Z = {
    "dims": 3,
    "strides": ((1, 2, 2), (2, 2, 2)),
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
}
FORMS = [
    NetworkConfig(**SMALL, norm=norm, **extra)
    for norm, extra in itertools.chain(
        (("batch", {"dims": dims}) for dims in (2, 3)),
        (("group", {"downsampling": down}) for down in ("max_pool", "average_pool", "stride")),
        (
            ("instance", {"upsampling": up})
            for up in ("transposed", "bilinear", "nearest", "bilinear_3x3")
        ),
        (("none", {"padding": "valid", "dims": dims}) for dims in (2, 3)),
        (("batch", {"block": "residual", "activation": "silu"}),),
        (
            ("batch", {"dropout": 0.5, "dropout_position": p})
            for p in ("between", "after", "bottom")
        ),
        (("batch", {"upsampling": "bilinear_3x3", "padding": "valid", "bias": "always"}),),
        (("batch", {"decoder_widths": (3, 5), "deep_supervision": 1}),),
        (("none", {"convolutions": 3, "decoder_convolutions": 1, "bottleneck_convolutions": 1}),),
        (("batch", {**COARSE_Z, "downsampling": down}) for down in ("max_pool", "stride")),
        (
            ("none", {**COARSE_Z, "upsampling": up})
            for up in ("nearest", "bilinear", "bilinear_3x3")
        ),
        (("instance", {**COARSE_Z, "stem": (1, 2, 2), "deep_supervision": 1}),),
    )
]


def describe(config):
    return repr(config).removeprefix("NetworkConfig")


@pytest.fixture(params=FORMS, ids=describe)
def network(request):
    torch.manual_seed(0)
    return build_model(request.param, 2, 3).eval()


def image_for(network, at_least=20):
    side = network.legal_size(at_least)
    return torch.randn(2, 2, *[side] * network.config.dims)


def test_network_output_has_the_announced_size(network):
    image = image_for(network)
    side = image.shape[-1]
    assert network(image).shape[2:] == (side - 2 * network.margin,) * network.config.dims
    assert network.output_size(side) == side - 2 * network.margin


def test_network_does_not_mix_images_of_a_batch_in_prediction(network):
    image = image_for(network)
    together, apart = network(image), network(image[:1])
    torch.testing.assert_close(together[:1], apart, atol=1e-4, rtol=1e-4)


def test_network_channels_last_does_not_change_the_result(network):
    image = image_for(network)
    layout = torch.channels_last if network.config.dims == 2 else torch.channels_last_3d
    other = network(image.to(memory_format=layout))
    torch.testing.assert_close(network(image), other, atol=1e-4, rtol=1e-4)


def test_network_keeps_channels_last_in_all_layers(network):
    """A layer that drops it is right, and slows every convolution after it."""
    layout = torch.channels_last if network.config.dims == 2 else torch.channels_last_3d
    network = network.to(memory_format=layout)
    dropped = []

    def note(layer, _, output):
        if not output.is_contiguous(memory_format=layout):
            dropped.append(type(layer).__name__)

    # The heads are left out: torch answers a 1 x 1 x 1 convolution in a layout of its choice.
    for part in (network.encoder, network.decoder):
        for layer in part.modules():
            if not list(layer.children()):
                layer.register_forward_hook(note)
    network(image_for(network).contiguous(memory_format=layout))
    assert not dropped


def test_network_prediction_is_deterministic(network):
    image = image_for(network)
    assert torch.equal(network(image), network(image))


def test_network_prediction_does_not_depend_on_the_order_in_the_batch(network):
    image = image_for(network)
    torch.testing.assert_close(network(image.flip(0)).flip(0), network(image), atol=1e-5, rtol=1e-5)


def test_network_keeps_no_state_after_refusing_an_image(network):
    image = image_for(network)
    before = network(image)
    side = image.shape[-1]
    with pytest.raises(PlanError) as caught:
        network(torch.zeros(1, 2, *[side + 1] * network.config.dims))
    assert caught.value.code == "illegal_size"
    assert str(network.legal_shape([side + 1] * network.config.dims)[0]) in caught.value.hint
    assert torch.equal(network(image), before)


def test_network_legal_size_is_the_smallest_it_accepts(network):
    legal = network.legal_size(20)
    assert network.legal_size(legal) == legal
    assert not any(network.output_size(size) for size in range(20, legal))


def test_network_weights_all_get_gradients(network):
    network.train()
    logits = network(image_for(network))
    heads = logits if isinstance(logits, list) else [logits]
    sum(head.square().mean() for head in heads).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_network_supports_double_precision(network):
    image = image_for(network)
    double = network.double()(image.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(network.float()(image), double.float(), atol=1e-4, rtol=1e-4)
