import numpy as np
import pytest
import tifffile
from PIL import Image

from standalone import import_program
from ushape import io
from ushape.io.orientation import as_displayed
from ushape.types import MaskEncoding

image_files = import_program("image_files")

GENERATOR = np.random.default_rng(0)
GRAY = GENERATOR.integers(0, 256, (13, 17), np.uint8)
RGB = GENERATOR.integers(0, 256, (13, 17, 3), np.uint8)
RGBA = GENERATOR.integers(0, 256, (13, 17, 4), np.uint8)
PALETTE = Image.fromarray(GRAY).convert("P", palette=Image.Palette.ADAPTIVE, colors=7)

PICTURES = {
    "gray.png": Image.fromarray(GRAY),
    "rgb.png": Image.fromarray(RGB),
    "rgba.png": Image.fromarray(RGBA),
    "la.png": Image.fromarray(RGBA).convert("LA"),
    "bits.png": Image.fromarray(GRAY > 99),
    "16.png": Image.fromarray(GRAY.astype(np.uint16) * 250),
    "16.pgm": Image.fromarray(GRAY.astype(np.uint16) * 250),
    "bits.pbm": Image.fromarray(GRAY > 99),
    "rgb.jpg": Image.fromarray(RGB),
    "cmyk.jpeg": Image.fromarray(RGB).convert("CMYK"),
    "rgb.webp": Image.fromarray(RGB),
    "rgb.bmp": Image.fromarray(RGB),
    "palette.png": PALETTE,
    "palette.gif": PALETTE,
    "palette.bmp": PALETTE,
    "palette.tif": PALETTE,
}


def assert_equal_reading(path):
    found, expected = image_files.read_image(path), io.read(path)
    assert found.array.dtype == expected.array.dtype
    assert np.array_equal(found.array, expected.array)
    assert found.orientation == expected.orientation


def assert_refused(path):
    with pytest.raises(image_files.ImageError):
        image_files.read_image(path)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_read_as_by_ushape(tmp_path, name):
    PICTURES[name].save(tmp_path / name)
    assert_equal_reading(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("name", ["rgb.png", "gray.png"])
def test_photograph_is_turned_as_by_ushape(tmp_path, name, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    PICTURES[name].save(tmp_path / f"x{suffix}", exif=exif)
    assert_equal_reading(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "bool"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_is_turned_as_by_ushape(tmp_path, dtype, compression, orientation):
    tag = (274, "H", 1, orientation, True)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, GRAY.astype(dtype), compression=compression, extratags=[tag])
    assert_equal_reading(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "bool"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("byteorder", "<>")
def test_tiff_is_read_as_by_ushape_or_refused(tmp_path, dtype, compression, byteorder):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, GRAY.astype(dtype), compression=compression, byteorder=byteorder)
    is_misread = byteorder == ">" and compression and dtype in ("int16", "int32", "float32")
    (assert_refused if is_misread else assert_equal_reading)(path)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (GRAY, {"photometric": "miniswhite"}),
        (GRAY > 99, {"photometric": "miniswhite"}),
        (RGB, {"photometric": "rgb"}),
        (RGBA, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        (GRAY, {"imagej": True}),
        (GRAY, {"bigtiff": True}),
        (np.tile(GRAY, (3, 3)), {"tile": (16, 16)}),
        (
            GRAY,
            {
                "photometric": "palette",
                "colormap": GENERATOR.integers(0, 65_536, (3, 256)).astype(np.uint16),
            },
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_special_tiff_is_read_as_by_ushape(tmp_path, array, options):
    tifffile.imwrite(tmp_path / "x.tif", array, **options)
    assert_equal_reading(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (GRAY.astype(np.uint16), {"photometric": "miniswhite"}),
        (RGB.astype(np.uint16), {"photometric": "rgb"}),
        (RGBA, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (RGBA, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (np.stack([GRAY] * 4), {"photometric": "minisblack"}),
        (np.stack([GRAY] * 4), {"imagej": True}),
        (GRAY.astype(np.float64), {}),
        (GRAY.astype(np.int8), {}),
        (GRAY.astype(np.uint32), {}),
        (GRAY, {"compression": "zstd"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else str(value.dtype),
)
def test_tiff_that_pillow_changes_is_refused(tmp_path, array, options):
    tifffile.imwrite(tmp_path / "x.tif", array, **options)
    assert_refused(tmp_path / "x.tif")


def test_content_decides_if_the_suffix_is_wrong(tmp_path):
    PICTURES["palette.tif"].save(tmp_path / "x.png", format="TIFF")
    assert_equal_reading(tmp_path / "x.png")


def test_damaged_and_unknown_files_are_refused(tmp_path):
    PICTURES["rgb.png"].save(tmp_path / "x.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:200])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "x.doc").write_bytes(b"text")
    for name in ("cut.png", "empty.png", "x.doc", "missing.png"):
        assert_refused(tmp_path / name)


ENCODINGS = [
    *(MaskEncoding(suffix=suffix) for suffix in (".png", ".bmp", ".gif", ".tif")),
    *(MaskEncoding(suffix=suffix, dtype="bool") for suffix in (".png", ".bmp", ".gif", ".tif")),
    *(MaskEncoding(suffix=suffix, dtype="uint16") for suffix in (".png", ".tif")),
    *(
        MaskEncoding(suffix=".tif", dtype=dtype)
        for dtype in ("int8", "int16", "int32", "uint32", "float32", "float64")
    ),
    *(MaskEncoding(suffix=".tif", dtype=dtype, white_is_zero=True) for dtype in ("uint8", "bool")),
    *(MaskEncoding(suffix=suffix, kind="colors") for suffix in (".png", ".bmp", ".tif")),
    *(
        MaskEncoding(suffix=suffix, kind="palette", palette=((0, 0, 0), (200, 10, 7)))
        for suffix in (".png", ".bmp", ".gif", ".tif")
    ),
    *(
        MaskEncoding(suffix=suffix, kind="alpha", palette=((9, 8, 7),))
        for suffix in (".png", ".tif")
    ),
]


@pytest.mark.parametrize(
    "encoding", ENCODINGS, ids=lambda one: f"{one.kind}-{one.dtype}{one.suffix}"
)
def test_mask_is_written_as_by_ushape(tmp_path, encoding):
    codes = GRAY > 99
    if encoding.kind == "colors":
        codes = np.where(codes, 0x10FF80, 0)
    own = image_files.MaskEncoding(**vars(encoding))
    paths = tmp_path / f"own{encoding.suffix}", tmp_path / f"ushape{encoding.suffix}"
    image_files.write_mask(paths[0], codes.astype(np.int64), own)
    io.write_mask(paths[1], codes.astype(np.int64), encoding)
    if encoding.suffix == ".tif":
        found, expected = map(io.read_mask, paths)
        assert np.array_equal(found.codes, expected.codes)
        assert found.encoding == expected.encoding
    else:
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_failed_writing_leaves_nothing(tmp_path):
    own = image_files.MaskEncoding("values", "float64", None, False, "displayed", ".png")
    with pytest.raises(OSError, match="cannot write"):
        image_files.write_mask(tmp_path / "x.png", GRAY, own)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_are_those_before_turning(orientation):
    assert np.array_equal(image_files.as_stored(as_displayed(GRAY, orientation), orientation), GRAY)
