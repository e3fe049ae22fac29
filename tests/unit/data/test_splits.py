from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ushape.data.splits import PARTS, SplitConfig, Splits, make_splits
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
def test_split_assigns_each_case_once_and_keeps_groups_together(sizes, seed, kind):
    cases = make_cases(sizes)
    found = split(cases, kind=kind, seed=seed)
    parts = [found.train, found.validation, found.test]
    assert all(parts)
    assert sorted(i for part in parts for i in part) == sorted(case.id for case in cases)
    assert sum(len(groups(part)) for part in parts) == len(sizes)


def test_split_fractions_are_close_to_the_settings():
    found = split(make_cases([5] * 40))
    assert len(groups(found.test)) == 8
    assert len(groups(found.validation)) == 6


def test_split_of_four_patients():
    found = split(make_cases([10, 12, 9, 11]))
    assert [len(groups(p)) for p in (found.train, found.validation, found.test)] == [2, 1, 1]


def test_split_refuses_two_groups():
    with pytest.raises(DataError) as caught:
        split(make_cases([4, 4]))
    assert caught.value.code == "too_few_groups"
    assert "at least three" in caught.value.hint


def test_split_depends_on_the_seed_and_not_on_the_order():
    cases = make_cases([3] * 20)
    assert split(cases) == split(cases[::-1])
    assert len({split(cases, seed=seed).test for seed in range(6)}) > 1


@pytest.mark.parametrize("seed", range(8))
def test_split_spreads_foreground_over_the_parts(seed):
    """Half of the patients are nearly empty: both kinds must be on each side."""
    cases = make_cases([4] * 20)
    shares = {case.id: 0.3 if int(case.group[1:]) < 10 else 0.001 for case in cases}
    found = split(cases, shares, seed=seed)
    for part in (found.train, found.validation, found.test):
        rich = sum(int(group[1:]) < 10 for group in groups(part))
        assert 0 < rich < len(groups(part))


def test_split_of_a_stack_is_contiguous():
    for seed in range(4):
        found = split(make_cases([3] * 10), kind="stack", seed=seed)
        for part in (found.train, found.validation, found.test):
            numbers = sorted(int(group[1:]) for group in groups(part))
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert min(int(g[1:]) for g in groups(found.train)) > 0
        assert "next to a training section" in found.text


def test_split_is_loaded_as_it_was_saved(tmp_path):
    found = split(make_cases([2] * 5))
    found.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == found
    (tmp_path / "splits.json").write_text("{")
    with pytest.raises(RunError) as error:
        Splits.load(tmp_path / "splits.json")
    assert error.value.code == "damaged_run"


def test_split_config_refuses_impossible_fractions():
    with pytest.raises(ConfigError) as error:
        SplitConfig(test_fraction=-0.1)
    assert error.value.code == "value_out_of_range"
    with pytest.raises(ConfigError) as error:
        SplitConfig(test_fraction=0.6, validation_fraction=0.35)
    assert error.value.code == "value_out_of_range"


@given(
    count=st.integers(4, 23),
    folds=st.integers(2, 9),
    seed=st.integers(0, 9),
    kind=st.sampled_from(["folder", "stack"]),
)
def test_folds_test_each_group_once(count, folds, seed, kind):
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


def test_folds_get_rich_and_poor_groups():
    cases = make_cases([1] * 20)
    shares = {case.id: index / 20 for index, case in enumerate(cases)}
    for fold in range(5):
        found = split(cases, shares, config=SplitConfig(folds=5, fold=fold))
        mean = sum(shares[i] for i in found.test) / 4
        assert 0.3 < mean < 0.65


def test_folds_beyond_the_groups_are_refused():
    with pytest.raises(DataError) as error:
        split(make_cases([1] * 5), config=SplitConfig(folds=7))
    assert error.value.code == "too_many_folds"
    with pytest.raises(ConfigError) as error:
        SplitConfig(folds=5, fold=5)
    assert error.value.code == "value_out_of_range"


@given(
    sizes=st.lists(st.integers(1, 6), min_size=8, max_size=40),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["folder", "stack"]),
    test=st.floats(0.1, 0.4),
    validation=st.floats(0.1, 0.4),
)
def test_split_has_the_requested_groups_within_one(sizes, seed, kind, test, validation):
    config = SplitConfig(test_fraction=test, validation_fraction=validation)
    found = split(make_cases(sizes), kind=kind, seed=seed, config=config)
    for part, fraction in ((found.test, test), (found.validation, validation)):
        assert abs(len(groups(part)) - fraction * len(sizes)) <= 1


@given(st.permutations(make_cases([3, 1, 2, 4, 2, 1, 5])), st.integers(0, 20), st.booleans())
def test_split_does_not_depend_on_the_order_of_the_cases(cases, seed, is_stack):
    kind = "stack" if is_stack else "folder"
    present = {case.id: {len(case.id) % 3} for case in cases}
    shares = {case.id: int(case.id[-1]) / 9 for case in cases}
    ordered = sorted(cases, key=lambda case: case.id)
    one, other = (
        make_splits(given, shares, SplitConfig(), kind=kind, seed=seed, classes_present=present)
        for given in (cases, ordered)
    )
    assert one == other


# Classes -----------------------------------------------------------------------------------


def test_split_keeps_the_only_group_of_a_class_in_training():
    cases = make_cases([1] * 12)
    for seed in range(10):
        for rare in (0, 5, 11):
            present = {case.id: {1} for case in cases} | {cases[rare].id: {1, 2}}
            found = make_splits(
                cases,
                dict.fromkeys(present, 0.2),
                SplitConfig(),
                kind="folder",
                seed=seed,
                classes_present=present,
            )
            assert cases[rare].id in found.train


def test_split_puts_a_common_class_into_all_parts():
    cases = make_cases([1] * 30)
    present = {case.id: {1, 2} if index % 3 == 0 else {1} for index, case in enumerate(cases)}
    for seed in range(10):
        found = make_splits(
            cases,
            dict.fromkeys(present, 0.2),
            SplitConfig(),
            kind="folder",
            seed=seed,
            classes_present=present,
        )
        assert all(any(2 in present[i] for i in getattr(found, part)) for part in PARTS)


def split_with_foreground(count, positive, seed, **config):
    """Split groups of one image, of which the named ones have foreground."""
    cases = make_cases([1] * count)
    present = {case.id: {1} if index in positive else set() for index, case in enumerate(cases)}
    shares = {case_id: 0.1 * len(found) for case_id, found in present.items()}
    found = make_splits(
        cases,
        shares,
        SplitConfig(**config),
        kind="single",
        seed=seed,
        classes_present=present,
    )
    return {part: sum(bool(present[i]) for i in getattr(found, part)) for part in PARTS}


@st.composite
def some_positive(draw, smallest=3):
    count = draw(st.integers(smallest, 40))
    return count, draw(st.sets(st.integers(0, count - 1)))


@given(some_positive(), st.integers(0, 199))
def test_split_gives_foreground_to_training_then_test_then_validation(drawn, seed):
    count, positive = drawn
    found = split_with_foreground(count, positive, seed)
    has = [found[part] > 0 for part in ("train", "test", "validation")]
    assert has == [len(positive) >= needed for needed in (1, 2, 3)]


@pytest.mark.parametrize(("count", "positive"), [(20, 3), (50, 4)])
def test_split_always_validates_and_tests_on_foreground_if_three_groups_have_some(count, positive):
    for seed in range(200):
        assert all(split_with_foreground(count, range(positive), seed).values())


@given(some_positive(smallest=9), st.integers(2, 8), st.integers(0, 99))
def test_folds_test_foreground_wherever_it_suffices(drawn, folds, seed):
    count, positive = drawn
    found = [
        split_with_foreground(count, positive, seed, folds=folds, fold=fold)
        for fold in range(folds)
    ]
    tested = [parts["test"] for parts in found]
    assert sum(tested) == len(positive)
    assert sum(map(bool, tested)) == min(folds, len(positive))
    for parts in found:
        left = len(positive) - parts["test"]
        assert (parts["train"] > 0, parts["validation"] > 0) == (left >= 1, left >= 2)


@given(
    st.lists(st.sets(st.integers(1, 6), max_size=3), min_size=6, max_size=40),
    st.integers(0, 99),
)
def test_split_leaves_no_class_without_training_cases(classes, seed):
    cases = make_cases([1] * len(classes))
    present = {case.id: found for case, found in zip(cases, classes, strict=True)}
    shares = {case_id: len(found) / 9 for case_id, found in present.items()}
    sizes = {}
    for spread in (True, False):
        found = make_splits(
            cases,
            shares,
            SplitConfig(stratify_classes=spread),
            kind="folder",
            seed=seed,
            classes_present=present,
        )
        sizes[spread] = [len(getattr(found, part)) for part in PARTS]
        if spread:
            trained = set().union(*(present[i] for i in found.train))
            assert trained == set().union(*classes)
    assert sizes[True] == sizes[False]


def test_rare_classes_are_trained_tested_and_validated_in_this_order():
    """Each class of 40 groups is shown by 1 to 3 of them, and by no other."""
    holders = {1: [0], 2: [5, 6], 3: [9, 10, 11], 4: [20, 30, 39]}
    cases = make_cases([2] * 40)
    present = {case.id: set() for case in cases}
    for found, places in holders.items():
        for place in places:
            for index in range(2):
                present[f"g{place:03d}/{index}"].add(found)
    expected = {
        1: {"train"},
        2: {"train", "test"},
        3: {"train", "test", "validation"},
        4: {"train", "test", "validation"},
    }
    for seed in range(30):
        splits = make_splits(
            cases,
            {case_id: len(found) / 9 for case_id, found in present.items()},
            SplitConfig(),
            kind="folder",
            seed=seed,
            classes_present=present,
        )
        for found, parts in expected.items():
            assert parts == {
                part for part in PARTS if any(found in present[i] for i in getattr(splits, part))
            }


def test_split_in_which_all_parts_have_all_classes_stays_as_in_earlier_versions():
    cases = make_cases([1, 2, 3] * 8)
    present = {case.id: {1, 2} for case in cases}
    shares = {case.id: index / 60 for index, case in enumerate(cases)}
    for seed in range(20):
        now, before = (
            make_splits(
                cases,
                shares,
                SplitConfig(stratify_classes=spread),
                kind="folder",
                seed=seed,
                classes_present=present,
            )
            for spread in (True, False)
        )
        assert now == before


# Given splits ------------------------------------------------------------------------------


def stated(**parts):
    """Two cases of each named group, with the part that it is in."""
    return [
        Case(id=f"{group}/{index}", image=Path("x"), group=group, split=part)
        for part, names in parts.items()
        for group in names.split()
        for index in range(2)
    ]


def test_stated_split_is_used():
    found = split(stated(train="a b c", validation="d", test="e f"))
    assert groups(found.train) == set("abc")
    assert (groups(found.validation), groups(found.test)) == ({"d"}, set("ef"))
    assert found.text == (
        "Split by group: 6 for training (3 groups), 2 for validation (1 group), 4 for test "
        "(2 groups). The dataset defines this split."
    )


@given(
    sizes=st.lists(st.integers(1, 5), min_size=4, max_size=20),
    lacking=st.sampled_from(["validation", "test"]),
    kind=st.sampled_from(["folder", "stack", "single"]),
    seed=st.integers(0, 20),
)
def test_stated_split_is_completed_from_training(sizes, lacking, kind, seed):
    cases = make_cases(sizes)
    there = {"validation": "test", "test": "validation"}[lacking]
    cases = [replace(c, split=there if c.group == "g000" else "train") for c in cases]
    found = split(cases, kind=kind, seed=seed)
    assert all(getattr(found, part) for part in PARTS)
    assert groups(getattr(found, there)) == {"g000"}
    assert sum(len(groups(getattr(found, part))) for part in PARTS) == len(sizes)
    assert sum(len(getattr(found, part)) for part in PARTS) == len(cases)
    assert found.text.endswith(
        f"The dataset defines this split; {lacking} taken from the training groups."
    )


def test_stated_split_of_training_alone_is_ignored():
    cases = stated(train="a b c d")
    plain = [replace(case, split="") for case in cases]
    assert split(cases) == split(plain)
    folds = SplitConfig(folds=2)
    assert split(cases, config=folds) == split(plain, config=folds)


def test_stated_split_must_not_separate_a_group():
    cases = stated(train="a b c", validation="d", test="e f")
    cases[0] = replace(cases[0], split="test")
    with pytest.raises(DataError) as caught:
        split(cases)
    assert caught.value.code == "split_separates_group"
    assert "a: a/1 in train, a/0 in test" in caught.value.message
    assert "image,mask,group,split" in caught.value.hint


def test_stated_splits_that_cannot_be_used():
    cases = stated(train="a b c", test="d")
    with pytest.raises(DataError) as error:
        split([replace(cases[0], split=""), *cases[1:]])
    assert error.value.code == "incomplete_split"
    with pytest.raises(DataError) as error:
        split(stated(test="a b c"))
    assert error.value.code == "too_few_training_groups"
    with pytest.raises(DataError) as error:
        split(stated(train="a", test="b c"))
    assert error.value.code == "too_few_training_groups"
    with pytest.raises(ConfigError) as error:
        split(cases, config=SplitConfig(folds=2))
    assert error.value.code == "folds_of_stated_split"


def test_split_without_test_and_validation_trains_on_everything():
    config = SplitConfig(test_fraction=0, validation_fraction=0)
    found = split(make_cases([1]), config=config)
    assert (found.train, found.validation, found.test) == (("g000/0",), (), ())
    assert found.validated == found.train
    assert "No images are held out for validation" in found.text
    assert "No images are held out for testing" in found.text


@pytest.mark.parametrize("kind", ["folder", "stack"])
def test_split_without_test_validates_on_another_group(kind):
    config = SplitConfig(test_fraction=0)
    found = split(make_cases([2, 2]), kind=kind, config=config)
    assert len(found.train) == len(found.validation) == 2
    assert not found.test
    assert found.validated == found.validation
    with pytest.raises(DataError) as error:
        split(make_cases([4]), kind=kind, config=config)
    assert error.value.code == "too_few_groups"


def test_split_keeps_a_stated_test_set_and_trains_on_all_other_cases():
    cases = [
        replace(case, split="test" if case.group == "g001" else "train")
        for case in make_cases([1, 2])
    ]
    found = split(cases, config=SplitConfig(test_fraction=0, validation_fraction=0))
    assert (found.train, found.validation) == (("g000/0",), ())
    assert found.test == ("g001/0", "g001/1")
    assert "No images are held out for testing" not in found.text


@pytest.mark.parametrize("kind", ["folder", "stack"])
def test_folds_without_validation_test_each_group_once(kind):
    tested = []
    for fold in range(3):
        config = SplitConfig(folds=3, fold=fold, validation_fraction=0)
        found = split(make_cases([1] * 6), kind=kind, config=config)
        assert (len(found.train), len(found.validation), len(found.test)) == (4, 0, 2)
        tested += found.test
    assert len(set(tested)) == 6
