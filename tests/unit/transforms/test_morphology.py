import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.morphology import flood_fill

from codes import raises_code
from ushape.errors import ConfigError
from ushape.instances.label import label_objects
from ushape.labels import Region
from ushape.transforms import morphology
from ushape.transforms.morphology import (
    Cleaning,
    clean_classes,
    clean_stored,
    fill_holes,
    find_parts,
    keep_largest,
    remove_small,
)

SHAPES = st.sampled_from([(1, 1), (1, 7), (6, 7), (9, 9), (3, 4, 5)])
MASKS = SHAPES.flatmap(lambda shape: arrays(bool, shape))
CLASSES = (Region(name="cell", classes=(1,)), Region(name="nucleus", classes=(2,)))
WHOLE_AND_CORE = (Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,)))
IDLE = Cleaning()


def pixels(text):
    """Rows of digits, dots for 0, as class indices."""
    return np.array([[int(c) for c in row.replace(".", "0")] for row in text.split()], np.uint8)


def test_remove_small_does_not_connect_corners():
    # Parts of 3, 1 (at a corner of the first), 1 and 2 pixels.
    mask = pixels("11..1 1.... .1... ...11") > 0
    assert (remove_small(mask, 3) == (pixels("11... 1.... ..... .....") > 0)).all()
    assert (remove_small(mask, 2) == (pixels("11... 1.... ..... ...11") > 0)).all()
    assert not remove_small(mask, 4).any()


def test_remove_small_connects_across_slices():
    volume = np.zeros((3, 3, 3), bool)
    volume[0, 0, 0] = volume[1, 0, 0] = volume[1, 0, 1] = True
    assert (remove_small(volume, 3) == volume).all()
    assert not remove_small(volume, 4).any()


def test_fill_holes_respects_size_and_border():
    # Holes of 1 and 2 pixels; the gap on the left is open.
    mask = pixels("1111111 .11.111 1111111 11..111 1111111") > 0
    one, all_ = mask.copy(), mask.copy()
    one[1, 3] = True
    all_[1, 3] = all_[3, 2] = all_[3, 3] = True
    assert (fill_holes(mask, 0) == mask).all()
    assert (fill_holes(mask, 1) == one).all()
    assert (fill_holes(mask, 2) == all_).all()
    assert (fill_holes(mask) == all_).all()


def test_fill_holes_needs_a_ring_of_pixels_that_touch_by_their_sides():
    assert fill_holes(pixels("111 1.1 111") > 0).all()
    diamond = pixels(".1. 1.1 .1.") > 0  # Four objects.
    assert (fill_holes(diamond) == diamond).all()


def test_fill_holes_of_a_volume_needs_closed_holes():
    volume = np.ones((3, 3, 3), bool)
    volume[1, 1, 1] = False
    assert fill_holes(volume).all()
    volume[2, 1, 1] = False
    assert (fill_holes(volume) == volume).all()


@given(MASKS)
def test_fill_holes_agrees_with_scipy(mask):
    corners = np.ones((3,) * mask.ndim)
    assert (fill_holes(mask) == ndimage.binary_fill_holes(mask, corners)).all()


@given(arrays(bool, (6, 7)))
def test_fill_holes_agrees_with_a_flood_from_outside(mask):
    flooded = flood_fill(np.pad(mask, 1).astype(np.uint8), (0, 0), 2, connectivity=2)
    assert (fill_holes(mask) == (flooded != 2)[1:-1, 1:-1]).all()


@given(MASKS, st.integers(0, 9))
def test_remove_small_only_removes_and_is_idempotent(mask, size):
    once = remove_small(mask, size)
    assert not (once & ~mask).any()
    assert (remove_small(once, size) == once).all()


@given(MASKS, st.integers(0, 9))
def test_fill_holes_only_adds_and_is_monotonic(mask, size):
    filled = fill_holes(mask, size)
    assert not (mask & ~filled).any()
    assert not (filled & ~fill_holes(mask, size + 1)).any()
    assert not (filled & ~fill_holes(mask)).any()


@given(MASKS.map(lambda mask: mask.astype(np.uint8)))
def test_clean_classes_without_cleaning_is_the_identity(classes):
    assert (clean_classes(classes, CLASSES, [IDLE, IDLE]) == classes).all()


def test_clean_classes_cleans_each_class_separately():
    classes = pixels("11.2. 11... ....2 1..22")
    only_cells = clean_classes(classes, CLASSES, [Cleaning(min_size_px=2), IDLE])
    assert (only_cells == pixels("11.2. 11... ....2 ...22")).all()
    both = clean_classes(classes, CLASSES, [Cleaning(min_size_px=5), Cleaning(largest_only=True)])
    assert (both == pixels("..... ..... ....2 ...22")).all()


def test_clean_classes_removes_to_background_inside_another_class():
    classes = pixels("1111 1211 1111")
    cleaned = clean_classes(classes, CLASSES, [IDLE, Cleaning(min_size_px=2)])
    assert (cleaned == pixels("1111 1.11 1111")).all()
    filled = [Cleaning(max_hole_size_px="all"), Cleaning(min_size_px=2)]
    assert (clean_classes(classes, CLASSES, filled) == 1).all()


def test_clean_classes_fills_holes_only_with_background():
    # Around the nucleus one background pixel; all six are inside the cell.
    classes = pixels("11111 12221 122.1 11111")
    cleaned = clean_classes(classes, CLASSES, [Cleaning(max_hole_size_px="all"), IDLE])
    assert (cleaned == pixels("11111 12221 12211 11111")).all()
    too_small = clean_classes(classes, CLASSES, [Cleaning(max_hole_size_px=5), IDLE])
    assert (too_small == classes).all()


def test_clean_classes_removing_a_core_keeps_the_whole():
    classes = pixels("1111. 12222 11111 2....")
    cleaned = clean_classes(classes, WHOLE_AND_CORE, [IDLE, Cleaning(min_size_px=2)])
    assert (cleaned == pixels("1111. 12222 11111 1....")).all()


def test_clean_classes_removing_a_whole_removes_its_core():
    classes = pixels("12... ..... ..111 ..121")
    cleaned = clean_classes(classes, WHOLE_AND_CORE, [Cleaning(largest_only=True), IDLE])
    assert (cleaned == pixels("..... ..... ..111 ..121")).all()


def test_clean_classes_fills_holes_by_region():
    classes = pixels("11111 1.222 11212 11222")
    holes = Cleaning(max_hole_size_px="all")
    cleaned = clean_classes(classes, WHOLE_AND_CORE, [holes, holes])
    assert (cleaned == pixels("11111 11222 11222 11222")).all()


@given(arrays(np.uint8, (7, 8), elements=st.integers(0, 2)), st.integers(2, 6))
def test_clean_classes_leaves_no_small_component(classes, size):
    cleaned = clean_classes(classes, CLASSES, [Cleaning(min_size_px=size)] * 2)
    for region in CLASSES:
        parts, _ = ndimage.label(region.of(cleaned))
        assert (np.bincount(parts.ravel())[1:] >= size).all()


def test_cleaning_refuses_negative_sizes():
    with raises_code(ConfigError, "value_out_of_range"):
        Cleaning(min_size_px=-1)
    with raises_code(ConfigError, "value_out_of_range"):
        Cleaning(max_hole_size_px=-2)


def test_keep_largest_of_each_class():
    classes = np.array([[1, 1, 0, 1], [0, 0, 0, 2], [2, 2, 0, 0], [1, 0, 0, 2]])
    expected = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]])
    assert (keep_largest(classes) == expected).all()


def test_keep_largest_connects_slices_but_not_corners():
    volume = np.zeros((3, 4, 4), dtype=np.uint8)
    volume[0, 0, 0] = volume[1, 1, 1] = volume[2, 2, 2] = 1  # A diagonal of three.
    volume[:2, 3, 2] = 1
    kept = keep_largest(volume)
    assert kept.sum() == 2
    assert kept[0, 3, 2] == kept[1, 3, 2] == 1
    assert not keep_largest(np.zeros((2, 3), np.uint8)).any()


CELL = [Region(name="cell", classes=(1,))]
NESTED = [Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))]
SIDE_BY_SIDE = [Region(name="a", classes=(1,)), Region(name="b", classes=(2,))]

cleanings = st.builds(
    Cleaning,
    largest_only=st.booleans(),
    min_size_px=st.integers(0, 6),
    max_hole_size_px=st.sampled_from([0, 1, 4, "all"]),
)


@settings(deadline=None, max_examples=150)
@given(
    arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 2), elements=st.integers(0, 2)),
    st.sampled_from([CELL, NESTED, SIDE_BY_SIDE]),
    st.lists(cleanings, min_size=2, max_size=2),
    st.integers(1, 20),
)
def test_clean_stored_equals_clean_classes(classes, regions, chosen, band_px):
    classes = np.where(classes > len(regions), 0, classes).astype(np.uint8)
    chosen = chosen[: len(regions)]
    expected = clean_classes(classes, regions, chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology, "BAND_PX", band_px)
        clean_stored(classes, regions, chosen)
    assert (classes == expected).all()


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 1)),
    cleanings,
)
def test_clean_stored_of_volumes(classes, cleaning):
    expected = clean_classes(classes, CELL, [cleaning])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology, "BAND_PX", 1)
        clean_stored(classes, CELL, [cleaning])
    assert (classes == expected).all()


def test_find_parts_joins_a_component_across_many_bands(monkeypatch):
    snake = np.zeros((40, 9), np.uint8)
    snake[::4], snake[1:40:8, -1], snake[2:40:8, -1], snake[3:40:8, -1] = 1, 1, 1, 1
    snake[5:40:8, 0], snake[6:40:8, 0], snake[7:40:8, 0] = 1, 1, 1
    snake[38, 4] = 1  # And a pixel by itself.
    monkeypatch.setattr(morphology, "BAND_PX", 9)
    parts = find_parts(lambda band: snake[band] > 0, snake.shape, corners_connect=False)
    assert parts.pixels.tolist() == [0, int(snake.sum()) - 1, 1]


def test_clean_stored_changes_the_file(tmp_path):
    stored = np.memmap(tmp_path / "c", dtype=np.uint8, mode="w+", shape=(20, 20))
    stored[2:8, 2:8], stored[4, 4], stored[15, 15] = 1, 0, 1
    clean_stored(stored, CELL, [Cleaning(min_size_px=5, max_hole_size_px="all")])
    assert (stored.sum(), stored[4, 4], stored[15, 15]) == (36, 1, 0)


@given(arrays(np.uint8, (7, 8), elements=st.integers(0, 2)), st.integers(2, 6))
def test_no_object_that_is_counted_is_smaller_than_cleaning_keeps(classes, size):
    cleaned = clean_classes(classes, CLASSES, [Cleaning(min_size_px=size)] * 2)
    objects = label_objects(cleaned)
    assert (np.bincount(objects.labels.ravel())[1:] >= size).all()
