import subprocess
import sys

import numpy as np
import pytest
import tifffile

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io.streaming import open_band_writer, open_bands, open_probability_writer
from ushape.types import MaskEncoding

GRAY = np.random.default_rng(0).integers(999, size=(20, 30), dtype=np.uint16)
STACK = np.random.default_rng(1).integers(999, size=(3, 2, 20, 30), dtype=np.uint16)


def read(tmp_path, array, name="x.tif", **options):
    tifffile.imwrite(tmp_path / name, array, **options)
    return io.read(tmp_path / name)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"rowsperstrip": 3, "compression": "zlib", "predictor": True},
        {"compression": "zstd", "tile": (16, 16)},
    ],
)
def test_tiff_layout_does_not_matter(options, tmp_path):
    pixels = read(tmp_path, GRAY, **options)
    assert (pixels.array == GRAY[None]).all()
    assert pixels.array.dtype == np.uint16


@pytest.mark.parametrize(("extra", "channels"), [("unassalpha", 3), ("unspecified", 4)])
def test_tiff_transparency_is_dropped_and_infrared_is_kept(extra, channels, tmp_path):
    deep = np.stack([GRAY, GRAY + 1, GRAY + 2, GRAY + 3], axis=-1)
    array = read(tmp_path, deep, photometric="rgb", extrasamples=[extra]).array
    assert (array == deep.transpose(2, 0, 1)[:channels]).all()


def test_imagej_hyperstack_has_channels_depth_and_spacing(tmp_path):
    metadata = {"axes": "ZCYX", "spacing": 3, "unit": "um"}
    pixels = read(tmp_path, STACK, imagej=True, resolution=(4, 2), metadata=metadata)
    assert (pixels.array == STACK.transpose(1, 0, 2, 3)).all()
    # 4 pixels per micron along x, 2 along y.
    assert pixels.spacing_mm == pytest.approx((0.003, 0.0005, 0.00025))


def test_tiff_without_unit_has_no_spacing(tmp_path):
    assert read(tmp_path, GRAY, imagej=True, resolution=(4, 2)).spacing_mm is None
    assert read(tmp_path, GRAY, resolution=(72, 72), resolutionunit="INCH").spacing_mm is None


@pytest.mark.parametrize(
    ("axes", "array", "shape", "spacing"),
    [
        ("CZYX", STACK, (3, 2, 20, 30), (2.0, 0.5, 0.25)),
        ("ZCYX", STACK, (2, 3, 20, 30), (2.0, 0.5, 0.25)),
        ("TCYX", STACK[:1], (2, 20, 30), (0.5, 0.25)),
        ("YX", GRAY, (1, 20, 30), (0.5, 0.25)),
    ],
)
def test_ome_tiff_axes_and_pixel_size(axes, array, shape, spacing, tmp_path):
    steps = {"PhysicalSizeZ": 2e6, "PhysicalSizeY": 5e5, "PhysicalSizeX": 2.5e5}
    units = {f"{name}Unit": "nm" for name in steps}
    metadata = {"axes": axes, **steps, **units}
    pixels = read(tmp_path, array, "x.ome.tif", photometric="minisblack", metadata=metadata)
    assert pixels.array.shape == shape
    assert pixels.spacing_mm == pytest.approx(spacing)


def test_tiff_with_several_time_points_is_refused(tmp_path):
    with raises_code(DataError, "unsupported_axes"):
        read(tmp_path, STACK, "x.ome.tif", photometric="minisblack", metadata={"axes": "TZYX"})


def test_ome_tiff_planes_in_other_files_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "other.ome.tif", STACK[0], photometric="minisblack")
    plane = '<TiffData IFD="0" FirstZ="{}"><UUID FileName="{}">urn:uuid:{}</UUID></TiffData>'
    ome = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image>'
        '<Pixels DimensionOrder="XYCZT" Type="uint16" SizeX="30" SizeY="20" SizeC="1" SizeZ="2" '
        'SizeT="1">' + plane.format(0, "x.ome.tif", 1) + plane.format(1, "other.ome.tif", 2)
    )
    with raises_code(DataError, "pixels_in_other_file"):
        read(
            *(tmp_path, GRAY, "x.ome.tif"),
            description=ome + "</Pixels></Image></OME>",
            metadata=None,
        )


def test_tiff_with_a_missing_strip_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", GRAY, rowsperstrip=5)
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(40)
    with raises_code(DataError, "damaged_file"):
        io.read(tmp_path / "x.tif")


GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 52e5, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
    (34737, "s", 0, "WGS 84 / UTM zone 32N", True),
]


def test_masks_and_probabilities_keep_the_place_of_a_geotiff(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", GRAY, extratags=GEO, metadata=None)
    codes = (GRAY > 500).astype(np.uint8)
    io.write_mask(tmp_path / "m.tif", codes, MaskEncoding(), like=io.read(tmp_path / "x.tif"))
    with (
        open_bands(tmp_path / "x.tif") as bands,
        open_band_writer(tmp_path / "s.tif", codes.shape, MaskEncoding(), bands) as writer,
        open_probability_writer(tmp_path / "p.tif", (1, *codes.shape), "uint8", bands) as shares,
    ):
        writer.write(codes)
        shares.write(codes[None].astype(np.float32))
    for name in ("m.tif", "s.tif", "p.tif"):
        with tifffile.TiffFile(tmp_path / name) as file:
            tags = file.pages.first.tags
            assert [tags[code].value for code, *_ in GEO] == [value for *_, value, _ in GEO]


def test_masks_keep_axes_and_spacing_of_imagej(tmp_path):
    frames = STACK[0].repeat(3, axis=0)
    metadata = {"axes": "TYX", "unit": "um", "finterval": 4.5}
    tifffile.imwrite(tmp_path / "x.tif", frames, imagej=True, resolution=(4, 2), metadata=metadata)
    image = io.read(tmp_path / "x.tif")
    io.write_mask(tmp_path / "m.tif", (frames > 9).astype(np.uint8), MaskEncoding(), like=image)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert file.series[0].axes == "TYX"
        assert file.imagej_metadata["unit"] == "um"
        assert file.imagej_metadata["finterval"] == 4.5
        assert (file.asarray() == (frames > 9)).all()
    again = io.read(tmp_path / "m.tif")
    assert again.tiff == image.tiff
    assert again.spacing_mm == image.spacing_mm


WITHOUT_CODECS = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "imagecodecs":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Blocked())
from pathlib import Path
from ushape import io
from ushape.errors import DataError
from ushape.io.streaming import open_bands
for path in sorted(Path(sys.argv[1]).iterdir()):
    for function in (io.read, io.read_mask, open_bands, lambda path: io.check_packages([path])):
        try:
            function(path)
            print(path.name, "read")
        except DataError as error:
            print(path.name, error.code, "imagecodecs" in error.hint)
"""


def test_compressions_that_need_imagecodecs_are_refused_without_it(tmp_path):
    # Pillow would read the first page of the stack, and the 16-bit colors as 8 bits.
    tifffile.imwrite(tmp_path / "lzw_stack.tif", STACK[0], compression="lzw")
    tifffile.imwrite(tmp_path / "zstd.tif", GRAY, compression="zstd")
    tifffile.imwrite(
        tmp_path / "planar.tif", STACK[:, 0], compression="lzw", planarconfig="separate",
        photometric="rgb",
    )  # fmt: skip
    tifffile.imwrite(tmp_path / "zlib.tif", GRAY, compression="zlib", predictor=True)
    output = subprocess.run(
        [sys.executable, "-c", WITHOUT_CODECS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.partition(" ")[::2] for line in output.stdout.splitlines()]
    assert len(lines) == 16
    for name, outcome in lines:
        assert outcome == ("read" if name == "zlib.tif" else "missing_package True"), output.stdout
