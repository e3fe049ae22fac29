import math
from dataclasses import replace

import monai.losses
import pytest
import torch

from ushape.errors import ConfigError
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.losses import (
    DISTANCE_FACTOR,
    DeepSupervision,
    LossConfig,
    WeightedSum,
    build_loss,
    shrink_target,
)
from ushape.losses.entropy import CrossEntropyLoss, FocalLoss
from ushape.losses.overlap import DiceLoss, JaccardLoss, TverskyLoss

TWO = LabelSpace(values=(0, 1), names=("background", "foreground"))
THREE = LabelSpace(values=(0, 1, 2), names=("a", "b", "c"))


def encode(classes, space):
    target, weight = space.encode(torch.tensor(classes))
    return target[None], weight[None]


def test_dice_by_hand():
    # Truth has 3 pixels; 2 are found, none invented: 2*2 / (2+3) = 0.8.
    target, weight = encode([[0, 1, 1, 1]], TWO)
    found, _ = encode([[0, 0, 1, 1]], TWO)
    loss = DiceLoss(TWO, smooth=0)(100 * found - 50, target, weight)
    assert loss.item() == pytest.approx(0.2, abs=1e-4)


def test_dice_stays_between_0_and_1():
    """Smoothing inside the doubled intersection, as published code has it, falls below 0."""
    target, weight = encode([[0, 0, 1, 1]], TWO)
    assert 0 <= DiceLoss(TWO, smooth=5)(100 * target - 50, target, weight) < 1e-4
    assert 0 <= DiceLoss(TWO, smooth=5)(50 - 100 * target, target, weight) <= 1


def test_jaccard_and_tversky_by_hand():
    # Truth has 3 pixels; 2 are found, 1 is missed, 2 are invented.
    target, weight = encode([[1, 1, 1, 0, 0, 0]], TWO)
    found, _ = encode([[0, 1, 1, 1, 1, 0]], TWO)
    logits = 100 * found - 50
    jaccard = JaccardLoss(TWO, smooth=0)(logits, target, weight)
    assert jaccard.item() == pytest.approx(1 - 2 / 5, abs=1e-5)
    tversky = TverskyLoss(TWO, smooth=0, alpha=0.3, beta=0.7)(logits, target, weight)
    assert tversky.item() == pytest.approx(1 - 2 / (2 + 0.3 * 2 + 0.7 * 1), abs=1e-5)


def test_dice_per_image_weights_all_images_equally():
    # One of one found: 0. Two of four found: 1 - 4/6. Pooled it would be 1 - 6/8.
    target = torch.tensor([[[[1.0, 0, 0, 0]]], [[[1.0, 1, 1, 1]]]])
    found = torch.tensor([[[[1.0, 0, 0, 0]]], [[[1.0, 1, 0, 0]]]])
    loss = DiceLoss(TWO, smooth=0, per_image=True)
    value = loss(100 * found - 50, target, torch.ones_like(target))
    assert value.item() == pytest.approx((0 + 1 / 3) / 2, abs=1e-5)


def test_dice_of_an_absent_class_is_zero_with_smoothing_and_finite_without():
    target, weight = encode([[0, 0]], TWO)
    sure = torch.full((1, 1, 1, 2), -200.0, requires_grad=True)
    assert DiceLoss(TWO)(sure, target, weight).item() == pytest.approx(0, abs=1e-5)
    value = DiceLoss(TWO, smooth=0)(sure, target, weight)
    value.backward()
    assert value.item() == 1
    assert sure.grad.isfinite().all()


def test_dice_leaves_out_classes_that_are_not_annotated():
    # The third class is invented in one pixel: the second one alone counts, 2*1 / (2+1).
    target, weight = encode([[0, 1, 1, 0]], THREE)
    found, _ = encode([[0, 0, 1, 2]], THREE)
    logits = (100 * found - 50).requires_grad_()
    loss = DiceLoss(THREE, smooth=0)
    value = loss(logits, target, weight)
    assert value.item() == pytest.approx(1 / 3, abs=1e-5)
    nested = LabelSpace(
        values=(0, 1, 2),
        names=("a", "b", "c"),
        regions=(Region(name="both", classes=(1, 2)), Region(name="core", classes=(2,))),
    )
    target, weight = encode([[0, 1, 1, 0]], nested)
    invented = torch.tensor([[[[-50.0, -50, 50, -50]], [[-50, 50, -50, -50]]]])
    value = DiceLoss(nested, smooth=0)(invented, target, weight)
    assert value.item() == pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize("per_image", [False, True])
def test_dice_of_several_absent_classes_has_no_gradient(per_image):
    target, weight = encode([[0, 0, 0, 0]], THREE)
    logits = torch.zeros_like(target).requires_grad_()
    value = DiceLoss(THREE, per_image=per_image)(logits, target, weight)
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


def test_dice_per_image_averages_the_annotated_classes_of_each_image():
    # First image: half of class 1 found, 2/3. Second: class 2 found, 1.
    target = torch.cat([encode(one, THREE)[0] for one in ([[0, 1, 1]], [[0, 0, 2]])])
    found = torch.cat([encode(one, THREE)[0] for one in ([[0, 0, 1]], [[0, 0, 2]])])
    loss = DiceLoss(THREE, smooth=0, per_image=True)
    value = loss(100 * found - 50, target, torch.ones(2, 1, 1, 3))
    assert value.item() == pytest.approx((1 / 3 + 0) / 2, abs=1e-5)


def test_focal_by_hand():
    # p = 3/4 for the truth: (1/4)^2 * log(4/3).
    target, weight = encode([[1]], TWO)
    loss = FocalLoss(TWO, gamma=2)(torch.full((1, 1, 1, 1), math.log(3)), target, weight)
    assert loss.item() == pytest.approx(math.log(4 / 3) / 16, abs=1e-6)
    both = LabelSpace(values=(0, 1), names=("a", "b"), softmax=True)
    target, weight = encode([[1]], both)
    logits = torch.tensor([[[[0.0]], [[math.log(3)]]]])
    loss = FocalLoss(both, gamma=2)(logits, target, weight)
    assert loss.item() == pytest.approx(math.log(4 / 3) / 16, abs=1e-6)


@pytest.mark.parametrize("space", [TWO, THREE])
def test_focal_of_gamma_0_is_the_cross_entropy(space):
    target, weight = encode([[0, 1, 1, 0, IGNORE]], space)
    logits = torch.linspace(-60, 60, target.numel()).reshape(target.shape)
    focal = FocalLoss(space, gamma=0)(logits, target, weight)
    torch.testing.assert_close(focal, CrossEntropyLoss(space)(logits, target, weight))


@pytest.mark.parametrize("space", [TWO, THREE])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("scale", [20.0, -20.0, 200.0, -200.0])
def test_focal_has_a_gradient_where_a_probability_is_rounded_to_1(space, gamma, scale):
    target, weight = encode([[0, 1, 1, 0]], space)
    logits = (scale * (2 * target - 1)).requires_grad_()
    value = FocalLoss(space, gamma)(logits, target, weight)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("space", [TWO, THREE])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_losses_equal_monai(space, smooth):
    torch.manual_seed(0)
    classes = torch.randint(len(space.values), (2, 8, 9))
    target = torch.stack([space.encode(one)[0] for one in classes])
    logits, weight = torch.randn_like(target), torch.ones(2, 1, 8, 9)
    how = {
        "sigmoid": space.is_binary,
        "softmax": not space.is_binary,
        "include_background": space.is_binary,
        "smooth_nr": smooth,
        "smooth_dr": smooth,
    }
    gamma = monai.losses.FocalLoss(gamma=2.0, use_softmax=not space.is_binary)
    pairs = [
        (DiceLoss(space, smooth), monai.losses.DiceLoss(batch=True, **how)),
        (DiceLoss(space, smooth, per_image=True), monai.losses.DiceLoss(**how)),
        (
            TverskyLoss(space, smooth, alpha=0.3, beta=0.7),
            monai.losses.TverskyLoss(batch=True, alpha=0.3, beta=0.7, **how),
        ),
    ]
    if smooth == 0:  # Monai smooths Jaccard as if it were Dice.
        pairs.append(
            (JaccardLoss(space, smooth), monai.losses.DiceLoss(batch=True, jaccard=True, **how))
        )
    for ours, theirs in pairs:
        found = ours(logits, target, weight)
        assert found.item() == pytest.approx(theirs(logits, target).item(), abs=1e-5)
    # Monai divides by the classes as well.
    focal = FocalLoss(space)(logits, target, weight) / space.channels
    assert focal.item() == pytest.approx(gamma(logits, target).item(), abs=1e-5)


def test_cross_entropy_by_hand():
    target, weight = encode([[0, 1, IGNORE]], TWO)
    logits = torch.tensor([[[[0.0, math.log(3), 50.0]]]])
    # -log(1/2) and -log(3/4), the third pixel ignored.
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert CrossEntropyLoss(TWO)(logits, target, weight).item() == pytest.approx(expected, abs=1e-6)


def test_cross_entropy_of_classes_equals_torch():
    torch.manual_seed(0)
    classes = torch.randint(3, (2, 5, 6))
    target = torch.stack([THREE.encode(one)[0] for one in classes])
    logits = torch.randn(2, 3, 5, 6)
    ours = CrossEntropyLoss(THREE)(logits, target, torch.ones(2, 1, 5, 6))
    theirs = torch.nn.functional.cross_entropy(logits, classes)
    torch.testing.assert_close(ours, theirs)


def test_weighted_sum_and_deep_supervision_by_hand():
    class Constant(torch.nn.Module):
        def forward(self, logits, target, weight):
            assert logits.shape[2:] == target.shape[2:] == weight.shape[2:]
            return logits.mean()

    one, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert WeightedSum((2.0, Constant()), (0.5, Constant()))(one, one, weight) == 2.5
    heads = [one * 3, torch.ones(1, 1, 2, 2) * 9]
    # Shares 2/3 and 1/3.
    assert DeepSupervision(Constant())(heads, one, weight).item() == pytest.approx(5.0)


def test_cross_entropy_weighs_pixels_without_dividing_by_the_weights():
    target, _ = encode([[0, 1]], TWO)
    weight = torch.tensor([[[[1.0, 5.0]]]])
    # log 2 in each pixel: (1 + 5) log 2 / 2 pixels.
    value = CrossEntropyLoss(TWO)(torch.zeros(1, 1, 1, 2), target, weight)
    assert value.item() == pytest.approx(3 * math.log(2), abs=1e-6)


def test_dice_pools_the_batch_before_it_divides():
    # First image: 1 of 1 found. Second: none there, 1 invented. Pooled: 2*1 / (1+2).
    target = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    found = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    value = DiceLoss(TWO, smooth=0)(100 * found - 50, target, torch.ones_like(target))
    assert value.item() == pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize("space", [TWO, THREE])
def test_deep_supervision_compares_coarser_heads_with_means(space):
    torch.manual_seed(0)
    classes = torch.randint(len(space.values), (4, 4)).repeat_interleave(2, 0)
    classes = classes.repeat_interleave(2, 1)
    classes[:4, :4] = IGNORE
    target, weight = (value[None] for value in space.encode(classes))
    coarse_target, coarse_weight = (value[None] for value in space.encode(classes[::2, ::2]))
    fine, coarse = torch.randn(1, space.channels, 8, 8), torch.randn(1, space.channels, 4, 4)
    loss = build_loss(LossConfig(), space, deep_supervision=True)
    single = build_loss(LossConfig(), space, deep_supervision=False)
    expected = (2 * single(fine, target, weight) + single(coarse, coarse_target, coarse_weight)) / 3
    torch.testing.assert_close(loss([fine, coarse], target, weight), expected)
    torch.testing.assert_close(loss(fine, target, weight), single(fine, target, weight))


@pytest.mark.parametrize("factor", [2, 4])
def test_shrink_target_does_not_shift_objects(factor):
    # The center of mass of a centered object, in the coordinates of the fine grid, stays 7.5.
    target = torch.zeros(1, 1, 16, 16)
    target[..., 5:11, 3:13] = 1
    small, _ = shrink_target(target, torch.ones_like(target), (16 // factor, 16 // factor))
    for axis in (2, 3):
        edges = (torch.arange(16 // factor) + 0.5) * factor - 0.5
        profile = small.sum(dim=5 - axis)[0, 0]
        assert (profile * edges).sum() / profile.sum() == pytest.approx(7.5)
    assert small.sum() * factor**2 == pytest.approx(target.sum().item())


def test_shrink_target_leaves_out_ignored_pixels():
    target = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]] * 2]])
    weight = torch.tensor([[[[3.0, 0.0, 0.0, 0.0]] * 2]])
    small, small_weight = shrink_target(target, weight, (1, 2))
    assert small.tolist() == [[[[1.0, 0.0]]]]
    assert small_weight.tolist() == [[[[1.5, 0.0]]]]


def test_loss_config_refuses_unknown_and_empty_terms():
    with pytest.raises(ConfigError) as caught:
        LossConfig(terms={"dise": 1})
    assert caught.value.code == "unknown_loss"
    assert "dice" in caught.value.hint
    assert "cross_entropy" in caught.value.hint
    for terms in ({"cross_entropy": 1, "dice": -0.5}, {"dice": 0}):
        with pytest.raises(ConfigError) as caught:
            LossConfig(terms=terms)
        assert caught.value.code == "value_out_of_range"


def test_loss_config_accepts_a_custom_loss_that_build_loss_refuses_until_it_is_loaded():
    config = LossConfig(terms={"dice": 1, "mine.py:MyLoss": 0.5})
    with pytest.raises(ConfigError) as caught:
        build_loss(config, TWO, deep_supervision=False)
    assert caught.value.code == "custom_code_missing"


@pytest.mark.parametrize("name", ["smooth", "focal_gamma", "tversky_alpha", "tversky_beta"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_loss_config_refuses_impossible_numbers(name, value):
    with pytest.raises(ConfigError) as caught:
        LossConfig(**{name: value})
    assert caught.value.code == "value_out_of_range"
    assert name in caught.value.message


def test_loss_config_refuses_a_tversky_loss_without_costs():
    free = {"tversky_alpha": 0.0, "tversky_beta": 0.0}
    with pytest.raises(ConfigError) as caught:
        LossConfig(terms={"tversky": 1}, **free)
    assert caught.value.code == "settings_conflict"
    LossConfig(terms={"dice": 1}, **free)


def test_build_loss_passes_the_values_of_the_config():
    # Truth has 3 pixels; 2 are found, 1 is missed, 2 are invented.
    target, weight = encode([[1, 1, 1, 0, 0, 0]], TWO)
    found, _ = encode([[0, 1, 1, 1, 1, 0]], TWO)
    numbers = {"smooth": 2.0, "focal_gamma": 3.0, "tversky_alpha": 0.1, "tversky_beta": 0.8}

    def value(name, logits):
        config = LossConfig(terms={name: 1.0}, **numbers)
        return build_loss(config, TWO, deep_supervision=False)(logits, target, weight).item()

    sure = 100 * found - 50
    assert value("dice", sure) == pytest.approx(1 - 6 / 9, abs=1e-5)
    assert value("dice_per_image", sure) == pytest.approx(1 - 6 / 9, abs=1e-5)
    assert value("jaccard", sure) == pytest.approx(1 - 4 / 7, abs=1e-5)
    assert value("tversky", sure) == pytest.approx(1 - 4 / 5, abs=1e-5)  # 2 + 0.1*2 + 0.8*1 + 2
    assert value("focal", torch.zeros_like(target)) == pytest.approx(math.log(2) / 8, abs=1e-6)


def test_build_loss_leaves_out_terms_of_factor_0():
    target, weight = encode([[0, 1, 1, 0]], TWO)
    logits = torch.randn_like(target)
    both = build_loss(
        LossConfig(terms={"dice": 1, "cross_entropy": 0}), TWO, deep_supervision=False
    )
    assert both(logits, target, weight) == DiceLoss(TWO)(logits, target, weight)


@pytest.mark.parametrize("space", [TWO, THREE])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_loss_of_the_distance_is_added_to_that_of_the_classes(space, deep_supervision):
    torch.manual_seed(0)
    logits = torch.randn(2, space.outputs, 4, 4)
    target, weight = encode([[[0, 1, 1, IGNORE]] * 4] * 2, space)
    target, weight = target[0].transpose(0, 1), weight[0].transpose(0, 1)
    distance = torch.rand(2, 1, 4, 4)
    plain = build_loss(LossConfig(), space, deep_supervision=deep_supervision)
    both = build_loss(
        LossConfig(), replace(space, has_distance=True), deep_supervision=deep_supervision
    )
    own = torch.logit(distance)
    added = both(torch.cat([logits, own], 1), torch.cat([target, distance], 1), weight)
    # The cross-entropy of a fraction with itself is its entropy, the mean over 3 of 4 columns.
    entropy = -(distance * distance.log() + (1 - distance) * (1 - distance).log())[..., :3].mean()
    expected = plain(logits, target, weight) + DISTANCE_FACTOR * entropy
    assert added.item() == pytest.approx(expected.item(), rel=1e-5)
