import json

import numpy as np
import pytest
from PIL import Image

from ushape.errors import RunError
from ushape.evaluation.baselines import (
    Baselines,
    BaselineSampler,
    best_threshold,
    load_baselines,
    measure_baselines,
    save_baselines,
    score_baselines,
)
from ushape.evaluation.scores import CaseScore
from ushape.evaluation.summary import summarize
from ushape.labels import IGNORE, LabelSpace, Region
from ushape.metrics.overlap import Counts
from ushape.types import Case, CaseFacts

CELL = LabelSpace(values=(0, 255), names=("background", "cell"))
TISSUE = LabelSpace(values=(0, 1, 2), names=("background", "bone", "fat"))


@pytest.fixture
def make_case(tmp_path):
    """Writes image and mask of a case."""

    def make(name, image, codes):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        Image.fromarray(codes).save(tmp_path / f"{name}_mask.png")
        case = Case(id=name, image=tmp_path / f"{name}.png", mask=tmp_path / f"{name}_mask.png")
        counts = np.unique(codes, return_counts=True)[1]
        return CaseFacts(case, tuple(counts.tolist()))

    return make


def left_half(size=64):
    mask = np.zeros((size, size), np.uint8)
    mask[:, : size // 2] = 255
    return mask


def test_best_threshold_has_the_highest_pooled_dice():
    # From 3 down: 1 of 1 (Dice 2/4), 2 of 2 (4/5), 2 of 3 (4/6), 3 of 5 (6/8).
    values, positives = np.array([3.0, 2, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    assert best_threshold(values, positives, np.ones(5)) == (2.0, pytest.approx(0.8))
    # Equal values are labeled together: 1 of 2 (2/3) instead of 1 of 1.
    assert best_threshold(np.array([5.0, 5]), np.array([1, 0]), np.ones(2)) == (
        *(5.0, pytest.approx(2 / 3)),
    )


def test_constant_baselines_are_scored_without_training_cases():
    truth = np.array([[1, 1, 0, IGNORE]], np.uint8)
    case = Case(id="a", image="a.png", group="g")
    scores = score_baselines(Baselines(), case, np.zeros((1, 1, 4)), truth, CELL)
    assert set(scores) == {"all_foreground", "all_background"}
    (full,), (empty,) = scores.values()
    assert full.counts == Counts(overlap=2, truth=2, predicted=3, pixels=3)
    assert full.dice == pytest.approx(0.8)
    assert full.pixel_error == pytest.approx(1 / 3)
    assert empty.counts == Counts(overlap=0, truth=2, predicted=0, pixels=3)
    assert (full.case, full.group, full.class_name) == ("a", "g", "cell")


def test_mean_mask_and_intensity_find_what_needs_no_network(make_case):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 64), np.uint8) for _ in range(4)]
    same_place = [make_case(f"place{n}", image, left_half()) for n, image in enumerate(noise)]
    dark = [
        make_case(f"dark{n}", image, np.where(image < 100, 255, 0).astype(np.uint8))
        for n, image in enumerate(noise)
    ]
    other = rng.integers(0, 255, (1, 32, 96), np.uint8)
    case = Case(id="test", image="test.png")

    found = measure_baselines(same_place, CELL)
    assert found.cases == 4
    truth = np.zeros((32, 96), np.uint8)
    truth[:, :48] = 1
    scores = score_baselines(found, case, other, truth, CELL)
    assert scores["mean_mask"][0].dice == 1
    assert scores["intensity"][0].dice < 0.8

    found = measure_baselines(dark, CELL)
    truth = (other[0] < 100).astype(np.uint8)
    scores = score_baselines(found, case, other, truth, CELL)
    assert scores["intensity"][0].dice == pytest.approx(1, abs=0.01)
    assert scores["mean_mask"][0].dice < 0.8


def test_sampled_cases_give_the_measured_baselines_in_any_order(make_case):
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 255, (48, 80), np.uint8) for _ in range(3)]
    masks = [np.where(image > 90, 255, 0).astype(np.uint8) for image in images]
    facts = [make_case(f"c{n}", *pair) for n, pair in enumerate(zip(images, masks, strict=True))]
    sampler = BaselineSampler(facts)
    sampler.add(Case(id="other", image="other.png"), images[0][None], masks[0] // 255)
    for fact, image, mask in list(zip(facts, images, masks, strict=True))[::-1]:
        assert not sampler.is_complete
        sampler.add(fact.case, image[None], mask // 255)
    assert sampler.is_complete
    assert sampler.choose(CELL) == measure_baselines(facts, CELL)


def test_intensity_baseline_chooses_channel_and_relative_intensity(make_case):
    rng = np.random.default_rng(1)
    facts = []
    for n in range(4):
        mask = (rng.random((64, 64)) < 0.3).astype(np.uint8) * 255
        image = rng.integers(0, 100, (64, 64, 3), np.uint8)
        image[..., 2] = 40 * n + np.where(mask > 0, 30, 0)  # Each image has another brightness.
        facts.append(make_case(f"c{n}", image, mask))
    rule = measure_baselines(facts, CELL).classes["cell"].intensity
    assert (rule.channel, rule.is_relative, rule.is_brighter) == (2, True, True)


def test_majority_and_most_frequent_class_of_exclusive_classes(make_case):
    codes = np.zeros((64, 64), np.uint8)
    codes[:48], codes[:16] = 1, 2
    found = measure_baselines([make_case("a", codes, codes)], TISSUE)
    truth = codes.copy()
    scores = score_baselines(found, Case(id="t", image="t.png"), codes[None], truth, TISSUE)
    assert [one.dice for one in scores["mean_mask_argmax"]] == [1, 1]
    # Everything is bone: 2 * 1/2 / (1/2 + 1) for bone, which is half of the pixels; no fat.
    assert [one.dice for one in scores["majority_class"]] == [pytest.approx(2 / 3), 0]
    assert scores["majority_class"][0].pixel_error == 0.5


def test_baselines_of_overlapping_regions_have_no_label_maps(make_case):
    space = LabelSpace(
        values=(0, 1, 2),
        names=("background", "a", "b"),
        regions=(Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))),
    )
    codes = np.zeros((64, 64), np.uint8)
    codes[:32], codes[:16] = 1, 2
    found = measure_baselines([make_case("a", codes, codes)], space)
    scores = score_baselines(found, Case(id="t", image="t.png"), codes[None], codes, space)
    assert set(scores) == {"all_foreground", "all_background", "mean_mask", "intensity"}
    assert [one.dice for one in scores["mean_mask"]] == [1, 1]
    assert [one.dice for one in scores["all_foreground"]] == [pytest.approx(2 / 3), 0.4]


def test_baselines_of_a_constant_image(make_case):
    found = measure_baselines([make_case("a", np.full((64, 64), 7, np.uint8), left_half())], CELL)
    truth = (left_half() > 0).astype(np.uint8)
    flat = np.full((1, 64, 64), 7, np.uint8)
    scores = score_baselines(found, Case(id="t", image="t.png"), flat, truth, CELL)
    assert scores["intensity"] == scores["all_foreground"]


def test_baselines_of_volumes(tmp_path):
    truth = np.zeros((10, 30, 40), np.uint8)
    truth[:5] = 1
    np.save(tmp_path / "image.npy", np.where(truth, 300, 100).astype(np.int16))
    np.save(tmp_path / "mask.npy", truth)
    space = LabelSpace(values=(0, 1), names=("background", "cell"))
    case = Case(id="a", image=tmp_path / "image.npy", mask=tmp_path / "mask.npy")
    found = measure_baselines([CaseFacts(case, (6000, 6000))], space)
    image = np.where(truth, 300, 100)[None]
    scores = score_baselines(found, case, image, truth, space)
    assert scores["mean_mask"][0].dice == scores["intensity"][0].dice == 1
    assert scores["all_foreground"][0].dice == pytest.approx(2 / 3)


def test_stored_baselines_are_restored_and_checked(make_case, tmp_path):
    found = measure_baselines([make_case("a", left_half(), left_half())], CELL)
    path = tmp_path / "baselines.json"
    save_baselines(path, found)
    assert load_baselines(path, CELL, 1) == found
    stored = json.loads(path.read_text())
    del stored["checksum"]
    own = stored["classes"]["cell"]
    for change in (
        {"classes": {"other": own}},
        {"grid": [8, 8]},
        {"majority_class": 9},
        {"classes": {"cell": {**own, "mean_mask": "00"}}},
        {"classes": {"cell": {**own, "intensity": {**own["intensity"], "channel": 3}}}},
        {"argmax": "zz"},
    ):
        path.write_text(json.dumps({**stored, **change}))
        with pytest.raises(RunError) as caught:
            load_baselines(path, CELL, 1)
        assert caught.value.code == "damaged_run_file"


def scores_of(dice, baseline):
    """Scores of one case per group, and those of a baseline."""

    def made(values):
        return [
            CaseScore(
                case=f"c{n}",
                group=f"g{n}",
                class_name="cell",
                counts=Counts(overlap=round(1000 * d), truth=1000, predicted=1000, pixels=9000),
                pixel_error=0,
            )
            for n, d in enumerate(values)
        ]

    return summarize(made(dice), noun="dishes", baselines={"all_foreground": made(baseline)})


@pytest.mark.parametrize(
    ("dice", "baseline", "is_exceeded"),
    [
        ([0.8, 0.9, 0.85, 0.8], [0.3, 0.4, 0.3, 0.2], True),
        ([0.3, 0.4, 0.3, 0.2], [0.3, 0.4, 0.3, 0.2], False),  # The interval is exactly 0.
        ([0.9, 0.1, 0.8, 0.2], [0.3, 0.4, 0.3, 0.2], False),  # Better on average only.
        ([0.2, 0.1], [0.3, 0.4], False),
        ([0.9], [0.3], True),
        ([0.3], [0.3], False),
    ],
)
def test_verdict_says_no_better_unless_the_interval_clears_the_baseline(
    dice, baseline, is_exceeded
):
    summary = scores_of(dice, baseline)
    best = summary.classes[0].best_baseline
    assert best.is_exceeded == is_exceeded
    assert best.mean_dice == pytest.approx(np.mean(baseline))
    assert ("no better than" in summary.verdict) != is_exceeded
    assert f"{np.mean(baseline):.3f}" in summary.verdict


def test_verdict_of_an_older_run_does_not_mention_baselines():
    summary = summarize([], noun="dishes")
    assert "baseline" not in summary.verdict


def test_baselines_of_strokes_between_the_compared_pixels_are_constant(make_case):
    codes = np.full((640, 640), 7, np.uint8)
    codes[0, :] = 255
    codes[-1, :] = 0
    facts = [make_case("a", np.zeros_like(codes), codes)]
    space = LabelSpace(values=(0, 255), names=("background", "cell"), ignore=7)
    found = measure_baselines(facts, space)
    assert (found.cases, found.classes) == (0, {})
    assert "annotated" in found.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e302, 3e38])
@pytest.mark.parametrize("channels", [1, 2])
def test_baselines_of_extreme_pixels_have_a_finite_threshold(channels, value, tmp_path):
    codes = left_half()
    image = np.where(codes > 0, 200.0, 100.0)[None].repeat(channels, axis=0)
    image[:, :8] = value
    case = Case(id="a", image=tmp_path / "a.npy", mask=tmp_path / "m.npy")
    np.save(case.image, image if channels > 1 else image[0])
    np.save(case.mask, codes)
    baselines = measure_baselines([CaseFacts(case, (2048, 2048))], CELL)
    assert np.isfinite(baselines.classes["cell"].intensity.threshold)
    save_baselines(tmp_path / "baselines.json", baselines)
    assert load_baselines(tmp_path / "baselines.json", CELL, channels) == baselines
