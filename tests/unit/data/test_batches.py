import itertools

import pytest

from ushape.data.batches import EpochBatches, growing_shape


def fixed(progress):
    return (8, 8)


def multiple_of_16(at_least):
    return tuple(-(-size // 16) * 16 for size in at_least)


def grow(progress):
    return growing_shape(progress, (256, 256), multiple_of_16)


def test_epoch_batches_of_several_processes_share_an_epoch_without_overlap():
    samplers = [EpochBatches(2, 5, lambda: (0, 1), fixed, rank, 3) for rank in range(3)]
    parts = [list(sampler) for sampler in samplers]
    keys = [key for part in parts for batch in part for key in batch]
    assert sorted(keys) == [(0, index, (8, 8)) for index in range(30)]
    assert [len(part) for part in parts] == [len(sampler) for sampler in samplers] == [2, 2, 2]


def test_epoch_batches_yield_different_keys_in_each_epoch():
    progress = iter([(4, 6), (5, 6)])
    sampler = EpochBatches(1, 2, lambda: next(progress), fixed)
    assert list(sampler) == [[(4, 0, (8, 8)), (4, 1, (8, 8))]]
    assert list(sampler) == [[(5, 0, (8, 8)), (5, 1, (8, 8))]]


@pytest.mark.parametrize("epochs", [1, 4])
def test_epoch_batches_grow_at_the_same_number_of_pixels(epochs):
    found = []
    for epoch in range(epochs):
        keys = list(EpochBatches(8 // epochs, 4, lambda epoch=epoch: (epoch, epochs), grow))
        indices = [key[1] for batch in keys for key in batch]
        assert indices == list(range(len(indices)))
        found += [(len(batch), batch[0][2]) for batch in keys]
    small, middle, whole = (64, (64, 64)), (16, (128, 128)), (4, (256, 256))
    assert found == [small] * 2 + [middle] * 2 + [whole] * 4


def test_growing_shape_depends_on_the_total_number_of_steps_that_is_planned_now():
    """A training that is shortened reaches its full size as well."""
    (batch,) = EpochBatches(1, 4, lambda: (3, 4.5), grow)
    assert batch[0][2] == (256, 256)


@pytest.mark.parametrize(
    ("whole", "small"),
    [
        ((96, 96), (64, 64)),
        ((48, 512), (48, 128)),
        ((64, 64, 64), (32,) * 3),
        ((20, 80, 80), (20, 32, 32)),
    ],
)
def test_growing_shape_is_never_too_small_or_larger_than_at_the_end(whole, small):
    assert growing_shape(0.0, whole, multiple_of_16) == small
    assert growing_shape(0.5, whole, multiple_of_16) == whole


def test_growing_shape_is_legal_for_the_network():
    shapes = [
        growing_shape(step / 10, (272, 272), lambda sizes: [one + one % 3 for one in sizes])
        for step in range(10)
    ]
    for shape, later in itertools.pairwise(shapes):
        assert shape <= later
    assert shapes[0] == (70, 70)
