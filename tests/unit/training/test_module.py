import numpy as np
import pytest
import torch

import ushape
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.inference.separation import mean_precision
from ushape.models.pretrained import load_generated_weights
from ushape.training.module import (
    SegmentationModule,
    mean_group_dice,
    middle_of,
    moving_average,
)


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


def test_middle_has_the_wanted_size_and_shape():
    assert middle_of((100, 50), 1250) == (slice(25, 75), slice(12, 37))
    assert middle_of((10, 20), 1000) == (slice(0, 10), slice(0, 20))


def test_validation_measures_the_average_precision_of_learned_objects(tmp_path):
    write_data_set(tmp_path, 6, SyntheticConfig(size=64, groups=6), seed=0)
    plan = ushape.plan(tmp_path, epochs=1, settings=["labels.objects=distance"])
    module = SegmentationModule(plan, [], [])
    truth, distance = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.float32)
    truth[4:16, 1:19] = 1
    objects = np.where(truth > 0, 1 + (np.arange(20) - 1) // 6, 0)
    module.on_validation_epoch_start()
    # One peak for three objects: none is found. The second image has a peak for each.
    module._count_objects(truth, distance + 0.5, truth, objects)
    assert mean_precision(module._object_counts) == 0.0
    distance[10, [4, 10, 16]] = 1
    module._count_objects(truth, distance, truth, objects)
    assert module._object_counts["foreground"].average_precision(0.5) == 3 / (4 + 6 - 3)
