import subprocess
import sys

import pytest
import torch

from ushape.models import build_model, memory_estimate
from ushape.models.config import NetworkConfig

CARVANA_ORIGINAL = NetworkConfig(
    widths=(64, 128, 256, 512, 1024),
    norm="batch",
    bias="always",
    padding="valid",
    upsampling="bilinear_3x3",
    decoder_convolutions=1,
)
# The way up narrows one level early: each level ends with the channels of the next finer one.
CARVANA_1024 = NetworkConfig(
    widths=(24, 64, 128, 256, 512, 768, 768),
    decoder_widths=(24, 24, 64, 128, 256, 512),
    norm="batch",
    bottleneck_convolutions=1,
    decoder_convolutions=3,
    upsampling="bilinear",
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
        (
            NetworkConfig(widths=(64, 128, 256, 512), norm="none", upsampling="bilinear"),
            3,
            1,
            7_782_913,
        ),
        (CARVANA_ORIGINAL, 3, 1, 31_390_721),
        (CARVANA_1024, 3, 1, 35_371_873),
    ],
)
def test_parameter_count_of_published_networks(config, channels, outputs, expected):
    assert parameters(build_on_meta(config, channels, outputs)) == expected


def test_memory_estimate_by_hand():
    # Bytes kept for the backward pass, 2 images of 32 x 32 in float32: 8192 a channel, then 2048
    # and 512. Way down: the image (3), two convolutions a level, each pooled array with its
    # 8-byte indices. Way up: each joined array and two convolutions.
    down = 8192 * (3 + 8 + 8) + 2048 * (3 * 8 + 16 + 16) + 512 * (3 * 16 + 32 + 32)
    up = 2048 * (32 + 16 + 16) + 8192 * (16 + 8 + 8)
    config = NetworkConfig(widths=(8, 16, 32), norm="none")
    weights = parameters(build_on_meta(config, 3, 1))
    # A gradient and two moments for each weight, and the largest array twice.
    expected = down + up + 2 * 8192 * 16 + 16 * weights
    assert memory_estimate(config, 3, 2, (32, 32), device="cuda") == expected
    # On a CPU kernels take more: factors that were measured.
    expected = round(1.4 * (down + up)) + 16 * weights
    assert memory_estimate(config, 3, 2, (32, 32)) == expected


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
def test_memory_estimate_grows_with_the_batch_and_shrinks_in_half_precision(norm):
    config = NetworkConfig(widths=(8, 16), norm=norm)

    def needed(batch, **how):
        return memory_estimate(config, 1, batch, (128, 128), device="cuda", **how)

    one, two = needed(1), needed(2)
    assert two == pytest.approx(2 * one, rel=0.05)
    half = needed(2, dtype=torch.bfloat16)
    assert 0.5 < half / two < 0.6


@pytest.mark.parametrize(
    "settings",
    [
        "widths=(8, 16)",
        "encoder='efficientnet_lite0', encoder_weights='imagenet', widths=ENCODER_WIDTHS, stem=2",
    ],
)
def test_networks_without_data_are_built_without_the_compiler_of_pytorch(settings):
    script = f"""
import sys
from ushape.models import build_without_data
from ushape.models.config import ENCODER_WIDTHS, NetworkConfig
config = NetworkConfig({settings}, norm="instance")
assert all(weight.is_meta for weight in build_without_data(config, 3, 2).parameters())
print("torch._dynamo" in sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n", "it takes more than a second to load"
