import pytest
import torch

from ushape.training.module import mean_group_dice, moving_average


def test_moving_average_by_hand():
    # After one update: decay min(0.9, 2/11), so 9/11 of the way to the new weights.
    averaged, current = [torch.tensor([1.0])], [torch.tensor([12.0])]
    moving_average(0.9)(averaged, current, 1)
    assert averaged[0].item() == pytest.approx(1 + 11 * 9 / 11)

    # Much later the decay itself holds: a tenth of the way.
    averaged = [torch.tensor([1.0])]
    moving_average(0.9)(averaged, [torch.tensor([11.0])], 10_000)
    assert averaged[0].item() == pytest.approx(2.0)


def test_moving_average_copies_counters():
    averaged = [torch.tensor(3)]
    moving_average(0.9)(averaged, [torch.tensor(8)], 5)
    assert averaged[0].item() == 8


def test_mean_group_dice_by_hand():
    found = [[4, 5, 5, 100]]  # Dice 8/10
    missed = [[0, 7, 0, 100]]  # Dice 0
    empty = [[0, 0, 9, 100]]  # no truth: no say
    assert mean_group_dice([found, missed, empty]) == pytest.approx(0.4)
    assert mean_group_dice([empty, empty]) == pytest.approx(1 - 0.09)
