import math

import pytest
import torch

from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.models.layers import InstanceNorm, MaxPool3d, depth_to_space, space_to_depth


@pytest.mark.parametrize("dims", [2, 3])
def test_init_he_initializes_every_convolution(dims):
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
def test_instance_norm_equals_torch(shape):
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 2
    theirs = {4: torch.nn.InstanceNorm2d, 5: torch.nn.InstanceNorm3d}[x.ndim](shape[1])
    torch.testing.assert_close(InstanceNorm(shape[1])(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_norm_of_a_batch_equals_that_of_each_volume(dtype):
    # The batch is one view of all channels; the activation after it works in place.
    torch.manual_seed(0)
    x, towards = torch.randn(2, 3, 4, 5, 6, 4).to(dtype)
    norm = InstanceNorm(4)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    found = []
    for parts in ((x,), x.split(1)):
        leaves = [part.clone().requires_grad_() for part in parts]
        norm.zero_grad()
        result = torch.cat([torch.relu_(norm(leaf)) for leaf in leaves])
        (result * towards).sum().backward()
        found.append((result, torch.cat([leaf.grad for leaf in leaves]), norm.weight.grad))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_max_pool_of_volumes_equals_torch(factors, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6, 8, dtype=dtype).relu().requires_grad_()
    x.data[0, 0, 0, 0, 0] = math.nan
    ours, theirs = MaxPool3d(factors), torch.nn.MaxPool3d(factors)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0, equal_nan=True)
    assert ours(x).requires_grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_gradients_equal_torch(layout):
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


@pytest.mark.parametrize(
    ("shape", "factors"),
    [
        ((2, 3, 8, 12), (4, 4)),
        ((2, 3, 8, 12), (4, 2)),
        ((2, 3, 4, 6, 8), (2, 2, 2)),
        ((2, 3, 5, 6, 8), (1, 2, 4)),
    ],
)
def test_depth_to_space_is_the_inverse_of_space_to_depth(shape, factors):
    x = torch.randn(shape)
    blocks = space_to_depth(x, factors)
    coarse = [size // factor for size, factor in zip(shape[2:], factors, strict=True)]
    assert list(blocks.shape) == [2, 3 * math.prod(factors), *coarse]
    assert torch.equal(depth_to_space(blocks, factors), x)


def test_space_to_depth_orders_a_block_row_by_row():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert space_to_depth(x, (2, 2))[0, :, 0, 0].tolist() == [0, 1, 4, 5]
    assert space_to_depth(x, (1, 2))[0, :, 1, 0].tolist() == [4, 5]
    volume = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert space_to_depth(volume, (2, 2, 2)).flatten().tolist() == list(range(8))
