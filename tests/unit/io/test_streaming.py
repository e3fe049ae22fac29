"""Compare bands with the whole image for all formats and layouts; refuse damaged files."""

from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from codes import raises_code
from dicoms import SLICES, save
from ushape import io
from ushape.errors import DataError
from ushape.io.streaming import open_band_writer, open_bands, open_boxes, read_spacing
from ushape.types import MaskEncoding

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(256, size=(37, 29), dtype=np.uint8)
DEEP = RANDOM.integers(2**16, size=(37, 29), dtype=np.uint16)
RGB = RANDOM.integers(256, size=(37, 29, 3), dtype=np.uint8)
STACK = RANDOM.integers(2**16, size=(5, 37, 29), dtype=np.uint16)
HYPER = RANDOM.integers(2**16, size=(5, 3, 37, 29), dtype=np.uint16)
TABLE = RANDOM.integers(256, size=(3, 256)).astype(np.uint16) * 257


def by_pillow(path):
    Image.fromarray(RGB).save(path)


def by_itk(path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(STACK), str(path))


def by_zarr(path):
    zarr.create_array(str(path), data=STACK, chunks=(2, 16, 16))


PORTABLE = (".ppm", ".pgm", ".pbm", ".pnm")
FORMATS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", *PORTABLE), by_pillow),
    **dict.fromkeys((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"), by_itk),
    **dict.fromkeys((".tif", ".tiff"), lambda path: tifffile.imwrite(path, RGB)),
    **dict.fromkeys((".ome.tif", ".ome.tiff"), lambda path: tifffile.imwrite(path, STACK)),
    ".dcm": lambda path: save(path, SLICES[0]),
    ".npy": lambda path: np.save(path, STACK),
    ".npz": lambda path: np.savez(path, STACK),
    **dict.fromkeys((".zarr", ".ome.zarr"), by_zarr),
}

TIFFS = {
    "one strip": (GRAY, {}),
    "strips": (DEEP, {"rowsperstrip": 5, "compression": "zlib", "predictor": True}),
    "strips, unpacked": (GRAY, {"rowsperstrip": 7}),
    "tiles": (GRAY, {"tile": (16, 16), "compression": "zlib"}),
    "tiles, unpacked": (DEEP, {"tile": (16, 32)}),
    "wide tiles": (GRAY, {"tile": (32, 16), "compression": "lzw"}),
    "float": (STACK[0].astype(np.float32), {"tile": (16, 16), "compression": "zlib"}),
    "32 bits": (DEEP.astype(np.int32) - 9, {"rowsperstrip": 4, "compression": "packbits"}),
    "half floats": ((DEEP / 7).astype(np.float16), {"tile": (16, 16), "compression": "zlib"}),
    "big end first": (DEEP, {"byteorder": ">"}),
    "big end first, packed": (DEEP, {"byteorder": ">", "rowsperstrip": 6, "compression": "zlib"}),
    "BigTIFF": (DEEP, {"bigtiff": True, "tile": (16, 16)}),
    "bits": (GRAY > 99, {"photometric": "minisblack"}),
    "bits, strips": (GRAY > 99, {"photometric": "minisblack", "rowsperstrip": 5}),
    "white is zero": (GRAY, {"photometric": "miniswhite", "rowsperstrip": 5}),
    "palette": (GRAY, {"photometric": "palette", "colormap": TABLE, "tile": (16, 16)}),
    "RGB": (RGB, {"photometric": "rgb", "tile": (16, 16), "compression": "zlib"}),
    "RGB, strips": (RGB, {"photometric": "rgb", "rowsperstrip": 3, "compression": "zlib"}),
    "RGB planes": (RGB.transpose(2, 0, 1), {"photometric": "rgb", "tile": (16, 16)}),
    "RGB planes, strips": (
        RGB.transpose(2, 0, 1),
        {
            "photometric": "rgb",
            "planarconfig": "separate",
            "rowsperstrip": 5,
            "compression": "zlib",
        },
    ),
    "JPEG": (RGB, {"photometric": "ycbcr", "compression": "jpeg", "tile": (16, 16)}),
    "transparent": (
        np.dstack([RGB, GRAY]),
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "rowsperstrip": 9},
    ),
    "infrared": (
        np.dstack([RGB, GRAY]),
        {"photometric": "rgb", "extrasamples": ["unspecified"], "tile": (16, 16)},
    ),
    "pages": (STACK, {"photometric": "minisblack"}),
    "pages, packed": (STACK, {"photometric": "minisblack", "compression": "zlib"}),
    "pages of tiles": (STACK, {"photometric": "minisblack", "tile": (16, 16)}),
    "one page": (STACK[:1], {"photometric": "minisblack", "compression": "zlib"}),
    "volume": (STACK, {"photometric": "minisblack", "volumetric": True, "tile": (2, 16, 16)}),
    "ImageJ": (HYPER, {"imagej": True, "metadata": {"axes": "ZCYX", "unit": "um", "spacing": 3}}),
    "ImageJ, flat": (HYPER[0], {"imagej": True, "metadata": {"axes": "CYX"}}),
    "OME": (
        HYPER,
        {"ome": True, "metadata": {"axes": "ZCYX", "PhysicalSizeX": 2.0}, "compression": "zlib"},
    ),
    "OME, flat": (HYPER[0], {"ome": True, "metadata": {"axes": "CYX"}, "tile": (16, 16)}),
    "OME, one time": (HYPER[:1], {"ome": True, "metadata": {"axes": "TCYX"}, "rowsperstrip": 4}),
    "OME of pixel size": (
        DEEP,
        {"ome": True, "metadata": {"PhysicalSizeX": 2.0, "PhysicalSizeY": 3.0}, "tile": (16, 16)},
    ),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One file of each format with the result of `io.read`."""
    folder, found = tmp_path_factory.mktemp("bands"), {}

    def write(name):
        if name not in found:
            path = folder / (name if name.startswith("x.") else f"{name}.tif")
            if name.startswith("x."):
                FORMATS[name[1:]](path)
            else:
                array, options = TIFFS[name]
                tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
            found[name] = path, io.read(path)
        return found[name]

    return write


def bands_of(length):
    """Bands as a user may ask for them: forward, overlapping, or anywhere."""
    band = st.tuples(st.integers(0, length - 1), st.integers(1, length))
    return st.lists(
        band.map(lambda pair: (pair[0], min(sum(pair), length))), min_size=1, max_size=6
    )


def test_every_format_is_tested_in_bands():
    assert set(FORMATS) == set(io.FORMATS) - set(io.slides.SLIDES)  # See test_slides.py.


@pytest.mark.parametrize("name", [*(f"x{suffix}" for suffix in FORMATS), *TIFFS])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_band_equals_the_rows_of_the_whole_image(name, written, data):
    path, whole = written(name)
    with open_bands(path) as bands:
        assert bands.shape == whole.array.shape
        assert bands.dtype == whole.array.dtype
        assert bands.spacing_mm == whole.spacing_mm
        for first, last in data.draw(bands_of(bands.shape[1])):
            band = bands.read(first, last)
            assert band.dtype == whole.array.dtype
            assert np.array_equal(band, whole.array[:, first:last])
            band += 1  # It is the caller's own.


@pytest.mark.parametrize("name", [*(f"x{suffix}" for suffix in FORMATS), *TIFFS])
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_box_equals_the_part_of_the_whole_image(name, written, data):
    path, whole = written(name)
    lengths = whole.array.shape[1:]
    edges = [st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True) for n in lengths]
    with open_bands(path) as bands:
        box = tuple(tuple(sorted(data.draw(edge))) for edge in edges)
        part = bands.read_box(box)
        assert part.dtype == whole.array.dtype
        assert np.array_equal(part, whole.array[(slice(None), *(slice(*edge) for edge in box))])
        part += 1  # It is the caller's own.


@pytest.mark.parametrize("box", [((0, 3),), ((0, 3), (0, 10**6)), ((2, 2), (0, 3))])
def test_boxes_outside_of_the_image_are_refused(box, written):
    with open_bands(written("x.png")[0]) as bands, raises_code(DataError, "rows_out_of_range"):
        bands.read_box(box)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_nifti_masks_are_written_in_bands_on_the_grid_of_their_image(suffix, dtype, tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros((5, 6, 7), np.float32))
    image.SetSpacing((0.5, 0.75, 3))
    image.SetOrigin((4, -5, 6))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / "image.nii"))
    codes = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(dtype)
    encoding, target = MaskEncoding(dtype=dtype, suffix=suffix), tmp_path / f"mask{suffix}"
    with (
        open_bands(tmp_path / "image.nii") as bands,
        open_band_writer(target, codes.shape, encoding, bands) as writer,
    ):
        for first, last in ((0, 2), (2, 5)):
            writer.write(codes[first:last])
    found = io.read(target)
    assert found.array.dtype == dtype
    assert (found.array[0] == codes).all()
    assert found.grid == io.read_grid(tmp_path / "image.nii")
    half = tmp_path / "half.nii"
    with (
        raises_code(DataError, "bands_missing"),
        open_band_writer(half, codes.shape, encoding, tmp_path / "image.nii") as writer,
    ):
        writer.write(codes[:2])
    assert {path.name for path in tmp_path.iterdir()} == {"image.nii", target.name}


def test_nifti_that_must_be_changed_is_held_in_memory(tmp_path):
    volume = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "plain.nii")
    scaled = nibabel.Nifti1Image(volume.astype(float), np.eye(4))
    scaled.header.set_data_dtype(np.int16)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    for name, has_boxes in (("plain.nii", True), ("scaled.nii", False)):
        with open_bands(tmp_path / name) as bands:
            boxes = open_boxes(tmp_path / name)
            assert (boxes is not None) == has_boxes
            if boxes is not None:
                boxes.close()
            assert bands.read(0, bands.shape[1]) == pytest.approx(
                io.read(tmp_path / name).array, abs=1e-3
            )


@pytest.mark.parametrize(
    "name", [*(f"x{suffix}" for suffix in FORMATS), *sorted(TIFFS.keys() - {"volume"})]
)
def test_spacing_is_read_without_the_pixels(name, written, monkeypatch):
    path, whole = written(name)
    monkeypatch.setattr(io, "read", None)
    assert read_spacing(path) == whole.spacing_mm


@pytest.mark.parametrize("name", sorted({*TIFFS, "x.npy", "x.zarr"} - {"volume"}))
def test_bands_are_read_without_the_whole_image(name, written, monkeypatch):
    path, whole = written(name)
    monkeypatch.setattr(io, "read", None)
    with open_bands(path) as bands:
        assert np.array_equal(bands.read(1, 3), whole.array[:, 1:3])


def test_bands_of_a_tiff_that_tifffile_cannot_unpack_are_held(written, monkeypatch):
    path, whole = written("wide tiles")
    monkeypatch.setattr("ushape.io.tiff_segments._is_decodable", lambda page: False)
    with open_bands(path) as bands:
        assert np.array_equal(bands.read(4, 30), whole.array[:, 4:30])


@pytest.mark.parametrize("shape", [(37, 29), (37, 29, 3), (5, 37, 29), (2, 5, 37, 29)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_bands_of_npy_in_c_and_fortran_order(shape, order, tmp_path):
    array = np.asarray(RANDOM.integers(999, size=shape), dtype=">i4", order=order)
    np.save(tmp_path / "x.npy", array)
    whole = io.read(tmp_path / "x.npy").array
    with open_bands(tmp_path / "x.npy") as bands:
        parts = [bands.read(row, row + 1) for row in range(bands.shape[1])]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("names", [None, ["c", "y", "x"], ["z", "y", "x"], ["x", "y", "z"]])
@pytest.mark.parametrize("version", [2, 3])
def test_bands_of_zarr_follow_its_axes(names, version, tmp_path):
    options = {"dimension_names": names} if version == 3 else {}
    zarr.create_array(
        tmp_path / "x.zarr", data=STACK, chunks=(2, 16, 16), zarr_format=version, **options
    )
    whole = io.read(tmp_path / "x.zarr").array
    with open_bands(tmp_path / "x.zarr") as bands:
        parts = [bands.read(row, row + 1) for row in range(bands.shape[1])]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_bands_of_ome_zarr_with_time_axis_spacing_and_shards(tmp_path):
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=3)
    stored = group.create_array(
        "0",
        shape=(1, 3, 5, 37, 29),
        dtype="u2",
        chunks=(1, 1, 2, 16, 16),
        shards=(1, 3, 4, 32, 32),
    )
    stored[0] = HYPER.transpose(1, 0, 2, 3)
    axes = [{"name": name, **({"unit": "micrometer"} if name in "zyx" else {})} for name in "tczyx"]
    scale = [{"type": "scale", "scale": [1, 1, 4, 2, 1]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": levels}]}
    with open_bands(tmp_path / "x.zarr") as bands:
        assert bands.shape == (3, 5, 37, 29)
        assert bands.spacing_mm == pytest.approx((0.004, 0.002, 0.001))
        assert np.array_equal(bands.read(1, 4), HYPER[1:4].transpose(1, 0, 2, 3))


def test_bands_of_a_pyramid_are_from_its_largest_level(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(GRAY, tile=(16, 16), subifds=1)
        writer.write(GRAY[::2, ::2], tile=(16, 16), subfiletype=1)
    with open_bands(tmp_path / "x.tif") as bands:
        assert np.array_equal(bands.read(20, 37)[0], GRAY[20:])


def test_bands_unpack_only_their_tiles_and_only_once(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "x.tif", GRAY, tile=(16, 16), compression="zlib")
    unpacked = []
    read = tifffile.FileHandle.read
    monkeypatch.setattr(
        *(tifffile.FileHandle, "read"),
        lambda file, size=-1: unpacked.append(file.tell()) or read(file, size),
    )
    with open_bands(tmp_path / "x.tif") as bands:
        places = bands._source  # Opening has read headers.
        unpacked.clear()
        for first, last in ((0, 20), (10, 30), (16, 32)):  # Rows of tiles: 0 1, 0 1, 1.
            bands.read(first, last)
        assert places.block_rows == 16
    assert len(unpacked) == 4  # Two rows of two tiles.
    assert len(set(unpacked)) == 4


def huge_tiff(path, side, tile):
    """A gray TIFF of any size, whose tiles are all the same few bytes of the file."""
    tifffile.imwrite(
        path, np.full((tile, tile), 7, np.uint8), tile=(tile, tile), compression="zlib"
    )
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, size = page.dataoffsets[0], page.databytecounts[0]
        packed = path.read_bytes()[start : start + size]
    count = (side // tile) ** 2
    tifffile.imwrite(
        *(path, iter([packed] * count)),
        shape=(side, side),
        dtype=np.uint8,
        tile=(tile, tile),
        compression="zlib",
        bigtiff=True,
    )


def test_bands_of_a_tiff_that_is_too_large_to_be_read_whole(tmp_path):
    huge_tiff(tmp_path / "x.tif", 102400, 4096)
    with raises_code(DataError, "image_too_large"):
        io.read(tmp_path / "x.tif")
    with open_bands(tmp_path / "x.tif") as bands:
        assert bands.shape == (1, 102400, 102400)
        with raises_code(DataError, "image_too_large"):
            bands.read(0, 102400)


def test_bands_of_a_zarr_that_is_too_large_to_be_read_whole(tmp_path):
    side = 50_000
    stored = zarr.create_array(
        tmp_path / "x.zarr", shape=(side, side), chunks=(500, 10_000), dtype="u1"
    )
    stored[990:1010, 7:9] = 3
    # An array that is nearly all missing is refused.
    with raises_code(DataError, "damaged_file"):
        open_bands(tmp_path / "x.zarr")
    (tmp_path / "x.zarr" / "c" / "ballast").write_bytes(bytes(2**20))
    with raises_code(DataError, "image_too_large"):
        io.read(tmp_path / "x.zarr")
    with open_bands(tmp_path / "x.zarr") as bands:
        band = bands.read(995, 1012)
    assert band.shape == (1, 17, side)
    assert (band[0, :15, 7:9] == 3).all()
    assert band.sum() == 3 * 15 * 2


@pytest.mark.parametrize("name", ["strips", "tiles", "one strip", "pages, packed", "x.npy"])
def test_bands_of_a_truncated_file_are_refused(name, written, tmp_path):
    path, _ = written(name)
    content = path.read_bytes()
    cut = tmp_path / path.name
    for share in (0.2, 0.5, 0.9):
        cut.write_bytes(content[: int(share * len(content))])
        with raises_code(DataError, "damaged_file"), open_bands(cut) as bands:
            bands.read(0, bands.shape[1])


@pytest.mark.slow
@pytest.mark.fuzz
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["strips", "tiles", "RGB planes", "pages, packed", "OME", "x.npy"]),
    places=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_bands_of_a_randomly_damaged_file_raise_only_data_errors(name, places, written, tmp_path):
    path, _ = written(name)
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place % len(content)] = value
    hurt = tmp_path / path.name
    hurt.write_bytes(content)
    with suppress(DataError), open_bands(hurt) as bands:
        bands.read(0, min(8, bands.shape[1]))


@pytest.mark.parametrize(("first", "last"), [(-1, 5), (5, 5), (0, 38)])
def test_bands_out_of_range_are_refused(first, last, written):
    with (
        open_bands(written("tiles")[0]) as bands,
        raises_code(DataError, "rows_out_of_range"),
    ):
        bands.read(first, last)


def test_open_bands_refuses_unknown_formats_and_missing_files(tmp_path):
    with raises_code(DataError, "unknown_format"):
        open_bands(tmp_path / "x.xyz")
    with raises_code(DataError, "file_not_found"):
        open_bands(Path("x.tif"))
    (tmp_path / "x.tif").write_bytes(b"")
    with raises_code(DataError, "damaged_file"):
        open_bands(tmp_path / "x.tif")
