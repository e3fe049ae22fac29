from pathlib import Path

import numpy as np

from ushape.data.case_stats import CaseStats
from ushape.data.grouping.similarity import (
    are_alike,
    are_neighbors_alike,
    centered_pictures,
    correlation_of_neighbors,
)
from ushape.types import Case


def noise(*seed):
    return np.random.default_rng(seed).standard_normal((8, 8))


def test_pictures_of_huge_values_have_norm_one():
    pictures = centered_pictures([noise(n).astype(np.float32) * np.float32(3e37) for n in range(4)])
    np.testing.assert_allclose(np.linalg.norm(pictures, axis=1), 1)
    assert not centered_pictures([np.ones((8, 8))] * 3).any()


def test_groups_are_alike_only_if_their_images_are():
    keys = [group for group in "abc" for _ in range(8)]
    scenes = [noise(ord(key)) + 0.5 * noise(n) for n, key in enumerate(keys)]
    assert are_alike(keys, centered_pictures(scenes))
    assert not are_alike(keys, centered_pictures([noise(n) for n in range(24)]))
    assert not are_alike(["a"] * 24, centered_pictures(scenes))
    assert not are_alike(list(map(str, range(24))), centered_pictures(scenes))


def test_neighbors_are_alike_only_in_a_sequence():
    y, x = np.mgrid[:8, :8] / 8
    sections = [np.sin(6 * x + 0.35 * n) + np.cos(6 * y - 0.2 * n) for n in range(20)]
    assert are_neighbors_alike(centered_pictures(sections))
    order = np.random.default_rng(1).permutation(20)
    assert not are_neighbors_alike(centered_pictures([sections[n] for n in order]))


def test_correlation_of_neighbors_is_higher_in_a_sequence():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(24, 32, 32)).cumsum(axis=0)  # Each image resembles the one before.
    stats = [
        CaseStats(case=Case(id=f"a_{number}", image=Path("a.png")), thumbnail=picture)
        for number, picture in enumerate(noise)
    ]
    near, far = correlation_of_neighbors(stats[::-1])
    assert near > far + 0.25
