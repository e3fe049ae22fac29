import multiprocessing
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ushape
from ushape.data.cache import SampleStore
from ushape.data.discovery import discover
from ushape.datasets.synthetic import SyntheticConfig, write_data_set
from ushape.training.datamodule import (
    SegmentationData,
    spread_evenly,
    with_all_classes,
    worker_context,
)
from ushape.training.module import NO_CASE


def test_spread_evenly_returns_validation_cases_over_the_whole_range():
    assert spread_evenly(10, 4) == [0, 3, 6, 9]
    assert spread_evenly(3, 8) == [0, 1, 2]
    assert spread_evenly(5, 1) == [0]


def test_few_validation_cases_have_all_classes_if_possible():
    pixels = np.array([[9, 0, 0]] * 9)
    pixels[3, 1] = pixels[5, 1] = 4
    assert with_all_classes([0, 8], pixels) == [5, 8]
    assert with_all_classes([3, 8], pixels) == [3, 8]
    pixels[7, 2] = 1
    assert with_all_classes([0, 8], pixels) == [5, 7]
    assert with_all_classes([4], pixels) == [7]
    assert with_all_classes([0, 2, 4, 6, 8], np.array([[9, 0]] * 9)) == [0, 2, 4, 6, 8]


def test_validation_is_never_without_foreground_if_some_case_has_it():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, most = int(rng.integers(1, 20)), int(rng.integers(1, 8))
        pixels = rng.integers(0, 2, (count, 3)) * (rng.random((count, 3)) < 0.2)
        chosen = with_all_classes(spread_evenly(count, most), pixels)
        assert len(set(chosen)) == min(count, most)
        assert pixels[chosen, 1:].any() == pixels[:, 1:].any()


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_worker_context_forks_only_on_linux(platform, monkeypatch):
    if platform == "linux" and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    monkeypatch.setattr(sys, "platform", platform)
    context = worker_context()
    assert (context is not None) is (platform == "linux")


def test_segmentation_data_can_be_sent_to_workers_that_are_not_forked(tmp_path):
    write_data_set(tmp_path / "cells", 6, SyntheticConfig(size=48, groups=6), seed=0)
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]"]
    plan = ushape.plan(tmp_path / "cells", epochs=1, settings=settings)
    store = SampleStore(discover(tmp_path / "cells").cases, plan.preprocessing, keep=True)
    data = SegmentationData(plan, store, store, np.full((6, 2), 100))
    copied = pickle.loads(pickle.dumps(data.dataset))
    for index in ((0, 0), (1, 3)):
        np.testing.assert_array_equal(copied[index]["image"], data.dataset[index]["image"])


def test_validation_cases_are_divided_among_processes_that_all_have_one(tmp_path):
    write_data_set(tmp_path / "cells", 3, SyntheticConfig(size=48, groups=3), seed=0)
    settings = ["network.widths=[4,8]", "sampling.patch_shape=[32,32]"]
    settings.append("train.max_validation_cases=3")
    plan = ushape.plan(tmp_path / "cells", epochs=1, settings=settings)
    store = SampleStore(discover(tmp_path / "cells").cases, plan.preprocessing, keep=True)
    data = SegmentationData(plan, store, store, np.full((3, 2), 100))
    found = []
    for rank in range(4):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=4)
        (index,) = data.val_dataloader()
        found.append(index)
    assert found == [0, 1, 2, NO_CASE]
