import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from probabilities import BINARY, NESTED, SPACES, TENTHS, THREE, probabilities_for, softmax
from ushape.errors import DataError
from ushape.inference.decision_rule import ClassRule, DecisionRule, apply_rule
from ushape.inference.rule_scores import Basis
from ushape.inference.threshold_search import GRID, ValidationCases, choose_rule
from ushape.labels import IGNORE
from ushape.metrics.overlap import count_overlap, dice
from ushape.transforms.morphology import Cleaning


def faint(level, pixels=40, noise=0.0, noisy=0):
    truth = np.zeros((1, 100), np.uint8)
    truth[0, :pixels] = 1
    probabilities = np.where(truth, level, 0.0)
    probabilities[0, 100 - noisy :] = noise
    return probabilities[None].astype(np.float32), truth


def empty(noise=0.0):
    return np.full((1, 1, 100), noise, np.float32), np.zeros((1, 100), np.uint8)


def test_choose_rule_of_a_threshold_by_hand():
    # At 0.5 no pixel is found (Dice 0), from 0.3 down all; of these, 0.3 is nearest to 0.5.
    cases = [faint(0.32), faint(0.34), faint(0.33)]
    chosen = choose_rule(cases, BINARY, ["a", "b", "c"])
    assert chosen.rule.of("lesion").threshold == 0.3
    assert chosen.before == {"lesion": 0.0}
    assert chosen.after == {"lesion": 1.0}
    assert chosen.report[0] == (
        "lesion: threshold 0.3 instead of 0.5: mean Dice 0.0000 -> 1.0000 on 3 groups "
        "(3 better, 0 worse)."
    )
    assert "less on other cases" in chosen.report[-1]


def test_choose_rule_compares_images_if_fewer_than_three_groups_contain_the_class():
    chosen = choose_rule([faint(0.3)] * 4, BINARY, ["a", "a", "b", "b"])
    assert chosen.rule.of("lesion").threshold == 0.3
    assert chosen.basis == {"lesion": Basis(unit="image", count=4)}
    assert "on 4 images (4 better, 0 worse)" in chosen.report[0]
    assert "lesion: occurs in only 2 validation groups" in chosen.report[1]


def test_choose_rule_of_images_makes_no_group_worse():
    # At 0.35, 40 pixels more are found in each image of group a, and 30 false ones in that of b.
    cases = [faint(0.4)] * 3 + [faint(0.9, noise=0.4, noisy=30)]
    assert choose_rule(cases, BINARY, list("abcd")).rule.of("lesion").threshold == 0.4
    assert choose_rule(cases, BINARY, list("aaab")).rule == DecisionRule()


def test_choose_rule_compares_quarters_of_a_single_image():
    truth = np.zeros((20, 20), np.uint8)
    truth[6:14, 6:14] = 1  # A part in each quarter.
    probabilities = np.where(truth, 0.32, 0.1).astype(np.float32)[None]
    chosen = choose_rule([(probabilities, truth)], BINARY, ["a"])
    assert chosen.rule.of("lesion").threshold == 0.3
    assert chosen.basis == {"lesion": Basis(unit="quarter", count=4)}
    assert "on 4 quarters of images" in chosen.report[0]
    truth[:10], truth[:, :10] = 0, 0  # In one quarter only.
    chosen = choose_rule([(probabilities, truth)], BINARY, ["a"])
    assert chosen.rule == DecisionRule()
    assert chosen.basis == {}
    assert chosen.report == (
        "lesion: threshold 0.5 without postprocessing; another choice requires 3 validation "
        "groups, images or quarters of images that contain the class.",
    )


def test_choose_rule_ignores_noise_of_few_images():
    """Probabilities that do not depend on the truth do not change the rule."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        truth = (rng.random((4, 16, 16)) < 0.3).astype(np.uint8)
        guess = np.where(truth, 0.6, 0.4) + rng.normal(0, 0.05, truth.shape)
        cases = [(own[None].astype(np.float32), of) for own, of in zip(guess, truth, strict=True)]
        assert choose_rule(cases, BINARY, ["a"] * 4).rule.of("lesion").threshold == 0.5


def test_choose_rule_pools_groups():
    # Pooled: 40 of 40 + 60 found: 2*40 / (40 + 100), not the mean of 1 and 0.
    pooled = choose_rule([faint(0.9), faint(0.1, 60)] * 3, BINARY, list("aabbcc"))
    assert pooled.before == {"lesion": pytest.approx(80 / 140)}


def test_choose_rule_ignores_groups_without_the_class():
    cases = [faint(0.3), faint(0.3), empty(), empty()]
    assert choose_rule(cases, BINARY, list("abcd")).rule == DecisionRule()


def test_choose_rule_requires_two_thirds_of_changed_groups_to_improve():
    # At 0.3 two of four groups go from 0 to 1, two from 1 to 80/110: the mean rises from 0.5
    # to 0.86, but only half of the groups gain.
    split = [faint(0.3), faint(0.3), *[faint(0.9, noise=0.35, noisy=30)] * 2]
    chosen = choose_rule(split, BINARY, list("abcd"))
    assert chosen.rule == DecisionRule()
    assert "(mean Dice 0.5000); no change gains more than 0.002" in chosen.report[0]
    # With four of six groups improving, it is accepted.
    more = [*split, faint(0.3), faint(0.3)]
    assert choose_rule(more, BINARY, list("abcdef")).rule.of("lesion").threshold == 0.3


def test_choose_rule_ignores_small_gains():
    # One pixel of 40 each is missed at 0.5: 78/79 -> 1 is a gain of 0.0127; of 400, 0.0013.
    truth = np.zeros((1, 500), np.uint8)
    truth[0, :400] = 1
    probabilities = truth[None].astype(np.float32)
    probabilities[0, 0, 0] = 0.4
    assert choose_rule([(probabilities, truth)] * 3, BINARY, list("abc")).rule == DecisionRule()
    cut = (probabilities[..., :40], truth[:, :40])
    assert choose_rule([cut] * 3, BINARY, list("abc")).rule.of("lesion").threshold == 0.4


def test_choose_rule_refuses_thresholds_with_more_false_positives():
    found = [faint(0.3)] * 3
    quiet = choose_rule([*found, empty(0.2)], BINARY, list("abcd"))
    assert quiet.rule.of("lesion").threshold == 0.3
    assert "false positives in 0 -> 0 of 1 cases without lesion" in quiet.report[0]
    loud = choose_rule([*found, empty(0.4)], BINARY, list("abcd"))
    assert loud.rule == DecisionRule()
    # One more false positive in 50 empty cases is 0.02 and allowed, in 49 it is not.
    for others, threshold in ((49, 0.3), (48, 0.5)):
        cases = [*found, empty(0.4), *[empty()] * others]
        chosen = choose_rule(cases, BINARY, [str(n) for n in range(len(cases))])
        assert chosen.rule.of("lesion").threshold == threshold


def test_choose_rule_takes_the_best_threshold_without_more_false_positives():
    # From 0.3 all is found, at 0.45 half: 2*20 / (40 + 20); only 0.3 gives a false positive.
    probabilities, truth = faint(0.32)
    probabilities[0, 0, :20] = 0.47
    chosen = choose_rule([(probabilities, truth)] * 3 + [empty(0.4)], BINARY, list("abcd"))
    assert chosen.rule.of("lesion").threshold == 0.45
    assert chosen.after == {"lesion": pytest.approx(2 / 3)}


def test_choose_rule_takes_the_lowest_of_equal_thresholds_above_one_half():
    chosen = choose_rule([faint(0.9, noise=0.62, noisy=20)] * 3, BINARY, list("abc"))
    assert chosen.rule.of("lesion").threshold == 0.65


def test_choose_rule_refuses_more_false_positives_of_another_class():
    # Ten pixels beside the cell are at 0.42 cell, 0.38 nucleus, 0.2 background, which they are:
    # a cell less than that would be a nucleus in cases that have none.
    truth = np.array([[1] * 20 + [0] * 20], np.uint8)
    found = np.zeros((3, 1, 40), np.float32)
    found[1, 0, :20] = found[0, 0, 30:] = 1
    found[:, 0, 20:30] = [[0.2], [0.42], [0.38]]
    chosen = choose_rule([(found, truth)] * 3, THREE, list("abc"))
    assert chosen.rule == DecisionRule()
    # If the other pixels are background, the threshold is accepted.
    found[:, 0, 20:30] = [[0.38], [0.42], [0.2]]
    better = choose_rule([(found, truth)] * 3, THREE, list("abc"))
    assert better.after == {"cell": 1.0}


def stray_parts():
    """20 stray pixels in five parts of 4 next to an object of 36 with a hole of 4."""
    truth = np.zeros((16, 16), np.uint8)
    truth[1:7, 1:7] = 1
    probabilities = truth[None].astype(np.float32)
    probabilities[0, 3:5, 3:5] = 0.0
    for corner in range(5):
        probabilities[0, 12:14, 3 * corner : 3 * corner + 2] = 1
    return probabilities, truth


def test_choose_rule_chooses_and_reports_useful_cleaning():
    probabilities, truth = stray_parts()
    chosen = choose_rule([(probabilities, truth)] * 3, BINARY, list("abc"))
    own = chosen.rule.of("lesion")
    assert own.threshold == 0.5
    # Largest part and smallest size are equally good; the first one is chosen and suffices.
    assert own.cleaning == Cleaning(largest_only=True, max_hole_size_px="all")
    assert chosen.before == {"lesion": pytest.approx(64 / 88)}
    assert chosen.after == {"lesion": 1.0}
    # 2*32 / (36 + 52) -> 2*32 / (36 + 32) -> 1.
    assert "only the largest component kept: mean Dice 0.7273 -> 0.9412" in chosen.report[0]
    assert "holes filled: mean Dice 0.9412 -> 1.0000" in chosen.report[1]


def test_choose_rule_chooses_a_smallest_size_for_two_objects():
    truth = np.zeros((16, 16), np.uint8)
    truth[1:6, 1:6] = truth[1:6, 9:14] = 1
    probabilities = truth[None].astype(np.float32)
    for column in range(0, 15, 3):
        probabilities[0, 10:12, column : column + 2] = 1
    chosen = choose_rule([(probabilities, truth)] * 3, BINARY, list("abc"))
    assert chosen.rule.of("lesion").cleaning == Cleaning(min_size_px=16)


@pytest.mark.parametrize(
    ("min_size_px", "expected"),
    [
        (25, Cleaning(min_size_px=16, max_hole_size_px="all")),
        (16, Cleaning(min_size_px=16, max_hole_size_px="all")),
        (15, Cleaning(max_hole_size_px="all")),
        (1, Cleaning(max_hole_size_px="all")),
    ],
)
def test_choose_rule_keeps_objects_that_count(min_size_px, expected):
    # Parts of 4 pixels beside an object with a hole: only the largest part would be best.
    probabilities, truth = stray_parts()
    pairs = [(probabilities, truth)] * 3
    chosen = choose_rule(pairs, BINARY, list("abc"), smallest={"lesion": min_size_px})
    assert chosen.rule.of("lesion").cleaning == expected


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], Cleaning(largest_only=True, max_hole_size_px="all")),
        # Two lesions; a ring; a lesion of 36 pixels and one of 12.
        ([(1, 7, 1, 7), (9, 15, 1, 7)], Cleaning(min_size_px=16, max_hole_size_px="all")),
        (
            [(9, 10, 9, 15), (14, 15, 9, 15), (9, 15, 9, 10), (9, 15, 14, 15)],
            Cleaning(largest_only=True),
        ),
        ([(1, 7, 1, 7), (9, 12, 9, 13)], Cleaning(max_hole_size_px="all")),
    ],
)
def test_choose_rule_refuses_cleaning_that_changes_annotated_masks(boxes, expected):
    probabilities, truth = stray_parts()
    other = np.zeros_like(truth)
    for top, bottom, left, right in boxes:
        other[top:bottom, left:right] = 1
    pairs = [(probabilities, truth)] * 3
    chosen = choose_rule(pairs, BINARY, list("abc"), annotated=[other])
    assert chosen.rule.of("lesion").cleaning == expected
    refused = [line for line in chosen.report if "it would also change annotated masks" in line]
    for is_chosen, words in (
        (expected.largest_only, "only the largest"),
        (expected.max_hole_size_px == "all", "holes"),
    ):
        assert any(words in line for line in refused) is (bool(boxes) and not is_chosen)


def test_masks_with_ignored_pixels_do_not_refuse_cleaning():
    truth = np.zeros((16, 16), np.uint8)
    truth[1:7, 1:7] = 1
    probabilities = truth[None].astype(np.float32)
    probabilities[0, 12:14, 2:4] = 1
    strokes = np.full((16, 16), IGNORE, np.uint8)
    strokes[2:4, 2:10] = strokes[8, 2:10] = 1
    pairs = [(probabilities, truth)] * 3
    chosen = choose_rule(pairs, BINARY, list("abc"), annotated=[strokes])
    assert chosen.rule.of("lesion").cleaning == Cleaning(largest_only=True)


def contested(nuclei_at_stake):
    """Four of 20 cell pixels, and some of 10 of the nucleus, are at 0.44 cell, 0.56 nucleus."""
    truth = np.array([[1] * 20 + [2] * 10], np.uint8)
    found = np.zeros((3, 1, 30), np.float32)
    found[1, 0, :20] = found[2, 0, 20:] = 1
    found[:, 0, :4] = found[:, 0, 20 : 20 + nuclei_at_stake] = [[0], [0.44], [0.56]]
    return found, truth


def test_choose_rule_refuses_a_step_that_lowers_the_mean_over_classes():
    # Cell at 0.4 gets its four pixels back: 32/36 -> 1.
    helped = choose_rule([contested(0)] * 3, THREE, list("abc"))
    assert helped.before == {"cell": pytest.approx(32 / 36), "nucleus": pytest.approx(20 / 24)}
    assert helped.after == {"cell": 1.0, "nucleus": 1.0}
    # And takes four from the nucleus: 32/36 -> 40/44 for one, 20/24 -> 12/16 for the other.
    harmed = choose_rule([contested(4)] * 3, THREE, list("abc"))
    assert harmed.rule.of("cell").threshold == 0.5
    assert harmed.rule.of("nucleus").threshold == 0.5
    # The four pixels away from the nucleus are a part of their own.
    assert harmed.rule.of("nucleus").cleaning.largest_only
    assert harmed.after["cell"] == harmed.before["cell"]


def test_choose_rule_excludes_ignored_pixels():
    probabilities, truth = faint(0.3, noise=0.9, noisy=30)
    truth[0, 70:] = IGNORE
    chosen = choose_rule([(probabilities, truth)] * 3, BINARY, list("abc"))
    assert chosen.after == {"lesion": 1.0}


def brute_force(cases, groups, space, name, threshold):
    """Mean Dice of one class over groups, the others at 0.5, from the decided masks."""
    rule = DecisionRule(classes={name: ClassRule(threshold=threshold)})
    region = next(region for region in space.scored if region.name == name)
    pooled = {}
    for (probabilities, truth), group in zip(cases, groups, strict=True):
        counts = count_overlap(apply_rule(rule, probabilities, space), truth, region)
        pooled[group] = pooled[group] + counts if group in pooled else counts
    values = [dice(counts) or 0.0 for counts in pooled.values() if counts.truth]
    return np.mean(values) if values else None


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_threshold_curves_equal_separate_counts(name, seed):
    space, rng = SPACES[name], np.random.default_rng(seed)
    cases = []
    for _ in range(4):
        raw = rng.random((space.channels, 3, 4), dtype=np.float32)
        if not space.is_exclusive:
            raw = raw.round(1)  # On the thresholds themselves.
        truth = rng.integers(0, len(space.values), (3, 4)).astype(np.uint8)
        truth[0, 0] = IGNORE
        cases.append((softmax(raw) if space.is_exclusive else raw, truth))
    groups = ["a", "a", "b", "c"]
    for class_name, curve in ValidationCases(cases, space, groups).threshold_curves().items():
        for threshold, standing in zip(GRID, curve, strict=True):
            expected = brute_force(cases, groups, space, class_name, threshold)
            assert standing.mean == pytest.approx(expected or 0.0, abs=1e-12)


@settings(max_examples=25)
@given(st.data())
def test_threshold_curves_count_ties_at_one_half_as_decided(data):
    probabilities = data.draw(probabilities_for(THREE)) / 2  # Many alike, and few add up to 1.
    truth = np.array([[0, 1, 2, 0, 1]] * 4, np.uint8)
    cases = [(probabilities, truth)]
    for name, curve in ValidationCases(cases, THREE, ["a"]).threshold_curves().items():
        expected = brute_force(cases, ["a"], THREE, name, 0.5)
        assert curve[GRID.index(0.5)].mean == expected


@settings(max_examples=40)
@given(
    st.lists(arrays(np.float32, (1, 3, 4), elements=TENTHS.map(np.float32)), min_size=3, max_size=5)
)
def test_choose_rule_chooses_the_best_accepted_threshold(found):
    truth = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 1, 0]], np.uint8)
    cases, groups = [(p, truth) for p in found], [str(n) for n in range(len(found))]
    chosen = choose_rule(cases, BINARY, groups)
    dices = {t: brute_force(cases, groups, BINARY, "lesion", t) for t in GRID}
    assert chosen.before["lesion"] == pytest.approx(dices[0.5])
    assert chosen.after["lesion"] >= chosen.before["lesion"]
    threshold = chosen.rule.of("lesion").threshold
    assert threshold == 0.5 or dices[threshold] > dices[0.5] + 0.002


def test_choose_rule_of_two_regions():
    truth = np.zeros((1, 60), np.uint8)
    truth[0, :40], truth[0, :10] = 1, 2
    probabilities = np.zeros((2, 1, 60), np.float32)
    probabilities[0, 0, :40], probabilities[1, 0, :10] = 0.41, 0.9
    chosen = choose_rule([(probabilities, truth)] * 3, NESTED, list("abc"))
    assert chosen.rule.of("whole").threshold == 0.4
    assert chosen.rule.of("core") == ClassRule()
    # Before: the ten of the core alone, 2*10 / (40 + 10).
    assert chosen.before == {"whole": pytest.approx(0.4), "core": 1.0}
    assert chosen.after == {"whole": 1.0, "core": 1.0}


def test_choose_rule_of_float16_and_uint8_equals_float32():
    cases = [faint(0.33), faint(0.34), faint(0.36, noise=0.2, noisy=9)]
    half = [(p.astype(np.float16), t) for p, t in cases]
    bytes_ = [((p * 255).round().astype(np.uint8), t) for p, t in cases]
    wanted = choose_rule(cases, BINARY, list("abc")).rule
    assert wanted.of("lesion").threshold == 0.3
    assert choose_rule(half, BINARY, list("abc")).rule == wanted
    assert choose_rule(bytes_, BINARY, list("abc")).rule == wanted


def test_choose_rule_reads_cases_again_in_each_pass():
    class Stored:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter([faint(0.3)] * 3)

    cases = Stored()
    assert choose_rule(cases, BINARY, list("abc")).rule.of("lesion").threshold == 0.3
    assert cases.passes >= 3  # Counts, the threshold by itself, then cleaning.


def test_choose_rule_refuses_inconsistent_cases():
    good = faint(0.9)
    wide = (np.zeros((1, 1, 90), np.float32), good[1])
    with pytest.raises(DataError, match="case 2") as error:
        choose_rule([good, wide], BINARY, ["a", "b"])
    assert error.value.code == "probability_shape_mismatch"
    for value in (3.0, -0.1, np.nan):
        scores = np.full((1, 1, 100), value, np.float32)
        with pytest.raises(DataError, match="case 1") as error:
            choose_rule([(scores, good[1])], BINARY, ["a"])
        assert error.value.code == "invalid_probabilities"
    with pytest.raises(AssertionError, match="several times"):
        choose_rule(iter([good]), BINARY, ["a"])
