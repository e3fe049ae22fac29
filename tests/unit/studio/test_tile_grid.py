"""Tiles of images, compared with arrays in which each pixel has the number of its tile."""

import numpy as np
import pytest

from ushape.studio.tile_grid import TileGrid, plane_box

GRIDS = [TileGrid((1, 10, 20), (1, 8, 8)), TileGrid((5, 9, 4), (2, 4, 4))]


def numbers_of(grid):
    """The key of the tile of each pixel, (z, y, x, 3)."""
    places = np.stack(np.indices(grid.shape), axis=-1)
    return places // grid.tile


@pytest.mark.parametrize("grid", GRIDS)
def test_boxes_of_all_tiles_are_the_image(grid):
    numbers = numbers_of(grid)
    count = np.zeros(grid.shape, int)
    for key in grid.keys:
        box = tuple(slice(*own) for own in grid.box_of(key))
        assert (numbers[box] == key).all()
        assert count[box].shape == grid.shape_of(key)
        count[box] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_keys_and_overlaps_of_a_box(grid):
    numbers = numbers_of(grid)
    box = tuple((size // 3, size - size // 4) for size in grid.shape)
    inside = numbers[tuple(slice(*own) for own in box)]
    assert set(grid.keys_in(box)) == set(map(tuple, inside.reshape(-1, 3).tolist()))
    count = np.zeros(inside.shape[:3], int)
    for key in grid.keys_in(box):
        in_tile, in_box = grid.overlap(key, box)
        assert (inside[in_box] == key).all()
        assert np.empty(grid.shape_of(key))[in_tile].shape == count[in_box].shape
        count[in_box] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_places_of_every_nth_pixel(step):
    grid = GRIDS[0]
    rows = [range(1), range(1, 10, step), range(2, 19, step)]
    found = np.full([len(own) for own in rows], -1)
    image = np.arange(200).reshape(grid.shape)
    for key in grid.keys:
        target, source = grid.places(key, rows)
        tile = image[tuple(slice(*own) for own in grid.box_of(key))]
        found[target] = tile[np.ix_(*source)]
    assert (found == image[:, 1:10:step, 2:19:step]).all()


def test_box_around_tiles_ends_at_the_image():
    assert GRIDS[0].box_around([(0, 1, 0), (0, 1, 2)]) == ((0, 1), (8, 10), (0, 20))
    assert GRIDS[0].box_around([]) is None


def test_box_of_a_plane():
    assert plane_box("y", 4, ((1, 3), (5, 6))) == ((1, 3), (4, 5), (5, 6))
