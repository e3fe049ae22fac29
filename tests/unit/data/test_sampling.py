import numpy as np
import pytest

from ushape.data.sampling import (
    CaseDraw,
    EpochSampler,
    SamplingConfig,
    build_draw,
    draw_center,
    lesion_probabilities,
    patient_lesion_probabilities,
)
from ushape.errors import ConfigError


def test_planned_foreground_share_is_reached_among_mostly_empty_cases():
    # 2 of 40 cases hold foreground: 5 % by chance, planned 60 % + 40 % x 5 % = 62 %.
    class_pixels = np.full((40, 2), [100, 0])
    class_pixels[[3, 17], 1] = 5
    draw = CaseDraw(class_pixels, 0.6)
    rng = np.random.default_rng(0)
    picks = [draw.draw(rng) for _ in range(4000)]

    share = np.mean([pick.case_index in (3, 17) for pick in picks])
    assert share == pytest.approx(0.62, abs=0.03)
    assert {pick.case_index for pick in picks if pick.class_index} == {3, 17}


def test_rare_class_is_centered_on_as_often_as_a_common_one():
    class_pixels = np.array([[10, 900, 0]] * 9 + [[10, 0, 1]])
    draw = CaseDraw(class_pixels, 1.0)
    rng = np.random.default_rng(1)
    classes = [draw.draw(rng).class_index for _ in range(2000)]
    assert np.mean(np.array(classes) == 2) == pytest.approx(0.5, abs=0.04)


def test_without_any_foreground_every_case_is_drawn():
    draw = CaseDraw(np.array([[5, 0], [5, 0], [5, 0]]), 0.9)
    rng = np.random.default_rng(2)
    assert {draw.draw(rng).case_index for _ in range(100)} == {0, 1, 2}


def test_foreground_patch_holds_the_class():
    classes = np.zeros((40, 30), np.uint8)
    classes[39, 29] = 1  # In the corner: the patch is pushed back into the image.
    for seed in range(20):
        y, x = draw_center(classes, 1, (8, 8), np.random.default_rng(seed))
        corner = int(y - 4), int(x - 4)
        assert classes[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8].any()
        assert corner == (32, 22)


def test_patches_stay_inside_and_reach_every_corner():
    classes = np.zeros((10, 12), np.uint8)
    rng = np.random.default_rng(3)
    corners = {draw_center(classes, None, (8, 8), rng) for _ in range(500)}
    assert corners == {(y + 4.0, x + 4.0) for y in range(3) for x in range(5)}


def test_image_smaller_than_the_patch_lies_in_its_middle():
    assert draw_center(np.zeros((6, 20), np.uint8), None, (8, 20), np.random.default_rng(0)) == (
        3.0,
        10.0,
    )


def test_ranks_share_an_epoch_without_overlap():
    samplers = [EpochSampler(10, lambda: 0, rank, 3) for rank in range(3)]
    parts = [list(sampler) for sampler in samplers]
    assert sorted(key for part in parts for key in part) == [(0, index) for index in range(10)]
    assert [len(part) for part in parts] == [len(sampler) for sampler in samplers]


def test_each_epoch_has_its_own_keys():
    epochs = iter([4, 5])
    sampler = EpochSampler(2, lambda: next(epochs))
    assert list(sampler) == [(4, 0), (4, 1)]
    assert list(sampler) == [(5, 0), (5, 1)]


def test_impossible_share_is_refused():
    with pytest.raises(ConfigError) as error:
        SamplingConfig(foreground_fraction=1.5)
    assert error.value.code == "value_out_of_range"


def test_lesion_probabilities_by_hand():
    # Mean 2, sum 8: (w + 0.2) / 8.8.
    found = lesion_probabilities(np.array([0, 0, 2, 6]))
    np.testing.assert_allclose(found, np.array([0.2, 0.2, 2.2, 6.2]) / 8.8)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(lesion_probabilities(np.zeros(4)), 0.25)


def test_patient_first_then_lesion():
    lesion, groups = np.array([0, 3, 0, 0, 0]), ["b", "b", "a", "a", "a"]
    found = patient_lesion_probabilities(lesion, groups)
    # Patient b: mean 1.5, sum 3: 0.15 / 3.3 and 3.15 / 3.3 of one half; a has no lesion at all.
    np.testing.assert_allclose(found, [0.15 / 6.6, 3.15 / 6.6, 1 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize("name", ["uniform", "lesion", "patient_lesion"])
def test_cases_are_drawn_as_often_as_the_formula_says(name):
    class_pixels = np.array([[9, 0], [5, 4], [1, 8], [9, 0], [8, 1]])
    groups = ["a", "a", "b", "b", "b"]
    expected = {
        "uniform": np.full(5, 0.2),
        "lesion": lesion_probabilities(class_pixels[:, 1]),
        "patient_lesion": patient_lesion_probabilities(class_pixels[:, 1], groups),
    }[name]
    draw = build_draw(SamplingConfig(draw=name), class_pixels, groups)
    rng = np.random.default_rng(1)
    picks = [draw.draw(rng) for _ in range(20_000)]
    assert {pick.class_index for pick in picks} == {None}
    counts = np.bincount([pick.case_index for pick in picks], minlength=5)
    np.testing.assert_allclose(counts / 20_000, expected, atol=0.012)
