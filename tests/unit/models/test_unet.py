import pytest
import torch

from ushape.errors import ConfigError, PlanError
from ushape.models import build_model
from ushape.models.layers import InstanceNorm
from ushape.models.unet import UNetConfig

PAPER = UNetConfig(widths=(64, 128, 256, 512, 1024), norm="none", padding="valid")


def build_on_meta(config, channels, outputs):
    with torch.device("meta"):
        return build_model(config, channels, outputs)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("config", "channels", "outputs", "expected"),
    [
        (PAPER, 1, 2, 31_030_658),
        (PAPER, 1, 1, 31_030_593),
        (UNetConfig(widths=PAPER.widths, norm="none"), 3, 1, 31_031_745),
        (UNetConfig(widths=(32, 64, 128, 256, 512), norm="batch"), 3, 1, 7_763_041),
        (UNetConfig(widths=(64, 128, 256, 512), norm="none", up="bilinear"), 3, 1, 7_782_913),
    ],
)
def test_parameters_of_the_published_networks(config, channels, outputs, expected):
    assert parameters(build_on_meta(config, channels, outputs)) == expected


def test_the_paper_s_sizes():
    network = build_on_meta(PAPER, 1, 2)
    assert network.margin == 92
    assert network.output_size(572) == 388
    assert network(torch.empty(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)
    convolutions = [
        layer
        for layer in network.modules()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))
    ]
    assert len(convolutions) == 23

    sizes = [
        level.shape[-1] for level in network.encoder(torch.empty(1, 1, 572, 572, device="meta"))
    ]
    assert sizes == [568, 280, 136, 64, 28]


def test_illegal_size_names_the_next_legal_ones():
    network = build_on_meta(PAPER, 1, 2)
    with pytest.raises(PlanError, match="512 × 512 pixels: 512 is not legal") as caught:
        network(torch.empty(1, 1, 512, 512, device="meta"))
    assert "524 and 540" in caught.value.hint
    assert network.legal_size(512) == 524


def test_a_failed_pass_leaves_no_trace():
    torch.manual_seed(0)
    network = build_model(UNetConfig(widths=(4, 8, 8), norm="batch"), 1, 1).eval()
    x = torch.randn(1, 1, 16, 16)
    before = network(x)
    with pytest.raises(PlanError):
        network(torch.randn(1, 1, 15, 16))
    assert torch.equal(network(x), before)


def test_he_initialisation_of_every_convolution():
    torch.manual_seed(0)
    network = build_model(UNetConfig(widths=(32, 64), norm="none"), 16, 8)
    for layer in network.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            area = layer.kernel_size[0] * layer.kernel_size[1]
            expected = (2 / (area * layer.in_channels)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.12)
            assert not layer.bias.any()


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (1, 4, 5, 6, 7)])
def test_instance_norm_equals_torch_s(shape):
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 2
    theirs = {4: torch.nn.InstanceNorm2d, 5: torch.nn.InstanceNorm3d}[x.ndim](shape[1])
    torch.testing.assert_close(InstanceNorm(shape[1])(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_deep_supervision_has_heads_in_training_only():
    network = build_model(UNetConfig(widths=(4, 4, 4, 4), norm="batch", deep_supervision=2), 1, 3)
    x = torch.randn(2, 1, 32, 32)
    assert [head.shape[-1] for head in network.train()(x)] == [32, 16, 8]
    assert network.eval()(x).shape == (2, 3, 32, 32)


def test_impossible_configs():
    with pytest.raises(ConfigError, match=r"widths is \[8\]"):
        UNetConfig(widths=(8,))
    with pytest.raises(ConfigError, match="residual needs"):
        UNetConfig(block="residual", padding="valid")
    with pytest.raises(ConfigError, match="deep_supervision is 3"):
        UNetConfig(widths=(4, 4, 4), deep_supervision=3)
    with pytest.raises(ConfigError, match="dropout is 1"):
        UNetConfig(dropout=1.0)
