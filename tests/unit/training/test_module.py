import pytest
import torch

import ushape
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.models.pretrained import load_generated_weights
from ushape.training.module import SegmentationModule, mean_group_dice, moving_average


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


def test_training_begins_with_the_planned_weights(tmp_path):
    write_data_set(tmp_path, 6, SyntheticConfig(size=64, groups=6), seed=0)

    def weights(chosen):
        size = ["network.widths=[16,32,64]", "network.stem=2", f"train.initial_weights={chosen}"]
        plan = ushape.plan(tmp_path, epochs=1, settings=size)
        torch.manual_seed(plan.recipe.seed)
        return SegmentationModule(plan, [], []).network.state_dict(), plan.recipe.network

    (random, config), (generated, _) = weights("random"), weights("generated")
    expected = load_generated_weights(config, 1, random)
    assert generated.keys() == expected.keys()
    assert all(torch.equal(generated[name], expected[name]) for name in expected)
    assert not torch.equal(generated["decoder.ups.0.weight"], random["decoder.ups.0.weight"])
