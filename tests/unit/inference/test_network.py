import pytest
import torch
from torch import nn

from codes import raises_code
from ushape.errors import PlanError
from ushape.inference.network import (
    BackendOptions,
    LazyNetwork,
    Slot,
    check_tile_size,
    input_of,
)
from ushape.models import build_model
from ushape.models.config import NetworkConfig


class Scale:
    """A network that multiplies its input."""

    name, margin = "scale", 0

    def __init__(self, factor):
        self.factor = factor

    def legal_size(self, at_least):
        return at_least

    def logits(self, tiles):
        return self.factor * tiles


def test_lazy_networks_share_a_slot_and_are_loaded_on_use():
    loaded, slot = [], Slot()

    def lazy(factor):
        def load():
            loaded.append(factor)
            return Scale(factor)

        return LazyNetwork(
            name="scale",
            margin=0,
            legal_size=lambda size: size,
            legal_shape=tuple,
            load=load,
            slot=slot,
        )

    two, three, ones = lazy(2), lazy(3), torch.ones(1, 1, 2, 2)
    assert loaded == []
    assert two.logits(ones).unique() == 2
    assert two.logits(ones).unique() == 2
    assert three.logits(ones).unique() == 3
    assert loaded == [2, 3]
    assert slot.owner is three
    assert two.logits(ones).unique() == 2
    assert loaded == [2, 3, 2]


def test_check_tile_size_names_the_next_legal_size():
    class MultipleOf8:
        def legal_size(self, at_least):
            return -(-at_least // 8) * 8

    check_tile_size(MultipleOf8(), torch.zeros(1, 1, 16, 8))
    with raises_code(PlanError, "illegal_size") as error:
        check_tile_size(MultipleOf8(), torch.zeros(1, 1, 16, 9))
    assert "16" in error.value.hint


@pytest.mark.parametrize(
    ("layer", "expected"), [(nn.Conv2d(3, 1, 1), (3, 2)), (nn.Conv3d(2, 1, 1), (2, 3))]
)
def test_input_of_reads_the_first_convolution(layer, expected):
    assert input_of(nn.Sequential(nn.Identity(), layer)) == expected


@pytest.mark.parametrize(("dims", "stem"), [(2, 2), (3, (1, 2, 2))])
def test_input_of_a_network_with_a_stem_has_the_channels_of_the_image(dims, stem):
    network = build_model(NetworkConfig(dims=dims, widths=(2, 2), norm="none", stem=stem), 3, 1)
    assert input_of(network) == (3, dims)


def test_input_of_refuses_networks_without_convolution():
    with raises_code(PlanError, "network_without_convolution"):
        input_of(nn.Linear(1, 1))


def test_backend_options_require_the_cpu():
    BackendOptions().require_cpu("onnx")
    with raises_code(PlanError, "backend_needs_cpu"):
        BackendOptions(device="cuda").require_cpu("onnx")
