from dataclasses import replace

import pytest
import torch

from codes import raises_code
from ushape.errors import ConfigError, PlanError
from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.models.layers import space_to_depth
from ushape.models.unet import receptive_field

CARVANA_ORIGINAL = NetworkConfig(
    widths=(64, 128, 256, 512, 1024),
    norm="batch",
    bias="always",
    padding="valid",
    upsampling="bilinear_3x3",
    decoder_convolutions=1,
)
PAPER = NetworkConfig(widths=(64, 128, 256, 512, 1024), norm="none", padding="valid")


def build_on_meta(config, channels, outputs):
    with torch.device("meta"):
        return build_model(config, channels, outputs)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_unet_margin_includes_valid_convolutions_after_upsampling():
    network = build_on_meta(CARVANA_ORIGINAL, 3, 1)
    assert network.margin == 92
    assert network(torch.empty(1, 3, 572, 572, device="meta")).shape == (1, 1, 388, 388)


def test_unet_output_sizes_equal_the_paper():
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


def test_unet_legal_sizes_halve_evenly():
    padded = build_on_meta(NetworkConfig(widths=(4, 4, 4, 4), norm="none"), 1, 1)
    assert [padded.legal_size(size) for size in (1, 8, 9, 100)] == [8, 8, 16, 104]
    # The paper's smallest tile: 16 n + 12 pixels, of which 184 are lost.
    paper = build_on_meta(PAPER, 1, 2)
    assert paper.legal_size(1) == 188
    assert paper.output_size(188) == 4
    assert paper.output_size(172) == paper.output_size(189) == 0


def test_unet_names_the_next_legal_sizes_of_an_illegal_one():
    network = build_on_meta(PAPER, 1, 2)
    with pytest.raises(PlanError) as caught:
        network(torch.empty(1, 1, 512, 512, device="meta"))
    assert caught.value.code == "illegal_size"
    assert "524 and 540" in caught.value.hint
    assert network.legal_size(512) == 524


def test_unet_forward_leaves_no_state_after_an_error():
    torch.manual_seed(0)
    network = build_model(NetworkConfig(widths=(4, 8, 8), norm="batch"), 1, 1).eval()
    x = torch.randn(1, 1, 16, 16)
    before = network(x)
    with pytest.raises(PlanError):
        network(torch.randn(1, 1, 15, 16))
    assert torch.equal(network(x), before)


def test_unet_deep_supervision_has_outputs_in_training_only():
    network = build_model(
        NetworkConfig(widths=(4, 4, 4, 4), norm="batch", deep_supervision=2), 1, 3
    )
    x = torch.randn(2, 1, 32, 32)
    assert [head.shape[-1] for head in network.train()(x)] == [32, 16, 8]
    assert network.eval()(x).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(("dims", "block"), [(2, 2), (2, 4), (3, 2)])
def test_unet_with_a_stem_is_the_network_of_blocks_of_pixels(dims, block):
    config = NetworkConfig(dims=dims, widths=(4, 8), norm="instance", stem=block)
    torch.manual_seed(0)
    network = build_model(config, 3, 2).eval()
    inner = build_model(replace(config, stem=1), 3 * block**dims, 2 * block**dims).eval()
    inner.load_state_dict(network.state_dict())
    assert [network.legal_size(size) for size in (1, 2 * block, 2 * block + 1)] == [
        2 * block,
        2 * block,
        4 * block,
    ]
    x = torch.randn(2, 3, *[4 * block] * dims)
    outputs = network(x)
    assert outputs.shape == (2, 2, *x.shape[2:])
    # The first pixel of each block, and the last one, along all axes.
    first, last = (slice(None), slice(None)), block**dims - 1
    channels = inner(space_to_depth(x, [block] * dims))
    for offset, number in ((0, 0), (block - 1, last)):
        found = outputs[(*first, *[slice(offset, None, block)] * dims)]
        torch.testing.assert_close(found, channels[:, number :: block**dims])


@pytest.mark.parametrize(("dims", "stem"), [(2, 2), (3, 2), (3, (1, 2, 2))])
def test_unet_with_a_stem_begins_without_a_pattern_in_blocks(dims, stem):
    config = NetworkConfig(dims=dims, widths=(4, 8), norm="instance", stem=stem)
    network = build_model(config, 1, 3).eval()
    logits = network(torch.randn(2, 1, *(16,) * dims))
    blocks = stem if isinstance(stem, tuple) else (stem,) * dims
    first = logits[(..., *(slice(None, None, size) for size in blocks))]
    for axis, size in enumerate(blocks, 2):
        first = first.repeat_interleave(size, axis)
    assert torch.equal(logits, first)
    assert not torch.allclose(logits[:, 0], logits[:, 1])  # The classes differ.


def test_unet_with_a_stem_has_coarser_heads_behind_it():
    config = NetworkConfig(widths=(4, 4, 4), norm="batch", stem=2, deep_supervision=1)
    network = build_model(config, 1, 3)
    x = torch.randn(2, 1, 32, 32)
    assert [head.shape for head in network.train()(x)] == [(2, 3, 32, 32), (2, 3, 8, 8)]
    assert network.eval()(x).shape == (2, 3, 32, 32)


COARSE_Z = NetworkConfig(
    dims=3,
    widths=(4, 8, 16),
    norm="none",
    strides=((1, 2, 2), (2, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)


def test_unet_with_strides_has_the_sizes_and_parameters_that_follow():
    network = build_on_meta(COARSE_Z, 1, 2)
    # z is halved once, y and x twice.
    assert network.legal_shape((5, 9, 12)) == (6, 12, 12)
    assert network.legal_shape((1, 1, 1)) == (2, 4, 4)
    assert network.legal_size(5) == 8  # Legal along every axis.
    assert network(torch.empty(1, 1, 6, 12, 20, device="meta")).shape == (1, 2, 6, 12, 20)
    levels = network.encoder(torch.empty(1, 1, 6, 12, 20, device="meta"))
    assert [tuple(level.shape[2:]) for level in levels] == [(6, 12, 20), (6, 6, 10), (3, 3, 5)]
    # With biases. Encoder: 9 * 1 * 4 + 4, 9 * 4 * 4 + 4; 27 * 4 * 8 + 8, 27 * 8 * 8 + 8;
    # 27 * 8 * 16 + 16, 27 * 16 * 16 + 16.
    encoder = 40 + 148 + 872 + 1736 + 3472 + 6928
    # Up: 8 * 16 * 8 + 8, 27 * 16 * 8 + 8, 27 * 8 * 8 + 8; 4 * 8 * 4 + 4, 9 * 8 * 4 + 4, 148.
    decoder = 1032 + 3464 + 1736 + 132 + 292 + 148
    assert parameters(network) == encoder + decoder + 2 * 4 + 2
    # Up to 3 levels: 1 + 4 + 4 at the bottom of 2 slices, then 4 * 2 at the middle level.
    assert network.receptive_field == (2 * 5 + 8, 44, 44)
    with pytest.raises(PlanError) as caught:
        network(torch.empty(1, 1, 6, 12, 18, device="meta"))
    assert "20 and 24" in caught.value.hint


@pytest.mark.parametrize("down", ["max_pool", "average_pool", "stride"])
def test_unet_with_equal_strides_is_the_usual_network(down):
    usual = NetworkConfig(dims=3, widths=(4, 8), norm="batch", stem=2, downsampling=down)
    stated = replace(usual, stem=(2, 2, 2), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2)
    networks = []
    for config in (usual, replace(usual, strides="equal", kernels="equal"), stated):
        torch.manual_seed(0)
        networks.append(build_model(config, 1, 2).eval())
    x = torch.randn(1, 1, 8, 8, 8)
    for network in networks[1:]:
        assert torch.equal(network(x), networks[0](x))


def test_unet_with_coarse_slices_does_not_mix_them_in_its_finest_level():
    config = replace(COARSE_Z, widths=(4, 8), strides=((1, 2, 2),), kernels=((1, 3, 3),) * 2)
    torch.manual_seed(0)
    network = build_model(config, 1, 1).eval()
    x = torch.randn(1, 1, 3, 8, 8)
    changed = x.clone()
    changed[:, :, 1] += 1
    before, after = network(x), network(changed)
    assert torch.equal(before[:, :, ::2], after[:, :, ::2])
    assert not torch.equal(before[:, :, 1], after[:, :, 1])


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"strides": ((1, 3, 2), (2, 2, 2))}, "value_out_of_range"),
        ({"kernels": ((1, 2, 2),) * 3}, "value_out_of_range"),
        ({"strides": ((2, 2, 2),)}, "level_count_mismatch"),
        ({"kernels": ((3, 3, 3),) * 4}, "level_count_mismatch"),
        ({"stem": (1, 3, 3)}, "value_out_of_range"),
        ({"padding": "valid"}, "settings_conflict"),
    ],
)
def test_network_settings_for_each_axis_must_fit(settings, code):
    with raises_code(ConfigError, code):
        replace(COARSE_Z, **settings)


@pytest.mark.parametrize("settings", [{"strides": ((2, 2),) * 2}, {"stem": (2, 2)}])
def test_unet_refuses_settings_for_another_number_of_axes(settings):
    with raises_code(ConfigError, "axis_count_mismatch"):
        build_model(replace(COARSE_Z, **settings), 1, 1)


def test_unet_refuses_auto():
    with pytest.raises(AssertionError, match="chooses the widths"):
        build_model(NetworkConfig(norm="none"), 1, 1)
    with pytest.raises(AssertionError, match="chooses the norm"):
        build_model(NetworkConfig(widths=(4, 4)), 1, 1)


def test_unet_output_stretched_has_the_size_of_the_input():
    config = replace(PAPER, valid_output="stretched")
    network = build_on_meta(config, 1, 1)
    assert network.margin == 0
    assert network(torch.empty(1, 1, 572, 572, device="meta")).shape == (1, 1, 572, 572)
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_593

    torch.manual_seed(0)
    small = NetworkConfig(widths=(4, 8), norm="none", padding="valid")
    plain, stretched = (
        build_model(small, 1, 1),
        build_model(replace(small, valid_output="stretched"), 1, 1),
    )
    stretched.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, 20, 28)
    expected = torch.nn.functional.interpolate(plain(x), (20, 28), mode="bilinear")
    torch.testing.assert_close(stretched(x), expected)


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(widths=(2, 2), norm="none"),
        NetworkConfig(widths=(2, 2, 2), norm="none", decoder_convolutions=1),
        NetworkConfig(widths=(2, 2, 2), norm="none", bottleneck_convolutions=1, convolutions=3),
        NetworkConfig(widths=(2, 2, 2), norm="none", upsampling="bilinear"),
        NetworkConfig(widths=(2, 2, 2), norm="none", upsampling="bilinear_3x3"),
        NetworkConfig(widths=(2, 2), norm="none", stem=2),
    ],
)
def test_receptive_field_is_where_gradients_come_from(config):
    # All weights positive and no clipping by ReLU: every pixel that can matter has a gradient.
    network = build_model(replace(config, activation="gelu"), 1, 1).double()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    image = torch.ones(1, 1, 16, 160, dtype=torch.float64, requires_grad=True)
    widest = 0
    for column in range(80, 88):
        (gradient,) = torch.autograd.grad(network(image)[0, 0, 8, column], image)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero()
        widest = max(widest, int(seen.max() - seen.min()) + 1)
    coarsest = config.stem_factors[0] * 2 ** (len(config.widths) - 1)
    assert receptive_field(config) - coarsest < widest
    assert widest <= receptive_field(config)
