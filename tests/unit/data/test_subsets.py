from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ushape.data.subsets import MAX_TUNING_VALUES, nest_subsets, thin_out_cases
from ushape.types import Case


def nest(shares, *, points=4, seed=0, classes=None):
    """One case for each group, named by its place."""
    cases = [Case(id=f"g{n:03d}/0", image=Path("x"), group=f"g{n:03d}") for n in range(len(shares))]
    share = {case.id: own for case, own in zip(cases, shares, strict=True)}
    present = classes or {case.id: [1] if share[case.id] else [] for case in cases}
    return nest_subsets(cases, share, present, points=points, seed=seed)


@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=70),
    points=st.integers(3, 9),
    seed=st.integers(0, 99),
)
def test_subset_is_half_of_the_next_and_inside_it(shares, points, seed):
    subsets = nest(shares, points=points, seed=seed)
    sizes = [len(own) for own in subsets]
    assert sizes[-1] == len(shares)
    assert 1 <= len(subsets) <= points
    assert sizes[0] == 1 or len(subsets) == points
    for smaller, larger in pairwise(subsets):
        assert smaller < larger
        assert len(smaller) == (len(larger) + 1) // 2
    assert subsets == nest(shares, points=points, seed=seed)


@given(shares=st.lists(st.sampled_from([0.0, 0.0, 0.2]), min_size=1, max_size=40))
def test_subset_has_foreground_if_the_whole_has_some(shares):
    subsets = nest([*shares, 0.1], points=9)
    for kept in subsets:
        assert any([*shares, 0.1][int(group[1:])] > 0 for group in kept)


def test_subset_is_as_varied_as_the_whole():
    shares = np.linspace(0.01, 0.64, 64)
    for seed in range(20):
        eighth = nest(shares.tolist(), seed=seed)[0]
        places = sorted(int(group[1:]) for group in eighth)
        # One of each run of eight that follow one another by foreground.
        assert [place // 8 for place in places] == list(range(8))


def test_subset_may_contain_any_group():
    counts = Counter(
        group
        for seed in range(400)
        for group in nest([0.1, 0.2, 0.3, 0.4, 0.5], points=3, seed=seed)[0]
    )
    # Two of five groups are kept: each some 160 times of 400, the richest not always.
    assert len(counts) == 5
    assert min(counts.values()) > 80
    assert max(counts.values()) < 240


def test_subset_halves_a_rare_class_like_the_others():
    # 8 of 32 groups hold class 2, whatever their foreground.
    classes = {f"g{n:03d}/0": [1, 2] if n % 4 == 0 else [1] for n in range(32)}
    shares = np.random.default_rng(0).random(32).tolist()
    for seed in range(10):
        subsets = nest(shares, seed=seed, classes=classes)
        rare = [sum(int(group[1:]) % 4 == 0 for group in kept) for kept in subsets]
        assert rare == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("groups", "sizes"), [(24, [3, 6, 12, 24]), (5, [1, 2, 3, 5]), (3, [1, 2, 3])]
)
def test_subset_sizes(groups, sizes):
    assert [len(kept) for kept in nest([0.1] * groups)] == sizes


def test_thin_out_cases_beyond_the_limit():
    assert list(thin_out_cases([100] * 7, 1)) == list(range(7))
    assert list(thin_out_cases([MAX_TUNING_VALUES] * 6, 1)) == [0]
    assert list(thin_out_cases([MAX_TUNING_VALUES // 4] * 8, 1)) == [0, 2, 4, 6]
