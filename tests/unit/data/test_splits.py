from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ushape.data.splits import SplitConfig, Splits, make_splits
from ushape.errors import ConfigError, DataError, RunError
from ushape.types import Case


def make_cases(sizes):
    return [
        Case(id=f"g{group:03d}/{index}", image=Path("x"), group=f"g{group:03d}")
        for group, size in enumerate(sizes)
        for index in range(size)
    ]


def split(cases, shares=None, kind="folder", seed=0, config=None):
    shares = shares or dict.fromkeys((case.id for case in cases), 0.5)
    return make_splits(cases, shares, config or SplitConfig(), kind=kind, seed=seed)


def groups(ids):
    return {case_id.split("/")[0] for case_id in ids}


@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=25),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["folder", "stack", "single"]),
)
def test_every_case_is_on_one_side_and_no_group_on_two(sizes, seed, kind):
    cases = make_cases(sizes)
    found = split(cases, kind=kind, seed=seed)
    parts = [found.train, found.validation, found.test]
    assert all(parts)
    assert sorted(i for part in parts for i in part) == sorted(case.id for case in cases)
    assert sum(len(groups(part)) for part in parts) == len(sizes)


def test_the_fractions_are_about_what_was_asked():
    found = split(make_cases([5] * 40))
    assert len(groups(found.test)) == 8
    assert len(groups(found.validation)) == 6


def test_four_patients():
    found = split(make_cases([10, 12, 9, 11]))
    assert [len(groups(p)) for p in (found.train, found.validation, found.test)] == [2, 1, 1]


def test_two_groups_are_too_few():
    with pytest.raises(DataError, match="2 groups of 8 images") as caught:
        split(make_cases([4, 4]))
    assert "at least three" in caught.value.hint


def test_seed_decides_and_the_order_of_the_cases_does_not():
    cases = make_cases([3] * 20)
    assert split(cases) == split(cases[::-1])
    assert len({split(cases, seed=seed).test for seed in range(6)}) > 1


@pytest.mark.parametrize("seed", range(8))
def test_foreground_is_spread_over_the_parts(seed):
    """Half of the patients are nearly empty: both kinds must be on each side."""
    cases = make_cases([4] * 20)
    shares = {case.id: 0.3 if int(case.group[1:]) < 10 else 0.001 for case in cases}
    found = split(cases, shares, seed=seed)
    for part in (found.train, found.validation, found.test):
        rich = sum(int(group[1:]) < 10 for group in groups(part))
        assert 0 < rich < len(groups(part))


def test_a_stack_is_cut_into_contiguous_parts():
    for seed in range(4):
        found = split(make_cases([3] * 10), kind="stack", seed=seed)
        for part in (found.train, found.validation, found.test):
            numbers = sorted(int(group[1:]) for group in groups(part))
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert min(int(g[1:]) for g in groups(found.train)) > 0
        assert "touches" in found.text


def test_saved_and_loaded(tmp_path):
    found = split(make_cases([2] * 5))
    found.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == found
    (tmp_path / "splits.json").write_text("{")
    with pytest.raises(RunError, match=r"splits\.json: not readable"):
        Splits.load(tmp_path / "splits.json")


def test_impossible_fractions():
    with pytest.raises(ConfigError, match="test_fraction is 0"):
        SplitConfig(test_fraction=0)
    with pytest.raises(ConfigError, match="too little for training"):
        SplitConfig(test_fraction=0.6, validation_fraction=0.35)


@given(
    count=st.integers(4, 23),
    folds=st.integers(2, 9),
    seed=st.integers(0, 9),
    kind=st.sampled_from(["folder", "stack"]),
)
def test_over_all_folds_each_group_is_tested_once(count, folds, seed, kind):
    assume(folds <= count)
    cases = make_cases([2] * count)
    tested = []
    for fold in range(folds):
        found = split(cases, kind=kind, seed=seed, config=SplitConfig(folds=folds, fold=fold))
        parts = [groups(part) for part in (found.train, found.validation, found.test)]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == count
        assert f"Fold {fold + 1} of {folds}" in found.text
        tested += parts[2]
    assert sorted(tested) == sorted(groups(case.id for case in cases))


def test_every_fold_gets_rich_and_poor_groups():
    cases = make_cases([1] * 20)
    shares = {case.id: index / 20 for index, case in enumerate(cases)}
    for fold in range(5):
        found = split(cases, shares, config=SplitConfig(folds=5, fold=fold))
        mean = sum(shares[i] for i in found.test) / 4
        assert 0.3 < mean < 0.65


def test_more_folds_than_groups_are_refused():
    with pytest.raises(DataError, match="7 folds of 5 groups"):
        split(make_cases([1] * 5), config=SplitConfig(folds=7))
    with pytest.raises(ConfigError, match=r"split\.folds is 5, split\.fold 5"):
        SplitConfig(folds=5, fold=5)
