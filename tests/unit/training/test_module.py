import numpy as np
import pytest
import torch
from scipy import ndimage

import ushape
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.inference.separation import mean_precision, tabulate_counts
from ushape.models.pretrained import load_synthetic_weights
from ushape.training.module import (
    SegmentationModule,
    mean_group_dice,
    moving_average,
    part_with_objects,
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

    (random, config), (synthetic, _) = weights("random"), weights("synthetic_pretrained")
    expected = load_synthetic_weights(config, 1, random)
    assert synthetic.keys() == expected.keys()
    assert all(torch.equal(synthetic[name], expected[name]) for name in expected)
    assert not torch.equal(synthetic["decoder.ups.0.weight"], random["decoder.ups.0.weight"])


def test_part_with_objects_is_in_the_middle_or_around_the_nearest_object():
    objects = np.zeros((100, 50), int)
    middle = (slice(25, 75), slice(13, 38))
    assert part_with_objects(objects, 1250) == middle
    objects[0, 0] = objects[99, 45] = 1
    assert part_with_objects(objects, 1250) == (slice(50, 100), slice(25, 50))
    objects[30, 30] = 2
    assert part_with_objects(objects, 1250) == middle
    assert part_with_objects(objects[:10, :20], 1000) == (slice(0, 10), slice(0, 20))


@pytest.fixture
def module(tmp_path):
    """Module that learns to separate objects, with four validation cases."""
    write_data_set(tmp_path, 6, SyntheticConfig(size=64, groups=6), seed=0)
    plan = ushape.plan(tmp_path, epochs=1, settings=["labels.objects=distance"])
    found = SegmentationModule(plan, [None] * 4, [])
    found.on_validation_epoch_start()
    return found


def precision_of(module):
    """Average precision of the best setting."""
    return max(
        mean_precision(tabulate_counts(own, ["foreground"])) for own in module._object_counts
    )


def test_validation_measures_the_average_precision_of_learned_objects(module):
    truth, distance = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.float32)
    truth[4:16, 1:19] = 1
    objects = np.where(truth > 0, 1 + (np.arange(20) - 1) // 6, 0)
    # One peak for three objects: none is found. The second image has a peak for each.
    module._count_objects(truth, distance + 0.5, truth, objects)
    assert precision_of(module) == 0.0
    distance[10, [4, 10, 16]] = 1
    module._count_objects(truth, distance, truth, objects)
    for own in module._object_counts:
        assert own["foreground"].average_precision(0.5) == 3 / (4 + 6 - 3)


def test_validation_takes_the_rise_that_suits_the_network_and_ignores_specks(module):
    truth, distance = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.float32)
    truth[4:16, 1:19] = 1
    objects = np.where(truth > 0, 1 + (np.arange(20) - 1) // 9, 0)
    # Two objects of 108 pixels, between which the distance falls by 0.3 only.
    distance[truth > 0] = 0.7
    distance[10, [5, 14]] = 1
    found = truth.copy()
    found[0, ::2] = 1  # Specks of one pixel; a sixteenth of the objects is 7 pixels.
    module._count_objects(found, distance, truth, objects)
    # The line between them takes 12 pixels of one, so that its IoU of 0.89 misses the last of 5.
    assert precision_of(module) == pytest.approx((4 + 1 / 3) / 5)
    # An h of 0.4 finds one object that overlaps each of the two by half.
    low, middle, high = (own["foreground"] for own in module._object_counts)
    assert (low.predicted, middle.predicted, high.predicted) == (2, 2, 1)


def test_validation_compares_equal_parts_of_all_large_cases(module, monkeypatch):
    monkeypatch.setattr("ushape.training.module.MAX_SCORED_PX", 4 * 40**2)
    monkeypatch.setattr("ushape.training.module.MIN_SCORED_PX", 1)
    truth = np.zeros((200, 200), np.uint8)
    truth[::20, ::20] = 1
    truth = ndimage.binary_dilation(truth, np.ones((9, 9))).astype(np.uint8)
    objects = ndimage.label(truth)[0]
    for _ in range(4):
        module._count_objects(truth, truth.astype(np.float32), truth, objects)
    # 40 x 40 pixels of each have parts of 9 objects.
    counts = module._object_counts[0]["foreground"]
    assert (counts.truth, counts.predicted, precision_of(module)) == (36, 36, 1.0)


@pytest.mark.parametrize(("factor", "rates"), [(5, {0.002, 0.01}), (1, {0.002})])
def test_head_has_a_learning_rate_of_its_own(factor, rates, tmp_path):
    write_data_set(tmp_path, 6, SyntheticConfig(size=64, groups=6), seed=0)
    settings = ["labels.objects=connected", f"train.head_lr_factor={factor}"]
    module = SegmentationModule(ushape.plan(tmp_path, epochs=1, settings=settings), [], [])
    groups = module.build_optimizer().param_groups
    assert {group["lr"] for group in groups} == rates
    assert sum(len(group["params"]) for group in groups) == len(list(module.network.parameters()))
    heads = set(map(id, module.network.heads.parameters()))
    for group in groups:
        if group["lr"] > 0.002:
            assert set(map(id, group["params"])) == heads
