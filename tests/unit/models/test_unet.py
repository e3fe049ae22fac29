import math
from dataclasses import replace

import pytest
import torch

from ushape.errors import ConfigError, PlanError
from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.models.layers import InstanceNorm
from ushape.models.memory import memory_estimate, parameter_count

CARVANA_ORIGINAL = NetworkConfig(
    widths=(64, 128, 256, 512, 1024),
    norm="batch",
    bias="always",
    padding="valid",
    up="bilinear_3x3",
    decoder_convolutions=1,
)
# The way up narrows one level early: each level ends with the channels of the next finer one.
CARVANA_1024 = NetworkConfig(
    widths=(24, 64, 128, 256, 512, 768, 768),
    decoder_widths=(24, 24, 64, 128, 256, 512),
    norm="batch",
    center_convolutions=1,
    decoder_convolutions=3,
    up="bilinear",
)
PAPER = NetworkConfig(widths=(64, 128, 256, 512, 1024), norm="none", padding="valid")


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
        (NetworkConfig(widths=PAPER.widths, norm="none"), 3, 1, 31_031_745),
        (NetworkConfig(widths=(32, 64, 128, 256, 512), norm="batch"), 3, 1, 7_763_041),
        (NetworkConfig(widths=(64, 128, 256, 512), norm="none", up="bilinear"), 3, 1, 7_782_913),
        (CARVANA_ORIGINAL, 3, 1, 31_390_721),
        (CARVANA_1024, 3, 1, 35_371_873),
    ],
)
def test_parameters_of_the_published_networks(config, channels, outputs, expected):
    assert parameters(build_on_meta(config, channels, outputs)) == expected
    assert parameter_count(config, channels, outputs) == expected


def test_valid_convolutions_after_upsampling_count_in_the_margin():
    network = build_on_meta(CARVANA_ORIGINAL, 3, 1)
    assert network.margin == 92
    assert network(torch.empty(1, 3, 572, 572, device="meta")).shape == (1, 1, 388, 388)


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
    levels = network.decoder(network.encoder(torch.empty(1, 1, 572, 572, device="meta")))
    assert [level.shape[-1] for level in levels] == [52, 100, 196, 388]


def test_legal_sizes_are_those_that_halve_evenly():
    padded = build_on_meta(NetworkConfig(widths=(4, 4, 4, 4), norm="none"), 1, 1)
    assert [padded.legal_size(size) for size in (1, 8, 9, 100)] == [8, 8, 16, 104]
    # The paper's smallest tile: 16 n + 12 pixels, of which 184 are lost.
    paper = build_on_meta(PAPER, 1, 2)
    assert paper.legal_size(1) == 188
    assert paper.output_size(188) == 4
    assert paper.output_size(172) == paper.output_size(189) == 0


def test_memory_counted_by_hand():
    # Bytes kept for the backward pass, 2 images of 32 x 32 in float32: 8192 a channel, then 2048
    # and 512. Way down: the image (3), two convolutions a level, each pooled array with its
    # 8-byte indices. Way up: each joined array and two convolutions.
    down = 8192 * (3 + 8 + 8) + 2048 * (3 * 8 + 16 + 16) + 512 * (3 * 16 + 32 + 32)
    up = 2048 * (32 + 16 + 16) + 8192 * (16 + 8 + 8)
    config = NetworkConfig(widths=(8, 16, 32), norm="none")
    weights = parameter_count(config, 3, 1)
    # A gradient and two moments for each weight, and the largest array twice.
    expected = down + up + 2 * 8192 * 16 + 16 * weights
    assert memory_estimate(config, 3, 2, (32, 32), device="cuda") == expected
    # On a CPU kernels take more: factors that were measured.
    expected = round(1.4 * (down + up)) + 16 * weights
    assert memory_estimate(config, 3, 2, (32, 32)) == expected


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
def test_memory_grows_with_the_batch_and_shrinks_in_half_precision(norm):
    config = NetworkConfig(widths=(8, 16), norm=norm)

    def needed(batch, **how):
        return memory_estimate(config, 1, batch, (128, 128), device="cuda", **how)

    one, two = needed(1), needed(2)
    assert two == pytest.approx(2 * one, rel=0.05)
    half = needed(2, dtype=torch.bfloat16)
    assert 0.5 < half / two < 0.6


def test_unet_names_the_next_legal_sizes_of_an_illegal_one():
    network = build_on_meta(PAPER, 1, 2)
    with pytest.raises(PlanError) as caught:
        network(torch.empty(1, 1, 512, 512, device="meta"))
    assert caught.value.code == "illegal_size"
    assert "524 and 540" in caught.value.hint
    assert network.legal_size(512) == 524


def test_a_failed_pass_leaves_no_trace():
    torch.manual_seed(0)
    network = build_model(NetworkConfig(widths=(4, 8, 8), norm="batch"), 1, 1).eval()
    x = torch.randn(1, 1, 16, 16)
    before = network(x)
    with pytest.raises(PlanError):
        network(torch.randn(1, 1, 15, 16))
    assert torch.equal(network(x), before)


@pytest.mark.parametrize("dims", [2, 3])
def test_he_initialization_of_every_convolution(dims):
    torch.manual_seed(0)
    network = build_model(NetworkConfig(dims=dims, widths=(32, 64), norm="none"), 16, 8)
    kinds = (torch.nn.modules.conv._ConvNd,)
    layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
    assert len(layers) == 8  # Two levels and the way up of two each, one up, one head.
    for layer in layers:
        area = math.prod(layer.kernel_size)
        expected = (2 / (area * layer.in_channels)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.12)
        assert not layer.bias.any()


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (1, 4, 5, 6, 7)])
def test_instance_norm_equals_torch_s(shape):
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 2
    theirs = {4: torch.nn.InstanceNorm2d, 5: torch.nn.InstanceNorm3d}[x.ndim](shape[1])
    torch.testing.assert_close(InstanceNorm(shape[1])(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_s_gradients_equal_torch_s(layout):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 5).contiguous(memory_format=layout)
    ours, theirs = InstanceNorm(4), torch.nn.InstanceNorm2d(4, affine=True)
    weight, offset, towards = torch.rand(4) + 0.5, torch.randn(4), torch.randn(3, 4, 6, 5)
    gradients = []
    for norm in (ours, theirs):
        with torch.no_grad():
            norm.weight.copy_(weight)
            norm.bias.copy_(offset)
        leaf = x.clone().requires_grad_()
        result = norm(leaf)
        (result * towards).sum().backward()
        gradients.append((result.detach(), leaf.grad, norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


def test_instance_norm_of_a_single_pixel_is_its_offset():
    norm = InstanceNorm(2)
    torch.nn.init.constant_(norm.bias, 3.0)
    result = norm(torch.tensor([[[[5.0]], [[-7.0]]]]))
    torch.testing.assert_close(result, torch.full((1, 2, 1, 1), 3.0), atol=1e-4, rtol=0)
    network = build_model(NetworkConfig(widths=(4, 4, 4), norm="instance"), 1, 1).eval()
    assert network(torch.randn(1, 1, 4, 4)).isfinite().all()


def test_deep_supervision_has_heads_in_training_only():
    network = build_model(
        NetworkConfig(widths=(4, 4, 4, 4), norm="batch", deep_supervision=2), 1, 3
    )
    x = torch.randn(2, 1, 32, 32)
    assert [head.shape[-1] for head in network.train()(x)] == [32, 16, 8]
    assert network.eval()(x).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"widths": (8,)}, "value_out_of_range"),
        ({"block": "residual", "padding": "valid"}, "settings_conflict"),
        ({"widths": (4, 4, 4), "deep_supervision": 3}, "value_out_of_range"),
        ({"dropout": 1.0}, "value_out_of_range"),
        ({"center_convolutions": 0}, "value_out_of_range"),
        (
            {"widths": (4, 4, 4), "deep_supervision": 1, "padding": "valid"},
            "settings_conflict",
        ),
        ({"widths": (4, 4, 4), "decoder_widths": (4,)}, "value_out_of_range"),
        ({"widths": (4, 4), "decoder_widths": (0,)}, "value_out_of_range"),
        ({"widths": "auto", "decoder_widths": (4,)}, "value_out_of_range"),
        ({"widths": "auto", "decoder_widths": ()}, "value_out_of_range"),
    ],
)
def test_network_config_refuses_impossible_values(values, code):
    with pytest.raises(ConfigError) as caught:
        NetworkConfig(**values)
    assert caught.value.code == code


def test_auto_is_the_planner_s_to_settle():
    with pytest.raises(AssertionError, match="chooses the widths"):
        build_model(NetworkConfig(norm="none"), 1, 1)
    with pytest.raises(AssertionError, match="chooses the norm"):
        build_model(NetworkConfig(widths=(4, 4)), 1, 1)


def test_the_output_may_be_stretched_over_the_input():
    config = replace(PAPER, output="stretched")
    network = build_on_meta(config, 1, 1)
    assert network.margin == 0
    assert network(torch.empty(1, 1, 572, 572, device="meta")).shape == (1, 1, 572, 572)
    assert parameter_count(config, 1, 1) == 31_030_593

    torch.manual_seed(0)
    small = NetworkConfig(widths=(4, 8), norm="none", padding="valid")
    plain, stretched = (
        build_model(small, 1, 1),
        build_model(replace(small, output="stretched"), 1, 1),
    )
    stretched.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, 20, 28)
    expected = torch.nn.functional.interpolate(plain(x), (20, 28), mode="bilinear")
    torch.testing.assert_close(stretched(x), expected)
