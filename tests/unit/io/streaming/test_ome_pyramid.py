"""Positions of the pixels of all levels of an OME-Zarr image that is written in blocks."""

import numpy as np
import pytest
import zarr

from ushape.io.streaming.ome_pyramid import Pyramid, reduce_box, write_box

SPACING = (0.004, 0.001, 0.001)
"""In millimeters: planes are not joined before y and x were halved twice."""


def fill(pyramid, values):
    """Write the first level, and each further one from the level above."""
    pyramid.create()
    whole = [tuple((0, n) for n in pyramid.shape_at(factor)) for factor in pyramid.factors]
    write_box(pyramid.open(), whole[0], values)
    for level in range(1, len(whole)):
        above, own = pyramid.factors[level - 1 : level + 1]
        factor = [b // a for a, b in zip(above, own, strict=True)]
        part = reduce_box(pyramid.open(level - 1), whole[level], factor)
        write_box(pyramid.open(level), whole[level], part)


def levels_of(path, version):
    """Yield the array of each level with the positions of its pixels along each axis of S."""
    group = zarr.open_group(str(path), mode="r")
    attributes = group.attrs["ome"] if version == "0.5" else group.attrs
    (image,) = attributes["multiscales"]
    for dataset in image["datasets"]:
        scale, *others = dataset["coordinateTransformations"]
        array = group[dataset["path"]]
        moved = np.zeros(array.ndim)
        for step in others:
            assert step["type"] == "translation"
            moved = np.array(step["translation"])
        assert array.ndim == len(scale["scale"]) == len(moved)
        places = [
            np.arange(n) * by + to
            for n, by, to in zip(array.shape, scale["scale"], moved, strict=True)
        ]
        yield array[...], places[-3:], scale["scale"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("channels", [None, 1])
def test_pixels_of_all_levels_lie_where_their_values_say(channels, version, tmp_path):
    # The value of a pixel is the sum of its coordinates in micrometers, so a mean of pixels has
    # the coordinates of their center.
    pyramid = Pyramid(
        path=tmp_path / "x.zarr",
        version=version,
        shape=(8, 32, 32),
        dtype="float32",
        chunk=(2, 4, 4),
        channels=channels,
        spacing_mm=SPACING,
    )
    ramp = sum(np.ogrid[0:32:4, 0:32, 0:32]).astype(np.float32)
    fill(pyramid, ramp if channels is None else ramp[None])
    levels = list(levels_of(pyramid.path, version))
    assert [scale[-3:] for _, _, scale in levels] == [
        [4.0, 1.0, 1.0],
        [4.0, 2.0, 2.0],
        [4.0, 4.0, 4.0],
        [8.0, 8.0, 8.0],
        [16.0, 16.0, 16.0],
    ]
    for values, places, _ in levels:
        expected = sum(np.ix_(*places))
        assert np.allclose(values, expected)


def test_translation_of_means_worked_out_by_hand(tmp_path):
    pyramid = Pyramid(
        path=tmp_path / "x.zarr",
        version="0.4",
        shape=(16, 16),
        dtype="uint8",
        chunk=(4, 4),
        channels=2,
        spacing_mm=(0.001, 0.001),
    )
    pyramid.create()
    (image,) = zarr.open_group(str(pyramid.path), mode="r").attrs["multiscales"]
    steps = [dataset["coordinateTransformations"] for dataset in image["datasets"]]
    # Pixels 0 and 1 have their center at 0.5, and pixels 0 to 3 at 1.5.
    assert steps == [
        [{"type": "scale", "scale": [1.0, 1.0, 1.0]}],
        [
            {"type": "scale", "scale": [1.0, 2.0, 2.0]},
            {"type": "translation", "translation": [0.0, 0.5, 0.5]},
        ],
        [
            {"type": "scale", "scale": [1.0, 4.0, 4.0]},
            {"type": "translation", "translation": [0.0, 1.5, 1.5]},
        ],
    ]
