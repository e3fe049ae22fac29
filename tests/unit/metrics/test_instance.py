import itertools

import numpy as np
import pytest
from scipy import optimize

from ushape.errors import ConfigError, DataError
from ushape.instances.label import label_objects
from ushape.metrics.instance import IOU_THRESHOLDS, ObjectCounts, count_objects, match_objects


def rows(*text):
    """Label map of rows of digits, one digit for each pixel."""
    return np.array([[int(digit) for digit in row] for row in text])


def counts(truth, predicted, *ious, covered=None, splits=0, merges=0):
    return ObjectCounts(
        truth=truth,
        predicted=predicted,
        ious=ious,
        covered_iou=sum(ious) if covered is None else covered,
        splits=splits,
        merges=merges,
    )


def scores(found):
    """Return every metric that is derived from the counts."""
    yield from (found.f1(threshold) for threshold in IOU_THRESHOLDS)
    yield from (found.average_precision(threshold) for threshold in IOU_THRESHOLDS)
    yield from (found.mean_average_precision, found.bowl_score)
    yield from (found.recognition_quality, found.segmentation_quality, found.panoptic_quality)


def random_labels(rng, shape, objects):
    """Label map of overlapping boxes, with labels in random order."""
    labels = np.zeros(shape, dtype=np.int64)
    for number in rng.permutation(3 * objects)[:objects] + 1:
        start = [rng.integers(length) for length in shape]
        labels[tuple(slice(at, at + rng.integers(2, 7)) for at in start)] = number
    return labels


def shaken(rng, labels):
    """The same objects shifted by one pixel, with missing pixels and other labels."""
    moved = np.roll(labels, 1, axis=rng.integers(labels.ndim))
    return np.where(rng.random(labels.shape) < 0.95, 7 * moved, 0)


def pairs(count):
    """Label maps of images and volumes: related, but unrelated every fifth time."""
    rng = np.random.default_rng(0)
    for index in range(count):
        shape = (24, 20) if index % 2 else (6, 9, 8)
        truth = random_labels(rng, shape, int(rng.integers(0, 12)))
        yield shaken(rng, truth) if index % 5 else random_labels(rng, shape, 6), truth


def best_matching(predicted, truth, threshold):
    """IoUs of all pairs above the threshold, by comparing each object with each other."""
    ious = []
    for ours, theirs in itertools.product(np.unique(predicted), np.unique(truth)):
        if ours and theirs:
            one, other = predicted == ours, truth == theirs
            ious.append((one & other).sum() / (one | other).sum())
    return sorted(iou for iou in ious if iou > threshold)


def test_count_objects_by_hand():
    truth = rows("11110", "00000", "22222", "00000", "33000")
    guess = rows("44400", "00000", "55500", "00000", "00066")
    found = count_objects(guess, truth)
    # 1 and 4: 3 of 4 pixels; 2 and 5: 3 of 5; 3 is missed, 6 is a false positive.
    assert (found.truth, found.predicted) == (3, 3)
    assert sorted(found.ious) == [0.6, 0.75]
    # At 0.5: two pairs, one missed, one false positive. At 0.6 one pair: 3/5 is not above it.
    assert [found.true_positives(iou) for iou in (0.5, 0.6, 0.75)] == [2, 1, 0]
    assert found.f1() == pytest.approx(2 * 2 / 6)
    assert found.f1(0.6) == pytest.approx(2 * 1 / 6)
    assert found.average_precision() == pytest.approx(2 / 4)
    # StarDist matches 3/5 at 0.6, the Data Science Bowl does not.
    assert found.average_precision(0.6) == pytest.approx(2 / 4)
    # 2/4 at 0.5, 0.55 and 0.6; 1/5 at 0.65, 0.7 and 0.75; nothing at 0.8, 0.85 and 0.9.
    assert found.mean_average_precision == pytest.approx((3 * 0.5 + 3 * 0.2) / 9)
    # 2/4 at 0.5 and 0.55; 1/5 at 0.6, 0.65 and 0.7; nothing from 0.75.
    assert found.bowl_score == pytest.approx((2 * 0.5 + 3 * 0.2) / 10)
    # 3/4 of 1 and 3/5 of 2 are covered, nothing of 3.
    assert found.seg == pytest.approx((0.75 + 0.6) / 3)
    assert (found.splits, found.merges, found.count_error, found.count_difference) == (0, 0, 0, 0)
    # SQ: (0.6 + 0.75) / 2; RQ: 2 / (2 + 1/2 + 1/2).
    assert found.segmentation_quality == pytest.approx(0.675)
    assert found.recognition_quality == pytest.approx(2 / 3)
    assert found.panoptic_quality == pytest.approx(0.45)


def test_count_objects_requires_an_iou_above_one_half():
    # Two halves of one object: at an IoU of 0.5, it could be matched with both.
    split = count_objects(rows("1122"), rows("3333"))
    merged = count_objects(rows("3333"), rows("1122"))
    assert split == counts(1, 2, 0.5, covered=0, splits=1)
    assert merged == counts(2, 1, 0.5, covered=0.5 + 0.5, merges=1)
    for found in (split, merged):
        assert found.f1() == found.segmentation_quality == found.bowl_score == 0
        assert found.average_precision() == 1 / 2  # StarDist: one pair of three objects.


def test_count_objects_matches_a_merged_object_with_its_larger_part():
    # Of 8 pixels 5 are the one object (5/8), 3 the other (3/8).
    assert count_objects(rows("11111111"), rows("44444555")) == counts(
        2, 1, 5 / 8, covered=5 / 8 + 3 / 8, merges=1
    )


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_count_objects_of_empty_full_and_one_pixel_maps(shape):
    nothing, full, one = np.zeros(shape, int), np.ones(shape, int), np.zeros(shape, int)
    one.flat[-1] = 9
    assert count_objects(nothing, nothing) == counts(0, 0)
    assert count_objects(full, full) == counts(1, 1, 1.0)
    assert count_objects(one, one) == counts(1, 1, 1.0)
    assert count_objects(one, full) == counts(1, 1)
    assert count_objects(full, one) == counts(1, 1, covered=1 / one.size)
    assert count_objects(nothing, one) == counts(1, 0)
    assert count_objects(one, nothing) == counts(0, 1)


def test_object_counts_of_empty_cases():
    assert set(scores(counts(0, 0))) == {None}
    for one_sided in (counts(4, 0), counts(0, 4), counts(2, 3)):
        assert set(scores(one_sided)) == {0}
    assert counts(4, 0).seg == 0
    assert counts(0, 4).seg is None
    assert counts(0, 4).count_difference is None
    assert (counts(4, 0).count_difference, counts(0, 4).count_error) == (-1, 4)
    assert set(scores(counts(2, 2, 1.0, 1.0))) == {1}


def test_iou_thresholds_are_the_nearest_doubles():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    for threshold in IOU_THRESHOLDS:
        hit = round(100 * threshold)
        truth, guess = np.ones((1, 100), int), np.ones((1, 100), int)
        guess[:, hit:] = 0
        exact = count_objects(guess, truth)
        guess[:, hit] = 1
        above = count_objects(guess, truth)
        assert (exact.true_positives(threshold), above.true_positives(threshold)) == (0, 1)


def test_match_objects_by_outcome():
    truth = rows("1111000", "0000000", "2233044", "0000000", "5500000")
    guess = rows("6677000", "0000000", "8888099", "0000000", "0000003")
    found = match_objects(guess, truth)
    # 1 is split into 6 and 7; 8 merges 2 and 3; 9 is 4; 5 is missed; 3 is a false positive.
    assert found.truth.tolist() == [1, 2, 3, 4, 5]
    assert found.is_split.tolist() == [True, False, False, False, False]
    assert found.is_merged.tolist() == [False, True, True, False, False]
    assert found.is_found.tolist() == [False, False, False, True, False]
    assert found.predicted.tolist() == [3, 6, 7, 8, 9]
    assert found.is_part.tolist() == [False, True, True, False, False]
    assert found.is_merger.tolist() == [False, False, False, True, False]
    assert found.is_correct.tolist() == [False, False, False, False, True]
    # 2 and 3 are covered by 8 with an IoU of 2/4, 4 by 9 with 1; 1 is covered only half by each.
    assert found.covered_iou.tolist() == [0, 0.5, 0.5, 1, 0]
    assert found.counts.seg == pytest.approx(2 / 5)
    assert (found.counts.splits, found.counts.merges) == (1, 1)


def test_match_objects_does_not_regard_specks_as_parts():
    truth, guess = np.ones((2, 22), int), np.ones((2, 22), int)
    guess[0, 0], guess[1, 2:7] = 2, 3
    # 2 covers 1 of 44 pixels, 3 covers 5, which is at least a tenth.
    found = match_objects(guess, truth)
    assert found.is_split.tolist() == found.is_found.tolist() == [True]
    assert found.is_part.tolist() == [True, False, True]
    assert found.is_false_positive.tolist() == [False, True, False]
    found = match_objects(np.where(guess == 3, 0, guess), truth)
    assert found.is_split.tolist() == found.is_missed.tolist() == [False]


def test_match_objects_equals_masks_of_single_objects():
    """An independent implementation with one mask for each object."""
    splits = merges = 0
    for guess, truth in pairs(300):
        found = match_objects(guess, truth)
        ours = {n: guess == n for n in np.unique(guess[guess > 0])}
        theirs = {n: truth == n for n in np.unique(truth[truth > 0])}
        inside = {
            t: [
                n
                for n, o in ours.items()
                if o[m].sum() > o.sum() / 2 and o[m].sum() * 10 >= m.sum()
            ]
            for t, m in theirs.items()
        }
        covered = {
            n: [t for t, m in theirs.items() if o[m].sum() > m.sum() / 2] for n, o in ours.items()
        }
        cover = dict.fromkeys(theirs, 0.0)
        for n, several in covered.items():
            for t in several:
                cover[t] = (ours[n] & theirs[t]).sum() / (ours[n] | theirs[t]).sum()
        assert found.truth.tolist() == list(theirs)
        assert found.predicted.tolist() == list(ours)
        assert found.covered_iou.tolist() == pytest.approx(list(cover.values()))
        assert found.is_split.tolist() == [len(inside[t]) > 1 for t in theirs]
        assert found.is_merger.tolist() == [len(covered[n]) > 1 for n in ours]
        mergers = [several for several in covered.values() if len(several) > 1]
        assert found.is_merged.tolist() == [any(t in own for own in mergers) for t in theirs]
        parts = [several for several in inside.values() if len(several) > 1]
        assert found.is_part.tolist() == [any(n in own for own in parts) for n in ours]
        splits, merges = splits + len(parts), merges + len(mergers)
    assert min(splits, merges) > 10


def test_average_precision_equals_an_optimal_assignment():
    """StarDist assigns pairs by an optimal assignment; ties at 0.5 are made frequent."""
    rng, ties = np.random.default_rng(1), 0
    for _ in range(200):
        truth, guess = (np.repeat(rng.integers(0, 4, 6), rng.integers(1, 3, 6)) for _ in "ab")
        size = min(len(truth), len(guess))
        truth, guess = truth[None, :size], guess[None, :size]
        found = count_objects(guess, truth)
        for threshold in IOU_THRESHOLDS:
            ious = np.array(
                [
                    [
                        ((guess == n) & (truth == t)).sum() / ((guess == n) | (truth == t)).sum()
                        for t in set(truth[truth > 0])
                    ]
                    for n in set(guess[guess > 0])
                ]
            ).reshape(found.predicted, found.truth)
            rows_of, columns = optimize.linear_sum_assignment(-(ious >= threshold).astype(float))
            pairs_found = int((ious[rows_of, columns] >= threshold).sum())
            union = found.truth + found.predicted - pairs_found
            assert found.average_precision(threshold) == (pairs_found / union if union else None)
            ties += int((ious == 0.5).any())
    assert ties > 100


def test_match_objects_of_70_000_objects_of_one_pixel():
    truth = np.zeros((530, 530), np.int32)
    truth[::2, ::2] = 1 + np.arange(265 * 265).reshape(265, 265)
    found = count_objects(np.roll(truth[::-1], -1, axis=0), truth)
    assert (found.truth, len(found.ious), found.seg) == (70_225, 70_225, 1)
    # A single object over the whole image merges all of them.
    found = count_objects(np.ones_like(truth), truth)
    assert (found.predicted, found.merges, found.ious) == (1, 1, ())
    assert found.seg == pytest.approx(1 / truth.size)


def test_object_counts_of_images_add_up():
    first, second = counts(3, 2, 0.6, 0.9), counts(0, 1)
    assert first + second == counts(3, 3, 0.6, 0.9)
    split = counts(1, 2, 0.5, covered=0, splits=1)
    assert split + counts(2, 1, merges=1) == counts(3, 3, 0.5, covered=0, splits=1, merges=1)
    # 2 pairs of 3 and 3 objects; not the mean of 0.8 and 0.
    assert (first + second).f1() == pytest.approx(4 / 6)
    found = [count_objects(*pair) for pair in pairs(20)]
    forward, backward = sum(found[1:], found[0]), sum(found[-2::-1], found[-1])
    assert list(scores(forward)) == list(scores(backward))


def test_count_objects_equals_comparing_all_pairs():
    matched = 0
    for guess, truth in pairs(200):
        found = count_objects(guess, truth)
        truths, guesses = len(set(truth[truth > 0])), len(set(guess[guess > 0]))
        assert (found.truth, found.predicted) == (truths, guesses)
        precision = []
        for threshold in IOU_THRESHOLDS:
            ious = best_matching(guess, truth, threshold)
            right, wrong, missed = len(ious), guesses - len(ious), truths - len(ious)
            assert found.true_positives(threshold) == right
            if truths + guesses:
                assert found.f1(threshold) == right / (right + wrong / 2 + missed / 2)
                precision.append(right / (right + wrong + missed))
        pairs_at_half = best_matching(guess, truth, 0.5)
        assert sorted(iou for iou in found.ious if iou > 0.5) == pytest.approx(pairs_at_half)
        if truths + guesses:
            assert found.bowl_score == pytest.approx(np.mean(precision))
            quality = 2 * sum(pairs_at_half) / (truths + guesses)
            assert found.panoptic_quality == pytest.approx(quality)
        matched += len(pairs_at_half)
    assert matched > 200


def test_count_objects_is_independent_of_labels_and_positions():
    rng = np.random.default_rng(0)
    for guess, truth in pairs(40):
        plain = count_objects(guess, truth)
        other = rng.permutation(10_000)
        other = np.append(0, other[other > 0])
        renumbered = count_objects(other[guess].astype(np.uint16), truth.astype(np.int32))
        moved = count_objects(np.pad(guess, 3)[::-1], np.pad(truth, 3)[::-1])
        swapped = count_objects(truth, guess)
        for found in (renumbered, moved, swapped):
            assert sorted(found.ious) == sorted(plain.ious)
        assert (swapped.truth, swapped.predicted) == (plain.predicted, plain.truth)


def test_count_objects_accepts_large_labels_without_large_memory():
    large = np.array([[0, 2**31 - 1, 2**31 - 2]])
    assert count_objects(large, large) == counts(2, 2, 1.0, 1.0)


def test_count_objects_ignores_uncounted_pixels():
    truth = rows("110000", "000000", "000000")
    guess = rows("333330", "044444", "005555")
    counted = rows("110001", "111000", "111100") > 0
    # 3 equals 1 in the counted pixels: IoU 2/2. Of 4, only 2 of 5 pixels are counted: left out.
    # Of 5, 2 of 4 pixels are counted, not less than half: a false positive.
    assert count_objects(guess, truth, counted=counted) == counts(1, 2, 1.0)
    # No object lies on counted pixels.
    assert count_objects(guess, truth, counted=guess == 0) == counts(0, 0)
    # All pixels are counted.
    assert count_objects(guess, truth, counted=guess >= 0) == count_objects(guess, truth)


def test_count_objects_of_labeled_class_masks():
    truth = np.array([[1, 1, 0, 2, 2, 0, 1]], dtype=np.uint8)
    guess = np.array([[1, 1, 0, 2, 0, 0, 0]], dtype=np.uint8)
    found = count_objects(label_objects(guess).labels, label_objects(truth).labels)
    # 1 is found, half of 2 is found (a match for StarDist only), the last is missed.
    assert found == counts(3, 2, 1.0, 0.5, covered=1)


@pytest.mark.parametrize("threshold", [0.3, 1.0, float("nan")])
def test_true_positives_refuses_thresholds_below_one_half(threshold):
    with pytest.raises(ConfigError) as error:
        counts(1, 1, 0.8).f1(threshold)
    assert error.value.code == "value_out_of_range"


def test_count_objects_refuses_invalid_label_maps():
    labels = rows("012", "000")
    for predicted, counted in ((labels.T, None), (labels, labels[0] > 0)):
        with pytest.raises(DataError) as error:
            count_objects(predicted, labels, counted=counted)
        assert error.value.code == "mask_size_mismatch"
    for wrong in (labels - 1, labels.astype(float), labels > 0, labels * 2**31):
        with pytest.raises(DataError) as error:
            count_objects(labels, wrong)
        assert error.value.code == "invalid_object_labels"
