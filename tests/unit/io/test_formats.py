"""A format needs one module and one entry of the table FORMATS, and nothing else."""

import struct
from contextlib import contextmanager

import numpy as np
import pytest

import ushape
from codes import raises_code
from ushape import io
from ushape.data.discovery import discover
from ushape.data.reading import read_classes, read_image
from ushape.errors import DataError, MissingPackageError
from ushape.io.files import replacing
from ushape.io.formats import FORMATS, Format
from ushape.io.sinks import RowSink
from ushape.io.streaming import open_band_writer, open_bands, open_boxes, read_spacing
from ushape.serving.uploads import Limits, check_header, suffix_of_content
from ushape.types import MaskEncoding, Pixels, RowReader

# A module of a format: "TOY!", height, width, then bytes.
HEAD = struct.Struct("<4sII")


def toy_size(path):
    mark, *size = HEAD.unpack(path.read_bytes()[: HEAD.size])
    if mark != b"TOY!":
        raise DataError(f"{path}: this is not a toy.", hint="Export it again.")
    return tuple(size)


def read_toy(path):
    size = toy_size(path)
    return Pixels(array=np.frombuffer(path.read_bytes()[HEAD.size :], np.uint8).reshape(1, *size))


def open_toy(path, closing):
    size = toy_size(path)
    stored = np.memmap(path, np.uint8, "r", HEAD.size, (1, *size))
    return RowReader(
        shape=stored.shape,
        dtype=stored.dtype,
        read_rows=lambda first, last: np.array(stored[:, first:last]),
        read_box=lambda box: np.array(stored[(slice(None), *(slice(*edge) for edge in box))]),
        spacing_mm=(0.5, 0.25),
    )


def write_toy(file, array, encoding, like):
    file.write(HEAD.pack(b"TOY!", *array.shape) + array.astype(np.uint8).tobytes())


@contextmanager
def sink_toy(layout):
    with replacing(layout.path) as file:
        file.write(HEAD.pack(b"TOY!", *layout.shape))
        yield RowSink(lambda rows: file.write(rows.tobytes()), 2)


def need_toys(path):
    raise MissingPackageError(f"{path}: the package toys is not installed.")


TOY = Format(
    read=read_toy,
    read_size=toy_size,
    open_rows=open_toy,
    write=write_toy,
    open_sink=sink_toy,
    signature=b"TOY!",
)
CODES = np.random.default_rng(0).integers(0, 2, (23, 31)).astype(np.uint8)


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(FORMATS, ".toy", TOY)


@pytest.mark.usefixtures("toys")
def test_format_in_the_table_is_read_and_written_whole_and_in_bands(tmp_path):
    path = tmp_path / "m.toy"
    io.write_mask(path, CODES, MaskEncoding())
    assert path.read_bytes()[:12] == b"TOY!" + bytes([23, 0, 0, 0, 31, 0, 0, 0])
    assert np.array_equal(io.read(path).array[0], CODES)
    assert np.array_equal(io.read_mask(path).codes, CODES)
    assert io.read_mask(path).encoding.suffix == ".toy"
    assert io.is_image(path)
    assert io.is_writable(".toy")
    assert io.read_size(path) == (23, 31)
    assert io.read_orientation(path) == 1
    assert io.read_grid(path) is None
    assert not io.has_time_points(path)
    assert io.is_read_in_bands(path)
    assert read_spacing(path) == (0.5, 0.25)
    with open_bands(path) as bands:
        assert np.array_equal(bands.read(3, 9)[0], CODES[3:9])
    with open_boxes(path) as boxes:
        assert np.array_equal(boxes.read_box(((3, 9), (4, 7)))[0], CODES[3:9, 4:7])
    with open_band_writer(tmp_path / "bands.toy", CODES.shape, MaskEncoding()) as writer:
        writer.write(CODES[:7])
        writer.write(CODES[7:])
    assert (tmp_path / "bands.toy").read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("toys")
def test_format_in_the_table_is_recognized_by_its_content(tmp_path):
    io.write_mask(tmp_path / "m.toy", CODES, MaskEncoding())
    content = (tmp_path / "m.toy").read_bytes()
    (tmp_path / "named.png").write_bytes(content)
    assert io.content_suffix(tmp_path / "named.png") == ".toy"
    assert np.array_equal(io.read(tmp_path / "named.png").array[0], CODES)
    assert suffix_of_content(content, "any") == ".toy"


@pytest.mark.usefixtures("toys")
def test_format_in_the_table_is_checked_and_read_for_training(tmp_path):
    generator = np.random.default_rng(1)
    for number in range(8):
        image = generator.integers(0, 256, (40, 48))
        codes = np.zeros((40, 48), np.uint8)
        codes[5 + number : 20, 8:30] = 255
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        io.write_mask(tmp_path / "images" / f"{number}.toy", image, MaskEncoding())
        io.write_mask(tmp_path / "masks" / f"{number}.toy", codes, MaskEncoding())
    result = ushape.check(tmp_path, output=tmp_path.with_name("checks"), quiet=True)
    assert len(result.stats.case_stats) == 8
    assert {one.shape for one in result.stats.case_stats} == {(40, 48)}
    assert not [one.error for one in result.stats.case_stats if one.error]
    last = discover(tmp_path, None).cases[-1]
    assert np.array_equal(read_image(last)[0], image)
    assert np.array_equal(read_classes(last, result.stats.label_space), codes // 255)


def test_packages_of_a_format_are_checked_before_reading(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, ".toy", Format(read=read_toy, read_size=None))
    io.check_packages([tmp_path / "m.toy"])
    needs = Format(read=read_toy, read_size=None, check_packages=need_toys)
    monkeypatch.setitem(FORMATS, ".toy", needs)
    with pytest.raises(MissingPackageError):
        io.check_packages([tmp_path / "x.png", tmp_path / "m.toy"])


def test_format_that_can_only_be_read_has_no_size_and_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, ".toy", Format(read=read_toy, read_size=None))
    path = tmp_path / "m.toy"
    path.write_bytes(HEAD.pack(b"TOY!", *CODES.shape) + CODES.tobytes())
    assert io.read_size(path) is None
    assert not io.is_read_in_bands(path)
    assert io.read_mask(path).encoding.suffix == ".png"
    with open_bands(path) as bands:  # In memory.
        assert np.array_equal(bands.read(3, 9)[0], CODES[3:9])
    with raises_code(DataError, "unwritable_format"):
        io.write_mask(tmp_path / "new.toy", CODES, MaskEncoding())
    with (
        raises_code(DataError, "unwritable_format"),
        open_band_writer(tmp_path / "new.toy", CODES.shape, MaskEncoding()),
    ):
        pass


def test_file_whose_size_is_unknown_is_refused_as_an_upload(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, ".toy", TOY)
    path = tmp_path / "m.toy"
    io.write_mask(path, CODES, MaskEncoding())
    assert check_header(path, Limits()) == 23 * 31
    monkeypatch.setitem(FORMATS, ".toy", Format(read=read_toy, read_size=None))
    with raises_code(DataError, "size_unknown"):
        check_header(path, Limits())


def test_format_must_state_how_its_size_is_read():
    with pytest.raises(TypeError, match="read_size"):
        Format(read=read_toy)
