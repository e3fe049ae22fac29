import numpy as np
import pytest
import tifffile

from codes import raises_code
from ushape import io
from ushape.errors import DataError

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
