import pytest

from ushape.data.grouping.numbers import are_sampled_evenly, find_number_runs

EXPOSURES = [f"exp{e}_num_{1000 * n + 20 * e}" for n in range(1, 8) for e in (1, 2)]
"""Seven objects under two exposures, which share one counter."""

SETTINGS = [name.partition("_")[0] for name in EXPOSURES]


def alike(keys):
    return True


def unlike(keys):
    return False


def test_runs_are_the_objects_that_each_setting_recorded_once():
    found = find_number_runs(EXPOSURES, SETTINGS, alike)
    assert found == tuple(str(1000 * n + 20) for n in range(1, 8) for _ in (1, 2))


def test_runs_do_not_depend_on_the_order_of_the_names():
    found = find_number_runs(EXPOSURES[::-1], SETTINGS[::-1], alike)
    assert found == find_number_runs(EXPOSURES, SETTINGS, alike)[::-1]


def test_runs_need_images_that_are_alike():
    assert find_number_runs(EXPOSURES, SETTINGS, unlike) == ()


def test_runs_are_not_used_if_one_holds_two_images_of_a_group():
    assert find_number_runs(EXPOSURES, ["a", "a", *SETTINGS[2:]], alike) == ()


def test_runs_need_a_clear_gap_between_them():
    evenly = [f"exp{n % 2}_num_{100 + 10 * n}" for n in range(20)]
    assert find_number_runs(evenly, (), alike) == ()
    squares = [f"exp{n % 2}_num_{n * n}" for n in range(20)]
    assert find_number_runs(squares, (), alike) == ()


def test_runs_need_several_close_numbers():
    assert find_number_runs(EXPOSURES[:8], SETTINGS[:8], alike) == ()


def test_runs_need_different_numbers_in_all_names():
    assert find_number_runs([*EXPOSURES, "exp3_num_1020"], (), alike) == ()
    assert find_number_runs([*EXPOSURES, "overview"], (), alike) == ()


@pytest.mark.parametrize(
    "numbers",
    [
        range(0, 100, 10),
        [1, 4, 6, 9, 11, 14],
        range(2, 14, 2),
        [950, 1000, 1050, *range(1100, 1300, 50)],
    ],
)
def test_numbers_in_equal_steps_are_sampled_evenly(numbers):
    assert are_sampled_evenly([f"{number:03d}" for number in numbers])
    assert are_sampled_evenly([f"match/frame_{number}" for number in numbers])
    assert not are_sampled_evenly([f"cohort2_patient{number}" for number in numbers])
    assert not are_sampled_evenly([*(f"{number:03d}" for number in numbers), "overview"])


@pytest.mark.parametrize(
    "numbers", [range(30), [1, 4, 6, 9, 11], [1, 3, 6, 9, 11, 14, 20], [2] * 9]
)
def test_numbers_without_equal_steps_are_not_sampled_evenly(numbers):
    assert not are_sampled_evenly([f"{number:03d}" for number in numbers])


def test_numbers_behind_different_words_are_not_sampled_evenly():
    assert not are_sampled_evenly([f"{'ab'[n % 2]}_{10 * n}" for n in range(10)])
