"""Sizes and indices of graphs."""

from fractions import Fraction

import pytest
import torch

from ushape.data.preprocessing_config import PreprocessingConfig
from ushape.export.sizes import count_up, divided_size, size_like


@pytest.mark.parametrize("factor", [1.5, 2, 2.4, 3, 4, 7])
def test_divided_size_is_that_of_the_preprocessing(factor):
    config = PreprocessingConfig(downscale=factor, slices=None)
    exact = Fraction(factor).limit_denominator(1000)
    for size in range(1, 200):
        assert divided_size(size, exact) == config.working_shape((size, size))[0]
        assert divided_size(torch.tensor(size), exact) == config.working_shape((size, size))[0]


@pytest.mark.parametrize("value", [0, -3.5, 7, float("nan"), float("inf"), float("-inf")])
def test_indices_do_not_depend_on_the_values_of_the_image(value):
    x = torch.full((1, 2, 4, 3), value)
    assert torch.equal(count_up(x, 6), torch.arange(6))
    assert torch.equal(size_like(x, 11), torch.tensor(11))
    assert count_up(x, 6).dtype == size_like(x, 11).dtype == torch.int64


def test_indices_are_on_the_device_of_the_image():
    x = torch.rand(1, 1, 4, 3, device="meta")
    assert count_up(x, 6).device == size_like(x, 11).device == x.device
