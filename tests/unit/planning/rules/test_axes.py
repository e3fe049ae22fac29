import pytest

from ushape.planning.rules.axes import (
    choose_strides,
    factors_along_axes,
    fine_axes,
    still_axes,
)

ALL, FLAT = (2, 2, 2), (1, 2, 2)
CUBE, SLICE = (3, 3, 3), (1, 3, 3)


@pytest.mark.parametrize(
    ("lengths", "shape", "strides", "kernels"),
    [
        ((1, 1, 1), (64, 64, 64), (ALL, ALL, ALL), (CUBE,) * 4),
        # 5 x 0.7 x 0.7 mm: 7.1 times as long, then 3.6, then 1.8.
        ((7.14, 1, 1), (20, 224, 224), (FLAT, FLAT, ALL, ALL), (SLICE, SLICE, CUBE, CUBE, CUBE)),
        ((3, 1, 1), (40, 160, 160), (FLAT, ALL, ALL), (SLICE, CUBE, CUBE, CUBE)),
        # Exactly twice as long is too long, as in nnU-Net.
        ((2, 1, 1), (40, 160, 160), (FLAT, ALL, ALL), (SLICE, CUBE, CUBE, CUBE)),
        ((1.9, 1, 1), (40, 160, 160), (ALL, ALL, ALL), (CUBE,) * 4),
        # Eight slices are halved once, to four.
        ((1, 1, 1), (8, 120, 120), (ALL, FLAT), (CUBE,) * 3),
        ((7.14, 1, 1), (8, 224, 224), (FLAT, FLAT, ALL, FLAT), (SLICE, SLICE, CUBE, CUBE, CUBE)),
        # A single slice is neither halved nor convolved.
        ((7.14, 1, 1), (1, 256, 256), (FLAT, FLAT), (SLICE,) * 3),
        # The coarse axis is convolved in the coarsest level in any case.
        ((20, 1, 1), (16, 128, 128), (FLAT, FLAT), (SLICE, SLICE, CUBE)),
        # More levels than the patch allows: as if it were large enough.
        ((1, 1, 1), (8, 8, 8), (ALL, ALL, ALL), (CUBE,) * 4),
    ],
)
def test_choose_strides_by_hand(lengths, shape, strides, kernels):
    assert choose_strides(lengths, shape, len(strides)) == (strides, kernels)


def test_kernels_follow_the_stated_strides():
    # The voxels stay 4 times as long, but z is convolved as soon as it is halved.
    stated = (ALL, ALL)
    assert choose_strides((4, 1, 1), (32, 64, 64), 2, stated) == (stated, (SLICE, CUBE, CUBE))
    # Planned, x and y are halved alone.
    assert choose_strides((4, 1, 1), (32, 64, 64), 2)[0] == (FLAT, FLAT)
    # Halved within the slices first, the voxels of the second level are 2, then 1 times as long.
    stated = (FLAT, FLAT, ALL)
    kernels = (SLICE, SLICE, CUBE, CUBE)
    assert choose_strides((4, 1, 1), (32, 64, 64), 3, stated) == (stated, kernels)
    # A plane of y alone.
    stated = ((1, 2, 1), (1, 2, 1))
    assert choose_strides((1, 1, 1), (32, 64, 64), 2, stated)[0] == stated


def test_factors_along_axes_by_hand():
    assert factors_along_axes(2, (5, 1, 1)) == (1, 2, 2)
    assert factors_along_axes(4, (2.5, 1, 1)) == (1.6, 4, 4)
    assert factors_along_axes(1, (5, 1, 1)) == (1, 1, 1)
    assert factors_along_axes(2, (1.5, 1, 1)) == (2, 2, 2)
    assert factors_along_axes(1.5, (1, 1)) == (1.5, 1.5)


def test_fine_and_still_axes_by_their_limits():
    assert fine_axes((2, 1, 1.9)) == [1, 2]
    assert still_axes((3, 1, 1)) == ()
    assert still_axes((3.1, 1, 1)) == (0,)
    assert still_axes((0.7, 0.7, 5)) == (2,)
