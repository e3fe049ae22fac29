"""Mistakes in published code, one test each: the mistaken form fails it, ours passes."""

import math
import os

import numpy as np
import pytest
import torch
from PIL import Image

from ushape.data.discovery import discover
from ushape.data.splits import SplitConfig, make_splits
from ushape.evaluation.scores import score_case
from ushape.evaluation.summary import summarize
from ushape.labels import LabelSpace
from ushape.losses.entropy import CrossEntropyLoss
from ushape.losses.overlap import DiceLoss
from ushape.models import build_model
from ushape.models.config import NetworkConfig
from ushape.transforms.augment.geometry import GeometryConfig, draw_warp
from ushape.types import Case

TWO = LabelSpace(values=(0, 1), names=("background", "foreground"))


def mistaken_cross_entropy(logits, target, weight):
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * loss / weight).mean()


def test_a_weight_map_is_not_divided_out_again():
    logits, target = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    plain, heavy = torch.ones(1, 1, 1, 2), torch.tensor([[[[9.0, 1.0]]]])

    def has_effect(loss):
        return not math.isclose(loss(logits, target, plain), loss(logits, target, heavy))

    assert has_effect(CrossEntropyLoss(TWO))
    assert not has_effect(mistaken_cross_entropy)


def test_initialization_is_sqrt_of_2_over_n_in_every_convolution():
    def is_he(layer):
        inputs = layer.in_channels * math.prod(layer.kernel_size)
        return math.isclose(layer.weight.detach().std(), math.sqrt(2 / inputs), rel_tol=0.1)

    torch.manual_seed(0)
    network = build_model(NetworkConfig(widths=(32, 64), norm="none"), 16, 8)
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert all(map(is_he, layers))

    mistaken = torch.nn.Conv2d(16, 32, 3)
    torch.nn.init.normal_(mistaken.weight, std=2 / math.sqrt(16 * 9))
    assert not is_he(mistaken)


def test_pairs_do_not_depend_on_the_order_of_listings(tmp_path, monkeypatch):
    names = ["b", "a", "c", "10", "9"]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in names if folder == "images" else reversed(names):
            Image.new("L", (4, 4)).save(tmp_path / folder / f"{name}.png")

    def pairs(backwards):
        scan, listdir = os.scandir, os.listdir

        class Backwards(list):
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

        with monkeypatch.context() as patch:
            if backwards:
                patch.setattr(os, "scandir", lambda *a: Backwards([*scan(*a)][::-1]))
                patch.setattr(os, "listdir", lambda *a: listdir(*a)[::-1])
            found = discover(tmp_path, None).cases
        return [(case.image.stem, case.mask.stem) for case in found]

    assert pairs(backwards=False) == pairs(backwards=True)
    assert all(image == mask for image, mask in pairs(backwards=True))
    mistaken = list(zip(names, reversed(names), strict=True))
    assert any(image != mask for image, mask in mistaken)


def test_rotation_goes_both_ways_as_far():
    config = GeometryConfig(rotation_probability=1, rotation_degrees=10, scale_probability=0)
    rng = np.random.default_rng(0)
    warps = [draw_warp(config, (8, 8), rng).matrix for _ in range(500)]
    ours = np.degrees([math.atan2(matrix[1, 0], matrix[0, 0]) for matrix in warps])
    mistaken = rng.uniform(1 - 10, 1 + 10, 500)

    def is_even(angles):
        return abs(angles.min() + 10) < 0.3 and abs(angles.max() - 10) < 0.3

    assert is_even(ours)
    assert not is_even(mistaken)


def test_soft_dice_smoothed_stays_above_0():
    target = torch.tensor([[[[1.0, 0.0]]]])
    logits, weight = 100 * target - 50, torch.ones_like(target)

    def mistaken(smooth):
        guess = logits.sigmoid()
        return 1 - 2 * ((guess * target).sum() + smooth) / (guess.sum() + target.sum() + smooth)

    assert DiceLoss(TWO, smooth=1.0)(logits, target, weight) >= 0
    assert mistaken(1.0) < 0


def test_dice_is_not_a_mean_of_batches_or_of_empty_slices():
    """One patient, four slices: two empty, one found, one of 3 pixels missed."""
    slices = [
        (np.zeros((2, 3)), np.zeros((2, 3))),
        (np.zeros((2, 3)), np.zeros((2, 3))),
        (np.eye(2, 3), np.eye(2, 3)),
        (np.ones((1, 3)), np.zeros((1, 3))),
    ]
    scores = [
        score
        for index, (truth, guess) in enumerate(slices)
        for score in score_case(str(index), "patient", guess.astype(int), truth.astype(int), TWO)
    ]
    found = summarize(scores, noun="patients").mean_dice
    assert found == pytest.approx(2 * 2 / (5 + 2))

    each = [1.0, 1.0, 1.0, 0.0]  # Empty slices as 1, in batches of three and of one.
    mistaken = np.mean([np.mean(each[:3]), np.mean(each[3:])])
    assert abs(mistaken - found) > 0.05


def test_no_patient_is_on_both_sides():
    cases = [Case(id=f"{p}/{s}", image=None, group=str(p)) for p in range(8) for s in range(9)]
    shares = dict.fromkeys((case.id for case in cases), 0.1)
    splits = make_splits(cases, shares, SplitConfig(), kind="folder", seed=0)

    def leaks(*parts):
        groups = [{case_id.split("/")[0] for case_id in part} for part in parts]
        return sum(map(len, groups)) > len(set.union(*groups))

    assert not leaks(splits.train, splits.validation, splits.test)
    shuffled = np.random.default_rng(0).permutation([case.id for case in cases])
    assert leaks(shuffled[:50], shuffled[50:60], shuffled[60:])


def test_a_failed_pass_does_not_corrupt_the_next():
    class Mistaken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.skips = []

        def forward(self, x):
            self.skips.append(x)
            if x.shape[-1] % 2:
                raise ValueError
            return x + self.skips.pop(0)

    def is_safe(network, good, bad):
        with torch.no_grad():
            before = network(good)
            with pytest.raises(Exception, match=r".*"):
                network(bad)
            return torch.equal(network(good), before)

    torch.manual_seed(0)
    network = build_model(NetworkConfig(widths=(4, 8), norm="none"), 1, 1).eval()
    good, bad = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 9)
    assert is_safe(network, good, bad)
    assert not is_safe(Mistaken(), good, torch.randn(1, 1, 1, 1))


def test_what_chose_the_weights_is_not_the_test():
    cases = [Case(id=str(index), image=None, group=str(index)) for index in range(12)]
    shares = dict.fromkeys((case.id for case in cases), 0.1)
    splits = make_splits(cases, shares, SplitConfig(), kind="single", seed=0)
    assert splits.validation
    assert not set(splits.test) & {*splits.validation, *splits.train}
