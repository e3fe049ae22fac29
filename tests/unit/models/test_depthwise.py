import pytest
import torch
from torch.nn import functional

from ushape.models.depthwise import depthwise_convolution

CASES = [(3, 1, 1), (3, 2, 0), (5, 1, 2), (5, 2, 0), (5, 1, 0)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_depthwise_convolution_has_right_gradients(kernel, stride, padding):
    torch.manual_seed(0)
    parts = [(2, 3, 11, 9), (3, 1, kernel, kernel), (3,)]
    x, weight, bias = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in parts
    )
    assert torch.autograd.gradcheck(depthwise_convolution, (x, weight, bias, stride, padding))


@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_depthwise_convolution_equals_the_built_in_one_in_bf16(kernel, stride, padding, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 21, 21).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(8, 1, kernel, kernel, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = depthwise_convolution(x, weight, None, stride, padding)
    exact = functional.conv2d(x, weight, None, stride, padding, groups=8)
    assert own.dtype == torch.bfloat16
    assert torch.allclose(own.float(), exact, atol=0.1)
    pull = torch.randn_like(exact)
    gradients = zip(
        torch.autograd.grad(own, (x, weight), pull.bfloat16()),
        torch.autograd.grad(exact, (x, weight), pull),
        strict=True,
    )
    for found, wanted in gradients:
        assert found.dtype == torch.float32
        assert torch.allclose(found, wanted, rtol=0.05, atol=0.05 * float(wanted.abs().max()))
