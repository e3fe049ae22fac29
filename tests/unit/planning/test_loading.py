from dataclasses import replace

import numpy as np
import pytest

import ushape
from ushape import config
from ushape.data.cache import SampleStore
from ushape.data.scan import scan_dataset
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning.loading import build_patches, measure_loading_s, waiting_s


@pytest.fixture
def cells(tmp_path):
    folder = tmp_path / "cells"
    write_data_set(folder, 6, SyntheticConfig(size=48, groups=6), seed=0)
    return folder


@pytest.fixture
def plan(cells):
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]", "train.batch_size=2"]
    return ushape.plan(cells, epochs=1, settings=settings, quiet=True)


def facts_of(cells, plan):
    return scan_dataset(cells, None, plan.recipe.labels, workers=1).facts


def test_waiting_s_by_hand():
    assert waiting_s(0.5, 0.2, workers=0) == 0.5
    assert waiting_s(0.5, 0.2, workers=2) == pytest.approx(0.05)
    assert waiting_s(0.5, 0.2, workers=4) == 0


@pytest.mark.parametrize("memory_bytes", [1 << 40, 1])
def test_measure_loading_s_with_cases_in_memory_and_in_files(cells, plan, memory_bytes):
    machine = replace(plan.machine, main_memory_bytes=memory_bytes)
    facts = facts_of(cells, plan)
    assert 0 < measure_loading_s(plan.recipe, plan.preprocessing, facts, machine, 0.1) < 60


def test_measure_loading_s_leaves_unreadable_cases_to_the_training(cells, plan):
    facts = facts_of(cells, plan)
    for fact in facts:
        fact.case.mask.unlink()
    assert measure_loading_s(plan.recipe, plan.preprocessing, facts, plan.machine, 0.1) == 0


def test_measurement_does_not_change_the_patches(cells, plan):
    facts = facts_of(cells, plan)
    store = SampleStore([one.case for one in facts], plan.preprocessing, keep=False)
    pixels = np.asarray([one.class_pixels for one in facts])
    dataset = build_patches(plan.recipe, plan.preprocessing, store, pixels)
    before = dataset[0, 1]["image"]
    measure_loading_s(plan.recipe, plan.preprocessing, facts, plan.machine, 0.1)
    np.testing.assert_array_equal(dataset[0, 1]["image"], before)
    other = config.override(plan.recipe, ["seed=1"])
    assert (build_patches(other, plan.preprocessing, store, pixels)[0, 1]["image"] != before).any()
