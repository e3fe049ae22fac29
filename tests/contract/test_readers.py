"""Promises of every file format. Files are written by hand or by another library where one can."""

import json
import shutil
import struct
import time
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io.streaming import open_bands, read_spacing
from ushape.types import MaskEncoding


def slow(value):
    """A parameter that only `make test-slow` tries."""
    return pytest.param(value, marks=pytest.mark.slow)


PALETTE = tuple((i, 255 - i, 3 * i % 256) for i in range(256))
FORMS = [
    (suffix, encoding, values)
    for suffix in filter(io.is_writable, io.FORMATS)
    for encoding, values in (
        (MaskEncoding(), (0, 255)),
        (MaskEncoding(kind="palette", palette=PALETTE), (0, 1, 7)),
        (MaskEncoding(kind="colors"), (0, 0xFF0000, 0x00FF07)),
        (MaskEncoding(dtype="uint16"), (0, 1, 40_000)),
        (MaskEncoding(dtype="bool"), (0, 1)),
        (MaskEncoding(dtype="float32"), (0, 1, 3)),
        (MaskEncoding(white_is_zero=True), (0, 255)),
        (MaskEncoding(dtype="bool", white_is_zero=True), (0, 1)),
        (MaskEncoding(kind="alpha", palette=((255, 0, 7),)), (0, 90, 255)),
    )
    # GIF and BMP hold no 16 bits, GIF no true colors, volumes no colors.
    if not (encoding.dtype == "uint16" and suffix in (".bmp", ".gif"))
    and not (encoding.kind == "colors" and suffix == ".gif")
    and not (encoding.kind == "colors" and suffix in io.itk.WRITABLE)
    and not (encoding.dtype == "float32" and suffix in (".png", ".bmp", ".gif"))
    and not (encoding.kind == "alpha" and suffix not in (".png", ".tif", ".tiff"))
    and not (encoding.white_is_zero and suffix not in (".tif", ".tiff"))
]


@pytest.mark.parametrize(("suffix", "encoding", "values"), FORMS)
def test_write_mask_is_read_back_equal(suffix, encoding, values, tmp_path):
    codes = np.random.default_rng(0).choice(values, size=(9, 13))
    path = tmp_path / f"m{suffix}"
    io.write_mask(path, codes, encoding)
    back = io.read_mask(path)
    assert (back.codes == codes).all()
    # And in a form in which it would be written the same again.
    if suffix in (".png", ".bmp", ".tif", ".tiff"):
        assert back.encoding.kind == encoding.kind
        assert back.encoding.dtype == encoding.dtype
        assert back.encoding.white_is_zero == encoding.white_is_zero
    assert back.encoding.suffix == suffix.removeprefix(".ome")
    io.write_mask(tmp_path / f"again{suffix}", back.codes, back.encoding)
    assert (io.read_mask(tmp_path / f"again{suffix}").codes == codes).all()


FLAT = np.random.default_rng(0).integers(256, size=(11, 14), dtype=np.uint8)
VOLUME = np.random.default_rng(1).integers(-999, 999, size=(5, 11, 14), dtype=np.int16)
SPACING = (2.5, 0.75, 0.5)
MICRONS = tuple(step / 1000 for step in SPACING)


def gzipped(content):
    packer = zlib.compressobj(wbits=31)
    return packer.compress(content) + packer.flush()


def save_nifti(path, volume):
    head = bytearray(352)
    head[:4] = struct.pack("<i", 348)
    head[40:56] = struct.pack("<8h", 3, *volume.shape[::-1], 1, 1, 1, 1)
    head[70:74] = struct.pack("<2h", 4, 16)  # int16
    head[76:108] = struct.pack("<8f", 1, *SPACING[::-1], 0, 0, 0, 0)
    head[108:112], head[123], head[344:348] = struct.pack("<f", 352), 2, b"n+1\0"
    content = bytes(head) + volume.tobytes()
    path.write_bytes(gzipped(content) if path.suffix == ".gz" else content)


def save_nrrd(path, volume):
    encoding = "raw" if path.stem == "raw" else "gzip"
    head = (
        "NRRD0004\n# By hand.\ntype: int16\ndimension: 3\nspace dimension: 3\nsizes: 14 11 5\n"
        "space directions: (0.5,0,0) (0,0.75,0) (0,0,2.5)\nspace origin: (1,2,3)\n"
        f"endian: little\nencoding: {encoding}\nsomething:=else\n\n"
    )
    content = volume.tobytes()
    path.write_bytes(head.encode() + (content if encoding == "raw" else gzipped(content)))


def save_mha(path, volume):
    is_raw = path.stem == "raw"
    content = volume.tobytes() if is_raw else zlib.compress(volume.tobytes())
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {not is_raw}\nElementSpacing = 0.5 0.75 2.5\nDimSize = 14 11 5\n"
        f"CompressedDataSize = {len(content)}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(head.encode() + content)


def save_itk(path, array):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1][: array.ndim])
    if path.suffix == ".dcm":
        image.SetMetaData("0008|0016", pydicom.uid.CTImageStorage)  # Not a photograph of a screen.
        image.SetMetaData("0008|0060", "CT")
    SimpleITK.WriteImage(image, str(path))


def save_dicom(path, volume):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    data.PatientID, data.SeriesInstanceUID = "anna", "1.2"
    data.NumberOfFrames, data.Rows, data.Columns = volume.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.PixelSpacing, data.SpacingBetweenSlices = list(SPACING[1:]), SPACING[0]
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [3, 4, 5]
    data.PixelData = volume.tobytes()
    data.save_as(path, enforce_file_format=True)


def save_zarr(path, volume, version):
    # Chunks that do not divide the volume.
    array = zarr.create_array(
        str(path), shape=volume.shape, chunks=(3, 6, 8), dtype="int16", zarr_format=version
    )
    array[...] = volume


def save_ome_zarr(path, volume, version):
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    level = group.create_array("0", shape=(1, 1, *volume.shape), chunks=(1, 1, 3, 6, 8), dtype="i2")
    level[...] = volume[None, None]
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    scale = {"type": "scale", "scale": [1, 1, *SPACING]}
    image = {
        "axes": [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *axes],
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }
    group.attrs.update(
        {"multiscales": [image]} if version == 2 else {"ome": {"multiscales": [image]}}
    )


def save_ome_tiff(path, volume):
    sizes = {f"PhysicalSize{name}": step for name, step in zip("ZYX", SPACING, strict=True)}
    units = {f"PhysicalSize{name}Unit": "µm" for name in "ZYX"}
    metadata = {"axes": "ZYX", **sizes, **units}
    tifffile.imwrite(path, volume, photometric="minisblack", metadata=metadata)


def save_imagej(path, volume):
    metadata = {"axes": "ZYX", "spacing": SPACING[0], "unit": "um"}
    pixels_per_unit = (1 / SPACING[2], 1 / SPACING[1])
    tifffile.imwrite(path, volume, imagej=True, resolution=pixels_per_unit, metadata=metadata)


def save_tiff(path, volume, **options):
    tifffile.imwrite(path, volume, photometric="minisblack", **options)


def save_picture(path, picture):
    Image.fromarray(picture).save(path)


FORMATS = {
    # Name of the file: what is stored, its spacing, who writes it.
    "x.png": (FLAT, None, save_picture),
    "x.bmp": (FLAT, None, save_picture),
    "x.pgm": (FLAT, None, save_picture),
    "x.gif": (FLAT, None, save_picture),
    "x.jpg": (FLAT, None, save_picture),
    "x.webp": (FLAT, None, lambda path, it: Image.fromarray(it).save(path, lossless=True)),
    "x.tif": (FLAT, None, save_picture),
    "pages.tiff": (VOLUME, None, save_tiff),
    "big.tif": (VOLUME, None, lambda path, it: save_tiff(path, it, bigtiff=True)),
    "tiled.tif": (VOLUME, None, lambda p, it: save_tiff(p, it, tile=(16, 16), compression="zlib")),
    "lzw.tif": (FLAT, None, lambda path, it: save_tiff(path, it, compression="lzw")),
    "float.tif": (VOLUME.astype(np.float32), None, save_tiff),
    "x.ome.tif": (VOLUME, MICRONS, save_ome_tiff),
    "imagej.tif": (VOLUME.astype(np.uint16), MICRONS, save_imagej),
    "itk.tif": (VOLUME.astype(np.uint16), None, save_itk),
    "x.nii": (VOLUME, SPACING, save_nifti),
    "x.nii.gz": (VOLUME, SPACING, save_nifti),
    "raw.nrrd": (VOLUME, SPACING, save_nrrd),
    "x.nrrd": (VOLUME, SPACING, save_nrrd),
    "raw.mha": (VOLUME, SPACING, save_mha),
    "x.mha": (VOLUME, SPACING, save_mha),
    "x.dcm": (VOLUME, SPACING, save_dicom),
    "gdcm.dcm": (FLAT, SPACING[1:], save_itk),
    "x.npy": (VOLUME, None, np.save),
    "x.npz": (VOLUME, None, np.savez_compressed),
    "two.zarr": (VOLUME, None, lambda path, it: save_zarr(path, it, 2)),
    "three.zarr": (VOLUME, None, lambda path, it: save_zarr(path, it, 3)),
    "two.ome.zarr": (VOLUME, SPACING, lambda path, it: save_ome_zarr(path, it, 2)),
    "three.ome.zarr": (VOLUME, SPACING, lambda path, it: save_ome_zarr(path, it, 3)),
}


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    for name, (array, _, save) in FORMATS.items():
        save(folder / name, array)
    return folder


def is_answer(path):
    """Whether all readers give what they promise, or a DataError that names the file, soon."""
    began, said = time.monotonic(), []
    for read in (io.read, io.read_mask, io.read_grid):
        try:
            read(path)
        except DataError as error:
            said.append(path.name in str(error) and bool(error.hint))
    # A second is promised; other processes run on the machine that tests.
    return time.monotonic() - began < 5 and all(said)


def files_of(path):
    """A file, or those in a Zarr folder, its metadata first."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(files, key=lambda file: (not file.name.startswith((".z", "zarr")), file))


@pytest.mark.parametrize("name", FORMATS)
def test_read_equals_what_another_library_wrote(name, written):
    array, spacing, _ = FORMATS[name]
    pixels = io.read(written / name)
    assert pixels.array.shape[1:] == array.shape
    assert pixels.array.dtype == array.dtype
    # GIF and WebP hold gray as colors, JPEG nearly.
    assert len(pixels.array) == (3 if name in ("x.gif", "x.webp") else 1)
    assert name == "x.jpg" or (pixels.array == array).all()
    assert pixels.spacing_mm == (spacing and pytest.approx(spacing))
    assert pixels.array.flags.c_contiguous
    assert pixels.array.flags.writeable
    assert io.is_image(written / name)


def test_every_suffix_is_tested():
    assert {io.suffix_of(path) for path in map(io.Path, FORMATS)} | {
        *(".jpeg", ".ome.tiff", ".mhd", ".zarr", ".ppm", ".pbm", ".pnm")
    } == set(io.FORMATS) - set(io.slides.SLIDES)  # See tests/unit/io/test_slides.py.


@pytest.mark.parametrize("name", FORMATS)
def test_format_keeps_what_its_entry_in_the_table_promises(name, written):
    path, pixels = written / name, io.read(written / name)
    stated = io.FORMATS[io.suffix_of(path)]
    if stated.read_size is not None:
        assert stated.read_size(path) == io.read_size(path) == pixels.array.shape[1:]
    if stated.read_orientation is not None:
        assert stated.read_orientation(path) == pixels.orientation
    # Whatever a reader returns, the functions of headers return as well.
    assert io.read_orientation(path) == pixels.orientation
    assert io.read_grid(path) == pixels.grid
    assert read_spacing(path) == pixels.spacing_mm
    if stated.signature is not None:
        shown = io.suffix_of_start(path.read_bytes()[:16])
        assert io.FORMATS[shown].signature == stated.signature
        assert io.content_suffix(path) == io.suffix_of(path)
    if stated.open_rows is not None:
        assert io.is_read_in_bands(path)
        with open_bands(path) as bands:
            assert np.array_equal(bands.read(1, 3), pixels.array[:, 1:3])
    if stated.check_packages is not None:
        stated.check_packages(path)


def test_formats_without_a_size_in_the_header_are_those_that_are_known():
    unknown = {suffix for suffix, one in io.FORMATS.items() if one.read_size is None}
    assert unknown == {".dcm", ".zarr", ".ome.zarr"}


def copy(source, path):
    shutil.rmtree(path, ignore_errors=True)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, path)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("keep", [10, 0.9, *(slow(keep) for keep in (0, 1, 132, 400, 0.5))])
def test_truncated_file_is_refused_and_named(name, keep, written, tmp_path):
    path = tmp_path / name
    copy(written / name, path)
    for file in files_of(path)[-1:] if isinstance(keep, float) else files_of(path)[:1]:
        content = file.read_bytes()
        cut = content[: keep if isinstance(keep, int) else int(keep * len(content))]
        file.write_bytes(cut)
        if cut == content:
            return
    for read in (io.read, io.read_mask):
        with pytest.raises(DataError, match=path.name) as caught:
            read(path)
        assert caught.value.hint
        assert caught.value.code in ("damaged_file", "no_pixels")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("place", [3, 40])
def test_changed_byte_gives_pixels_or_an_error_with_the_path(name, place, written, tmp_path):
    path = tmp_path / name
    copy(written / name, path)
    file = files_of(path)[0]
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(content)
    assert is_answer(path)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_file_gives_pixels_or_an_error_with_the_path(name, data, written, tmp_path):
    path = tmp_path / name
    copy(written / name, path)
    file = data.draw(st.sampled_from(files_of(path)[:4]))
    content = bytearray(file.read_bytes())
    places = st.integers(0, min(len(content), 1000) - 1)
    values = st.sampled_from(b"\0\xff\x7f\x800129:.")
    for place, value in data.draw(st.lists(st.tuples(places, values), min_size=1, max_size=9)):
        content[place] = value
    file.write_bytes(content[: data.draw(st.integers(1, len(content)) | st.none())])
    assert is_answer(path)


STARTS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\x00",
    b"II+\x00\x08\x00\x00\x00",
    b"MM\x00*",
    b"\xff\xd8\xff\xe0",
    b"RIFF",
    b"\x5c\x01\0\0" + bytes(340) + b"n+1\0",
    b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    b"NRRD0004\n",
    b"NDims = 3\n",
    bytes(128) + b"DICM",
    b"\x93NUMPY\x01\0",
    b"PK\x03\x04",
]


@pytest.mark.parametrize("suffix", io.FORMATS)
def test_start_of_another_format_gives_an_image_or_an_error_with_the_path(suffix, tmp_path):
    for start in STARTS[1:]:
        path = tmp_path / f"any{suffix}"
        path.write_bytes(start + bytes(range(200)))
        assert is_answer(path)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("suffix", io.FORMATS)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(min_size=1, max_size=400), start=st.sampled_from(STARTS))
def test_random_file_gives_an_image_or_an_error_with_the_path(suffix, content, start, tmp_path):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(start + content)
    assert is_answer(path)


def huge_png(path):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def huge_tiff(path, **options):
    tifffile.imwrite(path, FLAT, **options)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(2_000_000_000)


def huge_nifti(path):
    save_nifti(path.with_name("small.nii"), VOLUME)
    content = bytearray(path.with_name("small.nii").read_bytes())
    content[42:48] = struct.pack("<3h", 32_000, 32_000, 32_000)
    path.write_bytes(gzipped(content) if path.suffix == ".gz" else content)


def replacing_bytes(before, after):
    def spoil(path):
        FORMATS[path.name][2](path, FORMATS[path.name][0])
        content = path.read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after))

    return spoil


def elsewhere(path):
    """Headers that name another file as the place of their pixels."""
    secret = path.with_name("secret.raw")
    secret.write_bytes(bytes(4096))
    name = str(secret)
    path.write_text(
        f"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 8 8\nencoding: raw\ndata file: {name}\n\n"
        if path.suffix == ".nrrd"
        else f"NDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\nElementDataFile = {name}\n"
    )


class Trap:
    def __reduce__(self):
        return exec, ("raise __import__('readers_trap')",)


def pickled(path):
    trap = np.array([Trap()], dtype=object)
    (np.save if path.suffix == ".npy" else np.savez)(path, trap, allow_pickle=True)


def zarr_saying(version, **claims):
    def spoil(path):
        save_zarr(path, VOLUME, version)
        file = path / ("zarr.json" if version == 3 else ".zarray")
        file.write_text(json.dumps({**json.loads(file.read_text()), **claims}))

    return spoil


def ome_zarr_outside(path):
    save_zarr(path.with_name("other.zarr"), VOLUME, 2)
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    image = {"datasets": [{"path": "../other.zarr"}], "axes": ["z", "y", "x"]}
    (path / ".zattrs").write_text(json.dumps({"multiscales": [image]}))


def dicom_saying(**claims):
    def spoil(path):
        save_dicom(path, VOLUME)
        data = pydicom.dcmread(path)
        for name, value in claims.items():
            setattr(data, name, value)
        data.save_as(path)

    return spoil


HOSTILE = {
    "png": ("x.png", huge_png, "damaged_file"),
    "tiff": ("x.tif", huge_tiff, "image_too_large"),
    "packed tiff": ("x.tif", lambda path: huge_tiff(path, compression="zlib"), "image_too_large"),
    "nifti": ("x.nii", huge_nifti, "image_too_large"),
    "packed nifti": ("x.nii.gz", huge_nifti, "image_too_large"),
    "nrrd": (
        "x.nrrd",
        replacing_bytes(b"sizes: 14 11 5", b"sizes: 99999 99999 5"),
        "image_too_large",
    ),
    "nrrd a little": (
        "x.nrrd",
        replacing_bytes(b"sizes: 14 11 5", b"sizes: 14 11 6"),
        "damaged_file",
    ),
    "nrrd elsewhere": ("x.nrrd", elsewhere, "pixels_in_other_file"),
    "mha": (
        "x.mha",
        replacing_bytes(b"DimSize = 14 11 5", b"DimSize = 9999999 1 999"),
        "image_too_large",
    ),
    "mha a little": ("raw.mha", replacing_bytes(b"= 14 11 5", b"= 14 11 6"), "damaged_file"),
    "mha of no length": (
        *("x.mha", replacing_bytes(b"CompressedDataSize", b"SomethingElse"), "damaged_file"),
    ),
    "mha elsewhere": ("x.mha", elsewhere, "pixels_in_other_file"),
    "mhd elsewhere": ("x.mhd", elsewhere, "pixels_in_other_file"),
    "dicom": ("x.dcm", dicom_saying(Rows=65_000, Columns=65_000), "image_too_large"),
    "dicom frames": ("x.dcm", dicom_saying(NumberOfFrames=2_000_000_000), "image_too_large"),
    "npy": ("x.npy", replacing_bytes(b"(5, 11, 14), ", b"(99999,99999)"), "image_too_large"),
    "npy a little": ("x.npy", replacing_bytes(b"(5, 11, 14)", b"(6, 11, 14)"), "damaged_file"),
    "npy pickle": ("x.npy", pickled, "unsupported_values"),
    "npz pickle": ("x.npz", pickled, "unsupported_values"),
    "zarr": ("x.zarr", zarr_saying(2, shape=[10**6] * 3), "image_too_large"),
    "zarr 3": ("x.zarr", zarr_saying(3, shape=[10**6] * 3), "image_too_large"),
    "zarr chunks": ("x.zarr", zarr_saying(2, chunks=[10**6] * 3), "image_too_large"),
    "zarr of many chunks": ("x.zarr", zarr_saying(2, shape=[999] * 3), "damaged_file"),
    "zarr nearly empty": (
        *("x.zarr", zarr_saying(2, shape=[99, 999, 999], chunks=[99, 999, 999])),
        "damaged_file",
    ),
    "zarr pickle": (
        "x.zarr",
        zarr_saying(2, filters=[{"id": "pickle"}]),
        "unsupported_compression",
    ),
    "zarr objects": ("x.zarr", zarr_saying(2, dtype="|O"), "unsupported_values"),
    "zarr outside": ("x.zarr", ome_zarr_outside, "damaged_file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_at_once(case, tmp_path):
    name, spoil, code = HOSTILE[case]
    spoil(tmp_path / name)
    began = time.monotonic()
    with raises_code(DataError, code) as caught:
        io.read(tmp_path / name)
    assert name in caught.value.message
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("x.nii.gz", "SimpleITK", "medical"),
        ("x.nrrd", "SimpleITK", "medical"),
        ("x.dcm", "pydicom", "medical"),
        ("two.zarr", "zarr", "zarr"),
    ],
)
def test_missing_package_is_named_with_its_extra(name, package, extra, written, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with raises_code(DataError, "missing_package") as caught:
        io.read(written / name)
    assert name in caught.value.message
    assert package in caught.value.message
    assert f'"ushape[{extra}]"' in caught.value.hint
