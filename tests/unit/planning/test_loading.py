from dataclasses import replace

import numpy as np
import pytest

import ushape
from ushape import config
from ushape.data.cache import SampleStore
from ushape.data.sampling import PatchDataset
from ushape.data.scan import scan_dataset
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.planning import loading
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


class Timing:
    """Calls what is timed once, and returns given seconds for a patch and for a batch."""

    def __init__(self, monkeypatch, *seconds):
        self.seconds, self.patches, self.cases = list(seconds), 0, set()
        draw = PatchDataset.__getitem__

        def counted(dataset, key):
            self.patches += 1
            self.cases |= {case.id for case in dataset.samples.cases}
            return draw(dataset, key)

        monkeypatch.setattr(PatchDataset, "__getitem__", counted)
        monkeypatch.setattr(loading, "typical_s", self.measure)

    def measure(self, run, limit_s):
        run()
        return self.seconds.pop(0)


@pytest.mark.parametrize("memory_bytes", [1 << 40, 1])
def test_measure_loading_s_times_whole_batches_of_several_cases(
    cells, plan, memory_bytes, monkeypatch
):
    machine = replace(plan.machine, main_memory_bytes=memory_bytes)
    recipe = config.override(plan.recipe, ["train.accumulate_grad_batches=3"])
    timing = Timing(monkeypatch, 0.25, 0.5)
    facts = facts_of(cells, plan)
    assert measure_loading_s(recipe, plan.preprocessing, facts, machine, 1000) == 3 * 0.5
    # A patch of one case, then a batch of two patches of three cases.
    assert timing.patches == 1 + 2
    assert timing.cases == {one.case.id for one in facts[::2]}


def test_measure_loading_s_times_a_patch_of_one_case_if_a_batch_takes_too_long(
    cells, plan, monkeypatch
):
    timing = Timing(monkeypatch, 600)
    facts = facts_of(cells, plan)
    seconds = measure_loading_s(plan.recipe, plan.preprocessing, facts, plan.machine, 1000)
    assert seconds == 2 * 600
    assert timing.cases == {facts[0].case.id}


def test_measure_loading_s_leaves_unreadable_cases_to_the_training(cells, plan):
    facts = facts_of(cells, plan)
    for fact in facts:
        fact.case.mask.unlink()
    assert measure_loading_s(plan.recipe, plan.preprocessing, facts, plan.machine, 0.1) is None


def test_build_patches_depends_on_the_seed_only(cells, plan):
    facts = facts_of(cells, plan)
    store = SampleStore([one.case for one in facts], plan.preprocessing, keep=False)
    pixels = np.asarray([one.class_pixels for one in facts])

    def first_patch(*settings):
        recipe = config.override(plan.recipe, settings)
        return build_patches(recipe, plan.preprocessing, store, pixels)[0, 1]["image"]

    np.testing.assert_array_equal(first_patch(), first_patch())
    assert (first_patch("seed=1") != first_patch()).any()
