"""Promises of every loss."""

import pytest
import torch

from ushape.labels import IGNORE, LabelSpace, Region
from ushape.losses import LOSSES, LossConfig, build_loss

TWO = LabelSpace(values=(0, 255), names=("background", "cell"))
THREE = LabelSpace(values=(0, 1, 2), names=("a", "b", "c"))

NESTED = LabelSpace(
    values=(0, 1, 2),
    names=("a", "b", "c"),
    regions=(Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))),
)


@pytest.fixture(params=[TWO, THREE, NESTED], ids=["binary", "classes", "regions"])
def space(request):
    return request.param


@pytest.fixture(params=[0.0, 1.0], ids=["plain", "smoothed"])
def smooth(request):
    return request.param


@pytest.fixture(params=[*LOSSES, "sum"])
def loss(request, space):
    if request.param == "sum":
        return build_loss(LossConfig(), space, deep_supervision=False)
    return LOSSES[request.param](space, LossConfig())


@pytest.fixture
def case(space):
    torch.manual_seed(0)
    classes = torch.randint(len(space.values), (2, 6, 7))
    pairs = [space.encode(one) for one in classes]
    return torch.stack([t for t, _ in pairs]), torch.stack([w for _, w in pairs])


def sure(target, space):
    """Logits of a network that is right and sure."""
    return 30 * target if space.is_exclusive else 30 * (2 * target - 1)


def test_loss_orders_right_unsure_and_wrong(loss, case, space):
    target, weight = case
    right = loss(sure(target, space), target, weight)
    unsure = loss(torch.zeros_like(target), target, weight)
    wrong = loss(sure(1 - target, space), target, weight)
    assert 0 <= right < 0.05
    assert right < unsure < wrong


def test_loss_is_a_scalar_with_gradients_everywhere(loss, case):
    target, weight = case
    logits = torch.randn_like(target).requires_grad_()
    value = loss(logits, target, weight)
    assert value.shape == ()
    value.backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).any(dim=1).all()


def test_loss_does_not_depend_on_ignored_pixels(loss, space):
    classes = torch.tensor([[0, 1, 1, IGNORE]])
    target, weight = (value[None] for value in space.encode(classes))
    logits = torch.randn(1, space.channels, 1, 4)
    other = logits.clone()
    other[..., 3] = 9.0
    other[:, 0, :, 3] = -9.0
    assert loss(logits, target, weight) == loss(other, target, weight)


def test_loss_of_ignored_pixels_only_is_zero_with_a_gradient(loss, case):
    target, weight = case
    logits = torch.randn_like(target).requires_grad_()
    value = loss(logits, target, 0 * weight)
    value.backward()
    assert value == 0
    assert not logits.grad.any()


def test_loss_has_no_gradient_at_ignored_pixels(loss, case):
    target, weight = case
    weight[0, :, :3] = 0
    logits = torch.randn_like(target).requires_grad_()
    loss(logits, target, weight).backward()
    assert not logits.grad[0, :, :3].any()
    assert logits.grad[0, :, 3:].any()


def test_loss_does_not_depend_on_the_order_in_the_batch(loss, case):
    target, weight = case
    logits = torch.randn_like(target)
    flipped = loss(logits.flip(0), target.flip(0), weight.flip(0))
    torch.testing.assert_close(flipped, loss(logits, target, weight))


def test_loss_keeps_double_precision(loss, case):
    target, weight = (value.double() for value in case)
    logits = torch.randn_like(target)
    value = loss(logits, target, weight)
    assert value.dtype == torch.float64
    single = loss(logits.float(), target.float(), weight.float())
    torch.testing.assert_close(value.float(), single, atol=1e-5, rtol=1e-5)


def test_loss_sums_in_full_precision_under_autocast(loss, case):
    target, weight = case
    logits = torch.randn_like(target)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(logits, target, weight)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, loss(logits, target, weight))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_weights_affect_entropies_and_not_overlaps(name, case, space):
    target, weight = case
    torch.manual_seed(1)
    logits = torch.randn_like(target)
    heavier = weight.clone()
    heavier[0, 0, :3] = 10
    loss = LOSSES[name](space, LossConfig())
    is_entropy = name in ("cross_entropy", "focal")
    change = loss(logits, target, heavier) - loss(logits, target, weight)
    assert (change > 0) == is_entropy
    assert is_entropy or change == 0


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradient_is_the_derivative(name, case, space, smooth):
    target, weight = (value[:, :, :2, :3].double() for value in case)
    weight[0, :, 0] = torch.tensor([0.0, 3.0, 11.0])
    logits = torch.randn_like(target).requires_grad_()
    loss = LOSSES[name](space, LossConfig(smooth=smooth))
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight), [logits])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1.0, -1.0, 100.0, -100.0])
@pytest.mark.parametrize("is_empty", [True, False])
def test_loss_of_extreme_logits_and_empty_masks_is_finite(
    name, case, space, smooth, scale, is_empty
):
    target, weight = case
    if is_empty:
        target, weight = (
            torch.stack([v, v]) for v in space.encode(torch.zeros(6, 7, dtype=torch.uint8))
        )
    logits = (scale * (2 * target - 1)).requires_grad_()
    value = LOSSES[name](space, LossConfig(smooth=smooth))(logits, target, weight)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_loss_in_half_precision_is_close(loss, case):
    target, weight = case
    logits = torch.randn_like(target)
    half = loss(logits.bfloat16(), target, weight)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss(logits, target, weight), atol=0.02, rtol=0.02)
