"""Pixels of the images that the page shows."""

import nibabel
import numpy as np
import pytest
import tifffile

from ushape.studio import sources
from ushape.studio.sources import ImageSource
from ushape.types import Case

SHAPE = (6, 20, 30)
WINDOWS = {"z": ((2, 18), (3, 29)), "y": ((1, 5), (3, 29)), "x": ((1, 5), (2, 18))}


def write_volume(path):
    volume = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)
    if path.suffix == ".npy":
        np.save(path, volume)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, volume, metadata={"axes": "ZYX"}, compression="zlib")
    else:
        nibabel.save(nibabel.Nifti1Image(volume.transpose(), np.eye(4)), path)
    return Case(id="v", image=path)


@pytest.mark.parametrize("name", ["v.npy", "v.tif", "v.nii"])
def test_planes_of_a_large_volume_equal_those_from_memory(tmp_path, monkeypatch, name):
    case = write_volume(tmp_path / name)
    found = []
    for limit in (1, 1 << 27):
        monkeypatch.setattr(sources, "MAX_WHOLE_PX", limit)
        source = ImageSource(case)
        found.append([source.read_plane(plane, 3, own, 1) for plane, own in WINDOWS.items()])
        assert (source._volume is None) == (limit == 1)
        source.close()
    for direct, from_memory, window in zip(*found, WINDOWS.values(), strict=True):
        assert direct.shape == tuple(last - first for first, last in window)
        assert np.array_equal(direct, from_memory)
