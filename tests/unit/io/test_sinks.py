"""Write masks in bands: equal to writing at once, atomic, and in constant memory."""

import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io import sinks
from ushape.io.streaming import open_band_writer, open_bands, open_probability_writer
from ushape.types import MaskEncoding

RANDOM = np.random.default_rng(0)
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 9, 255))
SUFFIXES = [suffix for suffix, one in io.FORMATS.items() if one.open_sink]
VALUES = MaskEncoding(dtype="uint16")
INDICES = MaskEncoding(kind="palette", palette=PALETTE)
COLORS = MaskEncoding(kind="colors")


def write(path, codes, encoding, sizes=(7,), like=None):
    """Writes codes in bands of these sizes, over and over."""
    with open_band_writer(path, codes.shape, encoding, like) as writer:
        done = number = 0
        while done < len(codes):
            size = sizes[number % len(sizes)]
            writer.write(codes[done : done + size])
            done, number = done + size, number + 1


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles and chunks that a small image has several of, along both axes."""
    monkeypatch.setattr(sinks, "TIFF_TILE", 16)
    monkeypatch.setattr(sinks, "ZARR_CHUNK", 16)


@pytest.mark.usefixtures("small_tiles")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".tif", ".ome.tif", ".npy", ".png", ".nii.gz"]),
    encoding=st.sampled_from([VALUES, INDICES, COLORS]),
    shape=st.tuples(st.integers(2, 50), st.integers(5, 50)),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
def test_band_writer_equals_write_mask_for_any_band_height(
    suffix, encoding, shape, sizes, tmp_path
):
    if encoding is COLORS and suffix == ".nii.gz":
        return
    codes = RANDOM.integers(3, size=shape) * (1 if encoding is INDICES else 257)
    codes[0, 0], codes[-1, -1] = (2, 1) if encoding is INDICES else (1, 300)
    write(tmp_path / f"bands{suffix}", codes, encoding, sizes)
    io.write_mask(tmp_path / f"once{suffix}", codes, encoding)
    bands, once = (io.read_mask(tmp_path / f"{name}{suffix}") for name in ("bands", "once"))
    assert np.array_equal(bands.codes, codes)
    assert np.array_equal(once.codes, codes)
    assert bands.encoding == once.encoding
    assert bands.codes.dtype == once.codes.dtype


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".nrrd"])
@pytest.mark.parametrize("planes", [1, 2])
def test_band_writer_writes_volumes_plane_by_plane(suffix, planes, tmp_path):
    codes = RANDOM.integers(999, size=(5, 20, 37))
    write(tmp_path / f"x{suffix}", codes, VALUES, (planes,))
    mask = io.read_mask(tmp_path / f"x{suffix}")
    assert np.array_equal(mask.codes, codes)
    assert mask.codes.dtype == np.uint16


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("encoding", [VALUES, INDICES, COLORS])
def test_zarr_mask_has_values_indices_or_colors(encoding, tmp_path):
    codes = RANDOM.integers(3, size=(37, 29))
    codes[0, 0] = 2 if encoding is INDICES else 70000 if encoding is COLORS else 999
    write(tmp_path / "x.zarr", codes, encoding)
    assert np.array_equal(io.read_mask(tmp_path / "x.zarr").codes, codes)
    stored = zarr.open_array(tmp_path / "x.zarr" / "0", mode="r")
    assert stored.shape == ((3, 37, 29) if encoding is COLORS else (37, 29))
    if encoding is not COLORS:
        assert np.array_equal(stored[...], codes)


def test_written_tiff_is_read_by_tifffile_alone(tmp_path):
    codes = RANDOM.integers(3, size=(300, 530))
    write(tmp_path / "x.tif", codes, INDICES, (100,))
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        page = file.pages[0]
        assert (page.tile, page.compression) == ((256, 256), tifffile.COMPRESSION.ADOBE_DEFLATE)
        assert page.photometric == tifffile.PHOTOMETRIC.PALETTE
        assert (page.colormap[:, :3].T // 257).tolist() == [list(color) for color in PALETTE]
        assert np.array_equal(page.asarray(), codes)
        assert not file.is_bigtiff


def test_large_tiff_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "BIGTIFF_BYTES", 37 * 29 * 2)
    codes = RANDOM.integers(999, size=(37, 29))
    write(tmp_path / "big.tif", codes, VALUES)
    write(tmp_path / "small.tif", codes, MaskEncoding())
    for name, is_big in (("big.tif", True), ("small.tif", False)):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.is_bigtiff == is_big
    assert np.array_equal(io.read_mask(tmp_path / "big.tif").codes, codes)


@pytest.mark.parametrize("encoding", [VALUES, INDICES, COLORS])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".zarr"])
def test_band_writer_stores_the_spacing_of_the_image(encoding, suffix, tmp_path):
    told = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "i.ome.tif", np.zeros((37, 29), np.uint8), metadata=told)
    codes = RANDOM.integers(3, size=(37, 29))
    write(tmp_path / f"m{suffix}", codes, encoding, like=tmp_path / "i.ome.tif")
    assert io.read(tmp_path / f"m{suffix}").spacing_mm == pytest.approx((0.0005, 0.00025))
    assert np.array_equal(io.read_mask(tmp_path / f"m{suffix}").codes, codes)
    if suffix != ".zarr":
        with tifffile.TiffFile(tmp_path / f"m{suffix}") as file:
            # 4 pixels per micrometer along x, 2 along y, are so many per centimeter.
            assert file.pages[0].get_resolution("CENTIMETER") == pytest.approx((40000, 20000))


def test_ome_zarr_metadata_by_hand(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((5, 6, 7))), tmp_path / "i.nii")
    codes = RANDOM.integers(3, size=(5, 6, 7))
    write(tmp_path / "m.zarr", codes, VALUES, like=tmp_path / "i.nii")
    image = json.loads((tmp_path / "m.zarr" / ".zattrs").read_text())["multiscales"][0]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    assert (image["version"], image["axes"]) == ("0.4", axes)
    # ITK's pixels are 1 mm apart.
    scale = [{"type": "scale", "scale": [1000.0] * 3}]
    assert image["datasets"] == [{"path": "0", "coordinateTransformations": scale}]


def test_band_writer_keeps_the_position_of_a_volume(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((5, 6, 7)))
    image.SetSpacing((0.5, 2, 3))
    image.SetOrigin((9, 8, 7))
    SimpleITK.WriteImage(image, tmp_path / "i.nii.gz")
    write(tmp_path / "m.mha", np.ones((5, 6, 7), int), VALUES, (2,), like=tmp_path / "i.nii.gz")
    mask = SimpleITK.ReadImage(tmp_path / "m.mha")
    assert (mask.GetSpacing(), mask.GetOrigin()) == ((0.5, 2, 3), (9, 8, 7))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".zarr"])
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("shape", [(1, 37, 29), (3, 37, 29), (5, 37, 29), (4, 3, 20, 18)])
@pytest.mark.parametrize("rows", [1, 19])
def test_probability_writer_values_are_read_back(suffix, dtype, shape, rows, tmp_path):
    probabilities = RANDOM.random(shape).astype(np.float32)
    probabilities.flat[:3] = 0, 1, 0.5
    path = tmp_path / f"p{suffix}"
    with open_probability_writer(path, shape, dtype) as writer:
        for first in range(0, shape[1], rows):
            writer.write(probabilities[:, first : first + rows])
    found = io.read(path).array
    assert found.dtype == dtype
    if dtype == "float16":
        assert np.array_equal(found, probabilities.astype(np.float16))
    else:
        assert np.array_equal(found, np.rint(probabilities * 255))
        assert found.flat[:3].tolist() == [0, 255, 128]  # 127.5 to the even number.
    with open_bands(path) as bands:
        assert np.array_equal(bands.read(1, 3), found[:, 1:3])


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_band_writer_exception_leaves_the_former_file(suffix, tmp_path):
    path, codes = tmp_path / f"x{suffix}", RANDOM.integers(9, size=(600, 20))
    write(path, codes, VALUES)

    def interrupted():
        yield codes[:550] + 1
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        open_band_writer(path, codes.shape, VALUES) as writer,
    ):
        any(map(writer.write, interrupted()))
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(io.read_mask(path).codes, codes)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_band_writer_replaces_a_former_file(suffix, tmp_path):
    path, codes = tmp_path / f"x{suffix}", RANDOM.integers(9, size=(60, 20))
    write(path, codes, VALUES)
    write(path, codes[:50] + 1, VALUES)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(io.read_mask(path).codes, codes[:50] + 1)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_band_writer_refuses_missing_rows(suffix, tmp_path):
    with (
        raises_code(DataError, "bands_missing"),
        open_band_writer(tmp_path / f"x{suffix}", (20, 5), VALUES) as writer,
    ):
        writer.write(np.zeros((7, 5), int))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(8, 6), (21, 5), (8, 5, 1)])
def test_band_writer_refuses_bands_that_do_not_fit(shape, tmp_path):
    with (
        raises_code(DataError, "band_mismatch"),
        open_band_writer(tmp_path / "x.tif", (20, 5), VALUES) as writer,
    ):
        writer.write(np.zeros(shape, int))
    assert not list(tmp_path.iterdir())


def test_band_writer_refuses_unwritable_formats(tmp_path):
    with (
        raises_code(DataError, "unwritable_format"),
        open_band_writer(tmp_path / "x.jpg", (20, 5), VALUES),
    ):
        pass
    with (
        raises_code(DataError, "unwritable_format"),
        open_probability_writer(tmp_path / "x.png", (2, 20, 5)),
    ):
        pass


def test_band_writer_raises_when_the_disk_is_full(tmp_path, monkeypatch):
    class FullDisk(tifffile.TiffWriter):
        def write(self, tiles, **options):
            next(tiles)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "TiffWriter", FullDisk)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x.tif", np.zeros((2000, 20), int), VALUES)
    assert not list(tmp_path.iterdir())


def test_large_empty_zarr_mask_is_read_back(tmp_path):
    # Beyond EMPTY_BYTES a Zarr without chunks is refused: each is there.
    with open_band_writer(tmp_path / "x.zarr", (1100, 600), MaskEncoding()) as writer:
        writer.write(np.zeros((1100, 600), int))
    chunks = [file for file in (tmp_path / "x.zarr" / "0").rglob("*") if file.name.isdigit()]
    assert len([file for file in chunks if file.is_file()]) == 3 * 2


KILLED = """
import os, sys
from contextlib import ExitStack
from pathlib import Path
import numpy as np
from ushape.io.streaming import open_band_writer
from ushape.types import MaskEncoding
with ExitStack() as stack:
    for path in map(Path, sys.argv[1:]):
        writer = stack.enter_context(open_band_writer(path, (2000, 30), MaskEncoding()))
        writer.write(np.ones((1500, 30), int))
    os.kill(os.getpid(), 9)
"""


def test_killed_band_writer_leaves_the_former_file(tmp_path):
    paths = [tmp_path / f"x{suffix}" for suffix in (".tif", ".npy", ".zarr")]
    codes = RANDOM.integers(9, size=(60, 20))
    for path in paths:
        write(path, codes, VALUES)
    ended = subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], check=False)
    assert ended.returncode == -9
    for path in paths:
        assert np.array_equal(io.read_mask(path).codes, codes)
    assert {path for path in tmp_path.iterdir() if not path.name.startswith(".")} == set(paths)
    write(paths[0], codes + 1, VALUES)
    assert np.array_equal(io.read_mask(paths[0]).codes, codes + 1)


COPY = """
import resource, sys
from pathlib import Path
import numpy as np, tifffile, zarr
from ushape.io.streaming import open_band_writer
from ushape.io.streaming import open_bands
from ushape.types import MaskEncoding
def copy(source, target):
    with open_bands(source) as bands, open_band_writer(
        target, bands.shape[1:], MaskEncoding()
    ) as writer:
        for first in range(0, bands.shape[1], 128):
            writer.write(bands.read(first, min(first + 128, bands.shape[1]))[0])
small, large, target = map(Path, sys.argv[1:])
copy(small, target)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
copy(large, target)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_band_writer_memory_is_independent_of_the_height(suffix, tmp_path):
    row = np.tile(np.arange(256, dtype=np.uint8), (512, 4))
    for name, count in (("small", 2), ("large", 96)):  # The large one has 48 MB.
        array = np.tile(row, (count, 1))
        if suffix == ".npy":
            np.save(tmp_path / f"{name}.npy", array)
        else:
            tifffile.imwrite(tmp_path / f"{name}.tif", array, tile=(256, 256), compression="zlib")
    paths = [tmp_path / f"{name}{suffix}" for name in ("small", "large", "copy")]
    ended = subprocess.run(
        [sys.executable, "-c", COPY, *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 16 * 1024  # In kilobytes.
