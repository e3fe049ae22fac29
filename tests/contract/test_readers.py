"""Promises of every file format."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ushape import io
from ushape.errors import DataError
from ushape.types import MaskEncoding

PALETTE = tuple((i, 255 - i, 3 * i % 256) for i in range(256))
FORMS = [
    (suffix, encoding, values)
    for suffix in io.WRITERS
    for encoding, values in (
        (MaskEncoding(), (0, 255)),
        (MaskEncoding(kind="palette", palette=PALETTE), (0, 1, 7)),
        (MaskEncoding(kind="colours"), (0, 0xFF0000, 0x00FF07)),
        (MaskEncoding(dtype="uint16"), (0, 1, 40_000)),
    )
    # GIF and BMP hold no 16 bits, GIF no true colours.
    if not (encoding.dtype == "uint16" and suffix in (".bmp", ".gif"))
    and not (encoding.kind == "colours" and suffix == ".gif")
]


@pytest.mark.parametrize(("suffix", "encoding", "values"), FORMS)
def test_a_written_mask_is_read_back_equal(suffix, encoding, values, tmp_path):
    codes = np.random.default_rng(0).choice(values, size=(9, 13))
    path = tmp_path / f"m{suffix}"
    io.write_mask(path, codes, encoding)
    back = io.read_mask(path)
    assert (back.codes == codes).all()
    # And in a form in which it would be written the same again.
    io.write_mask(tmp_path / f"again{suffix}", back.codes, back.encoding)
    assert (io.read_mask(tmp_path / f"again{suffix}").codes == codes).all()


@pytest.mark.parametrize("suffix", io.READERS)
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
def test_truncated_file_is_named(suffix, keep, tmp_path):
    noise = np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8)
    path = tmp_path / f"broken{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    for read in (io.read, io.read_mask):
        with pytest.raises(DataError, match=f"broken{suffix}") as caught:
            read(path)
        assert caught.value.hint


STARTS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"\xff\xd8\xff\xe0",
    b"RIFF",
]


@pytest.mark.parametrize("suffix", io.READERS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(min_size=1, max_size=400), start=st.sampled_from(STARTS))
def test_any_bytes_give_an_image_or_an_error_with_the_path(suffix, content, start, tmp_path):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(start + content)
    said = ""
    try:
        array = io.read(path).array
    except DataError as error:
        said = str(error)
    assert path.name in said or array.ndim in (3, 4)
