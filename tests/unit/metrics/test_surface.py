import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy import ndimage

from ushape.errors import ConfigError, DataError
from ushape.metrics.surface import measure_surfaces


def mask(*rows):
    """Mask of rows of characters, one for each pixel, '#' inside."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def pixel(shape, *place):
    one = np.zeros(shape, dtype=bool)
    one[place] = True
    return one


def blob(rng, shape):
    """Random mask, smooth or ragged, never empty."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0, 3))
    return noise >= np.quantile(noise, rng.uniform(0.05, 0.99))


def pairs(count):
    """Random pairs of masks with spacing; every second pair are volumes."""
    rng = np.random.default_rng(0)
    for index in range(count):
        shape = tuple(rng.integers(3, 25, size=2 + index % 2))
        yield blob(rng, shape), blob(rng, shape), tuple(rng.uniform(0.3, 4, size=len(shape)))


def numbers(found):
    return [found.hausdorff95, found.average, found.surface_dice(1.5)]


def test_measure_surfaces_of_a_strip_by_hand():
    truth, guess = mask("####...."), mask("######..")
    found = measure_surfaces(guess, truth)
    # A strip is all surface. From the prediction: 0 0 0 0 1 2; from the truth: 0 0 0 0.
    assert found.from_predicted.tolist() == [0, 0, 0, 0, 1, 2]
    assert found.from_truth.tolist() == [0, 0, 0, 0]
    # Rank 0.95 * 5 = 4.75 lies between 1 and 2: 1.75. Both directions pooled would give 1.55.
    assert found.hausdorff95 == pytest.approx(1.75)
    # 3 / 10. The mean of both means would be (3/6 + 0/4) / 2 = 0.25.
    assert found.average == pytest.approx(0.3)
    assert [found.surface_dice(tolerance) for tolerance in (0, 1, 2)] == [0.8, 0.9, 1.0]


def test_measure_surfaces_of_squares_by_hand():
    truth = mask("#####", "#####", "#####", "#####", "#####")
    guess = mask(".....", ".###.", ".###.", ".###.", ".....")
    found = measure_surfaces(guess, truth)
    # The truth's surface has 16 pixels, 4 of them corners at a distance of sqrt 2 to the inner
    # corner, the others at 1. The prediction's has 8, all at 1; its center is not surface.
    assert sorted(found.from_truth) == pytest.approx([1] * 12 + [2**0.5] * 4)
    assert found.from_predicted.tolist() == [1] * 8
    assert found.hausdorff95 == pytest.approx(2**0.5)
    assert found.average == pytest.approx((20 + 4 * 2**0.5) / 24)
    assert found.surface_dice(1) == pytest.approx(20 / 24)


def test_measure_surfaces_uses_the_spacing():
    one, other = pixel((5, 6), 0, 0), pixel((5, 6), 3, 4)
    # 3 rows and 4 columns: 5. Rows of 4 mm, columns of 1.25 mm: 12 mm and 5 mm, 13.
    for spacing, distance in (None, 5), ((4, 1.25), 13):
        found = measure_surfaces(one, other, spacing)
        assert found.hausdorff95 == found.average == pytest.approx(distance)
        assert found.surface_dice(distance) == 1
        assert found.surface_dice(distance - 0.01) == 0


def test_measure_surfaces_of_a_cube_with_thick_slices():
    cube, center = np.zeros((5, 5, 5), dtype=bool), pixel((5, 5, 5), 2, 2, 2)
    cube[1:4, 1:4, 1:4] = True
    found = measure_surfaces(center, cube, (2, 1, 1))
    # 26 voxels around the center. Faces: 2 at 2 (z), 4 at 1. Edges: 8 at sqrt(4 + 1),
    # 4 at sqrt(1 + 1). Corners: 8 at sqrt(4 + 1 + 1). Back: 1.
    steps = [1] * 4 + [2**0.5] * 4 + [2] * 2 + [5**0.5] * 8 + [6**0.5] * 8
    assert sorted(found.from_truth) == pytest.approx(steps)
    assert found.from_predicted.tolist() == [1]
    assert found.average == pytest.approx((sum(steps) + 1) / 27)


def test_measure_surfaces_of_two_empty_masks_is_none():
    nothing = np.zeros((3, 4), dtype=bool)
    assert numbers(measure_surfaces(nothing, nothing)) == [None, None, None]


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0)])
def test_measure_surfaces_of_a_single_empty_mask_is_the_diagonal(spacing):
    some, nothing = mask("....", ".##.", "...."), np.zeros((3, 4), dtype=bool)
    # 3 by 4 pixels: 5 from corner to corner.
    diagonal = 5 * (2 if spacing else 1)
    for found in measure_surfaces(nothing, some, spacing), measure_surfaces(some, nothing, spacing):
        assert numbers(found) == [diagonal, diagonal, 0]
        assert found.surface_dice(1000) == 0


def test_measure_surfaces_of_full_masks_is_0():
    full = np.ones((4, 4), dtype=bool)
    found = measure_surfaces(full, full)
    assert len(found.from_truth) == 12
    assert numbers(found) == [0, 0, 1]


def test_measure_surfaces_includes_the_edge_of_the_image():
    truth, guess = np.ones((3, 5), dtype=bool), pixel((3, 5), 1, 2)
    # All but the three inner pixels; the nearest are straight above and below, at 1.
    found = measure_surfaces(guess, truth)
    assert len(found.from_truth) == 12
    assert found.from_predicted.tolist() == [1]


def test_surface_dice_allows_for_rounding_at_the_tolerance():
    one, other = pixel((1, 9), 0, 0), pixel((1, 9), 0, 3)
    assert 3 * 0.1 > 0.3
    assert measure_surfaces(one, other, (0.1, 0.1)).surface_dice(0.3) == 1


def test_measure_surfaces_excludes_uncounted_pixels():
    truth, guess = mask("##......"), mask("######.#")
    counted = mask("####..#.")
    # The counted parts: ## and ####. From the prediction 0 0 1 2; from the truth 0 0.
    found = measure_surfaces(guess, truth, counted=counted)
    assert found.from_predicted.tolist() == [0, 0, 1, 2]
    assert found.from_truth.tolist() == [0, 0]
    assert numbers(measure_surfaces(guess, truth, counted=counted & False)) == [
        None,
        None,
        None,
    ]


def test_measure_surfaces_is_independent_of_uncounted_pixels():
    rng = np.random.default_rng(0)
    truth, guess, counted, other = (blob(rng, (20, 20)) for _ in range(4))
    plain = measure_surfaces(guess, truth, counted=counted)
    flipped = measure_surfaces(guess ^ (other & ~counted), truth ^ ~counted, counted=counted)
    assert numbers(flipped) == numbers(plain)


def test_measure_surfaces_is_symmetric_and_equivariant():
    for guess, truth, spacing in pairs(40):
        plain = measure_surfaces(guess, truth, spacing)
        swapped = measure_surfaces(truth, guess, spacing)
        assert numbers(swapped) == pytest.approx(numbers(plain))
        turned = measure_surfaces(guess.T, truth.T, spacing[::-1])
        assert numbers(turned) == pytest.approx(numbers(plain))
        wide = [(2 + axis, 5 - axis) for axis in range(truth.ndim)]
        moved = measure_surfaces(np.pad(guess, wide), np.pad(truth, wide), spacing)
        assert numbers(moved) == numbers(plain)
        assert moved.diagonal > plain.diagonal
        tripled = measure_surfaces(guess, truth, tuple(3 * length for length in spacing))
        assert tripled.hausdorff95 == pytest.approx(3 * plain.hausdorff95)
        assert tripled.average == pytest.approx(3 * plain.average)
        assert tripled.surface_dice(4.5) == plain.surface_dice(1.5)


def test_measure_surfaces_is_at_most_the_diagonal():
    for guess, truth, spacing in pairs(40):
        found = measure_surfaces(guess, truth, spacing)
        furthest = max(found.from_predicted.max(), found.from_truth.max())
        assert 0 <= found.average <= furthest < found.diagonal
        assert 0 <= found.hausdorff95 <= furthest
        assert found.surface_dice(found.diagonal) == 1


# MONAI warns about a call of its own.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_measure_surfaces_agrees_with_monai():
    for guess, truth, spacing in pairs(200):
        found = measure_surfaces(guess, truth, spacing)
        both = [torch.from_numpy(part)[None, None].float() for part in (guess, truth)]
        options = {"include_background": True, "spacing": spacing}
        hausdorff = compute_hausdorff_distance(*both, percentile=95, **options)
        average = compute_average_surface_distance(*both, symmetric=True, **options)
        dice = compute_surface_dice(*both, class_thresholds=[1.5], **options)
        expected = [hausdorff.item(), average.item(), dice.item()]
        assert numbers(found) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_measure_surfaces_refuses_inconsistent_input():
    some = pixel((3, 4), 1, 1)
    for predicted, truth, counted in (
        (some.T, some, None),
        (some, some.astype(np.uint8), None),
        (some, some, some[0]),
    ):
        with pytest.raises(DataError) as error:
            measure_surfaces(predicted, truth, counted=counted)
        assert error.value.code == "mask_size_mismatch"
    for spacing in ((1, 1, 1), (1, 0), (1, np.nan)):
        with pytest.raises(DataError):
            measure_surfaces(some, some, spacing)
    for tolerance in (-1, np.nan):
        with pytest.raises(ConfigError) as refused:
            measure_surfaces(some, some).surface_dice(tolerance)
        assert refused.value.code == "value_out_of_range"
