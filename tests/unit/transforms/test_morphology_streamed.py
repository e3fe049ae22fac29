"""Cleaning in bands against cleaning of the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ushape.labels import Region
from ushape.transforms import morphology_streamed
from ushape.transforms.morphology import Cleaning, clean_classes
from ushape.transforms.morphology_streamed import clean_stored, find_parts

CELL = [Region(name="cell", classes=(1,))]
NESTED = [Region(name="whole", classes=(1, 2)), Region(name="core", classes=(2,))]
SIDE_BY_SIDE = [Region(name="a", classes=(1,)), Region(name="b", classes=(2,))]

cleanings = st.builds(
    Cleaning,
    largest_only=st.booleans(),
    smallest_px=st.integers(0, 6),
    largest_hole_px=st.sampled_from([0, 1, 4, "all"]),
)


@settings(deadline=None, max_examples=150)
@given(
    arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 2), elements=st.integers(0, 2)),
    st.sampled_from([CELL, NESTED, SIDE_BY_SIDE]),
    st.lists(cleanings, min_size=2, max_size=2),
    st.integers(1, 20),
)
def test_bands_of_any_height_are_cleaned_as_the_whole(classes, regions, chosen, band_px):
    classes = np.where(classes > len(regions), 0, classes).astype(np.uint8)
    chosen = chosen[: len(regions)]
    expected = clean_classes(classes, regions, chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology_streamed, "BAND_PX", band_px)
        clean_stored(classes, regions, chosen)
    assert (classes == expected).all()


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 1)),
    cleanings,
)
def test_volumes_too(classes, cleaning):
    expected = clean_classes(classes, CELL, [cleaning])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology_streamed, "BAND_PX", 1)
        clean_stored(classes, CELL, [cleaning])
    assert (classes == expected).all()


def test_a_snake_through_many_bands_is_one_part(monkeypatch):
    snake = np.zeros((40, 9), np.uint8)
    snake[::4], snake[1:40:8, -1], snake[2:40:8, -1], snake[3:40:8, -1] = 1, 1, 1, 1
    snake[5:40:8, 0], snake[6:40:8, 0], snake[7:40:8, 0] = 1, 1, 1
    snake[38, 4] = 1  # And a pixel by itself.
    monkeypatch.setattr(morphology_streamed, "BAND_PX", 9)
    parts = find_parts(lambda band: snake[band] > 0, snake.shape, corners_connect=True)
    assert parts.pixels.tolist() == [0, int(snake.sum()) - 1, 1]


def test_a_file_is_cleaned_in_place(tmp_path):
    stored = np.memmap(tmp_path / "c", dtype=np.uint8, mode="w+", shape=(20, 20))
    stored[2:8, 2:8], stored[4, 4], stored[15, 15] = 1, 0, 1
    clean_stored(stored, CELL, [Cleaning(smallest_px=5, largest_hole_px="all")])
    assert (stored.sum(), stored[4, 4], stored[15, 15]) == (36, 1, 0)
