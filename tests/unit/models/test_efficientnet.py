from dataclasses import replace

import pytest
import torch
from torch import nn

from ushape.errors import ConfigError
from ushape.models import build_model, memory_estimate, network_sizes
from ushape.models.config import ENCODER_WIDTHS, NetworkConfig
from ushape.models.efficientnet import (
    EfficientNetLite0,
    SameConvolution,
    encoder_field,
    place_of_block,
    take_standardized,
)

PLANNED = NetworkConfig(
    encoder="efficientnet_lite0",
    encoder_weights="imagenet",
    widths=ENCODER_WIDTHS,
    decoder_widths=(16, 32, 64, 96),
    decoder_convolutions=1,
    stem=2,
    norm="instance",
)


def fill_by_formula(encoder):
    """Give all tensors values that do not depend on the random generator of PyTorch."""
    tensors = sorted((name, one) for name, one in encoder.state_dict().items() if one.ndim)
    for index, (name, value) in enumerate(tensors):
        wave = torch.sin(torch.arange(value.numel()) * 0.7 + index).reshape(value.shape)
        if value.ndim == 4:
            value.copy_(wave / value[0].numel() ** 0.5)
        elif name.endswith(("bias", "running_mean")):
            value.copy_(0.1 * wave)
        else:
            value.copy_(1 + 0.3 * wave)


def test_encoder_equals_timm():
    # Mean and deviation of each level, computed with tf_efficientnet_lite0 of timm 1.0.31.
    encoder = EfficientNetLite0(3).eval()
    fill_by_formula(encoder)
    image = torch.sin(torch.arange(3 * 64 * 96) * 0.01).reshape(1, 3, 64, 96)
    with torch.no_grad():
        found = [(float(one.mean()), float(one.std())) for one in encoder(image)]
    timm = [
        (-0.00226, 0.1782),
        (0.03112, 0.29075),
        (0.05194, 0.38016),
        (0.0353, 1.04213),
        (0.01331, 0.67724),
    ]
    for own, other in zip(found, timm, strict=True):
        assert own == pytest.approx(other, abs=1e-4)


def test_encoder_has_the_parameters_of_the_paper():
    encoder = EfficientNetLite0(3)
    # 4.65 million with the classifier: 1280 x (320 + 2) and 1000 x (1280 + 1) fewer.
    assert sum(one.numel() for one in encoder.parameters()) == 4_652_008 - 412_160 - 1_281_000
    shapes = [tuple(one.shape[1:]) for one in encoder(torch.zeros(1, 3, 64, 96))]
    sides = ((32, 48), (16, 24), (8, 12), (4, 6), (2, 3))
    assert shapes == [(width, *side) for width, side in zip(ENCODER_WIDTHS, sides, strict=True)]


def test_same_convolution_pads_as_tensorflow():
    convolution = SameConvolution(1, 1, 3, 2)
    with torch.no_grad():
        convolution.weight.fill_(1)
        found = convolution(torch.arange(16.0).reshape(1, 1, 4, 4))
    # The windows start at rows and columns 0 and 2, and zeros follow the last row and column.
    assert found.flatten().tolist() == [45, 39, 66, 50]


def test_fixed_norm_is_part_of_the_convolution():
    torch.manual_seed(0)
    convolution, norm = SameConvolution(4, 6, 1), nn.BatchNorm2d(6)
    for value in (norm.running_mean, norm.weight.data, norm.bias.data):
        value.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.eval()
    x = torch.randn(2, 4, 5, 5)
    assert torch.allclose(convolution.then(norm, x), norm(convolution(x)), atol=1e-5)


def test_pretrained_encoder_keeps_its_statistics_in_training():
    network = build_model(PLANNED, 3, 2).train()
    assert network.training
    before = network.encoder.bn1.running_mean.clone()
    network(torch.randn(1, 3, 64, 64) + 3)
    assert torch.equal(network.encoder.bn1.running_mean, before)
    free = EfficientNetLite0(3, 1).train()
    free(torch.randn(1, 3, 64, 64) + 3)
    assert not torch.equal(free.bn1.running_mean, torch.zeros(32))


def test_standardized_images_give_the_features_of_imagenet_pixels():
    torch.manual_seed(0)
    encoder, other = EfficientNetLite0(3, 1).eval(), EfficientNetLite0(3, 1).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = torch.randn(1, 3, 16, 16)
    pixels = 255 * (image * std.view(1, 3, 1, 1) + mean.view(1, 3, 1, 1))
    other.load_state_dict(take_standardized(encoder.state_dict(), is_min_max=False))
    expected, found = encoder((pixels - 127) / 128)[0], other(image)[0]
    # Zeros around the image are gray before and the mean after the change.
    assert torch.allclose(found[..., :6, :6], expected[..., :6, :6], atol=1e-4)
    other.load_state_dict(take_standardized(encoder.state_dict(), is_min_max=True))
    found = other(pixels / 255)[0]
    assert torch.allclose(found[..., :6, :6], expected[..., :6, :6], atol=1e-4)


def test_blocks_are_counted_over_all_stages():
    assert [place_of_block(number) for number in (0, 1, 4, 15)] == [(0, 0), (1, 0), (2, 1), (6, 0)]


@pytest.mark.parametrize("levels", [2, 5])
def test_network_with_encoder_has_the_size_of_the_image(levels):
    config = replace(
        PLANNED,
        widths=ENCODER_WIDTHS[:levels],
        decoder_widths=PLANNED.decoder_widths[: levels - 1],
        deep_supervision=1 if levels > 2 else 0,
    )
    network, step = build_model(config, 3, 2), 2**levels
    assert network.legal_size(step + 1) == 2 * step
    assert network.margin == 0
    outputs = network.train()(torch.randn(1, 3, step, 2 * step))
    shapes = [tuple(one.shape) for one in outputs] if levels > 2 else [tuple(outputs.shape)]
    assert shapes[0] == (1, 2, step, 2 * step)
    assert network.eval()(torch.randn(1, 3, step, step)).shape == (1, 2, step, step)
    assert network_sizes(config).receptive_field == network.receptive_field
    assert memory_estimate(config, 3, 2, (64, 64)) > 0


def test_receptive_field_of_the_encoder():
    encoder = EfficientNetLite0(1, 2).eval()
    for value in encoder.parameters():
        nn.init.constant_(value, 1e-2)
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    encoder(image)[1][0, 0, 16, 16].backward()
    seen = image.grad[0, 0].nonzero()
    assert int(seen[:, 0].max() - seen[:, 0].min() + 1) == encoder_field(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"dims": 3},
        {"padding": "valid"},
        {"stem": 1},
        {"widths": (16, 32, 64), "decoder_widths": None},
        {"architecture": "other"},
    ],
)
def test_encoder_refuses_settings_that_do_not_fit(changes):
    with pytest.raises(ConfigError) as caught:
        replace(PLANNED, **changes)
    assert caught.value.code == "settings_conflict"
    assert caught.value.hint
