import numpy as np
import pytest

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io.annotations import read_annotation
from ushape.types import MaskEncoding, MaskParts


@pytest.fixture
def parts(tmp_path):
    """Two masks of parts, which overlap in one pixel."""
    for name, rows in (("a", [[255, 255, 0]]), ("b", [[0, 255, 0]])):
        io.write_mask(tmp_path / f"{name}.png", np.array(rows, np.uint8), MaskEncoding())
    return tmp_path / "a.png", tmp_path / "b.png"


def test_read_annotation_draws_later_parts_over_earlier_ones(parts):
    assert read_annotation(MaskParts(parts, (1, 2))).codes.tolist() == [[1, 2, 0]]
    assert read_annotation(MaskParts(parts[::-1], (2, 1))).codes.tolist() == [[1, 1, 0]]
    assert read_annotation(MaskParts(parts, (1, 300))).codes.dtype == np.uint16


def test_read_annotation_refuses_parts_of_other_sizes_and_several_values(parts, tmp_path):
    io.write_mask(tmp_path / "c.png", np.array([[0, 1, 2]], np.uint8), MaskEncoding())
    io.write_mask(tmp_path / "d.png", np.zeros((3, 3), np.uint8), MaskEncoding())
    with raises_code(DataError, "mask_part_values"):
        read_annotation(MaskParts((tmp_path / "c.png",), (1,)))
    with pytest.raises(DataError) as numbered:
        read_annotation(MaskParts((tmp_path / "c.png",), (1,)))
    assert "labels.instances=true" in numbered.value.hint  # The values may number objects.
    with pytest.raises(DataError) as single:
        read_annotation(MaskParts((tmp_path / "c.png",), (1,), are_objects=True))
    assert "labels.instances" not in single.value.hint
    with raises_code(DataError, "mask_size_mismatch"):
        read_annotation(MaskParts((*parts, tmp_path / "d.png"), (1, 2, 3)))


def test_read_annotation_numbers_parts_only_if_they_are_objects(parts):
    found = read_annotation(MaskParts(parts, (1, 1), are_objects=True)).instances
    assert found.numbers.tolist() == [[1, 2, 0]]
    assert (found.stated, found.overlap_px) == (2, 1)
    assert read_annotation(MaskParts(parts, (1, 2))).instances is None
