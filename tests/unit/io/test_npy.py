import numpy as np
import pytest

from codes import raises_code
from ushape import io
from ushape.errors import DataError
from ushape.io.streaming import open_bands


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((5, 7), (1, 5, 7)),
        ((5, 7, 3), (3, 5, 7)),
        ((5, 7, 5), (1, 5, 7, 5)),
        ((5, 7, 1), (1, 5, 7)),
        ((2, 5, 7, 9), (2, 5, 7, 9)),
    ],
)
def test_npy_axes_follow_their_number_and_the_last_length(shape, becomes, tmp_path):
    array = np.random.default_rng(0).random(shape)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", only=array)
    for name in ("x.npy", "x.npz"):
        read = io.read(tmp_path / name).array
        assert read.shape == becomes
        has_channels = len(shape) == len(becomes) == 3
        assert (read == (np.moveaxis(array, -1, 0) if has_channels else array)).all()


@pytest.mark.parametrize("dtype", [bool, ">u2", "<i8", np.float16, ">f8"])
def test_npy_type_is_kept_in_native_byte_order(dtype, tmp_path):
    array = (np.random.default_rng(0).random((5, 7)) * 9).astype(dtype)
    np.save(tmp_path / "x.npy", np.asfortranarray(array))
    read = io.read(tmp_path / "x.npy").array
    assert (read[0] == (255 * array if dtype is bool else array)).all()
    assert read.dtype.isnative
    assert read.dtype.itemsize == array.dtype.itemsize


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros(5), "unsupported_axes"),
        (np.zeros((2, 2, 2, 2, 2)), "unsupported_axes"),
        (np.zeros((0, 5)), "damaged_file"),
        (np.zeros((5, 5), np.complex64), "unsupported_values"),
        (np.array([["a"]]), "unsupported_values"),
        (np.zeros((5, 5), np.longdouble), "unsupported_values"),
    ],
)
def test_npy_that_is_not_an_image_is_refused_whole_and_in_bands(array, code, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with raises_code(DataError, code):
        io.read(tmp_path / "x.npy")
    with raises_code(DataError, code):
        open_bands(tmp_path / "x.npy")


def test_npy_with_objects_is_never_unpickled_in_bands(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[object()]]), allow_pickle=True)
    with raises_code(DataError, "unsupported_values"):
        open_bands(tmp_path / "x.npy")


def test_npz_with_several_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros((2, 2)), mask=np.zeros((2, 2)))
    with raises_code(DataError, "several_arrays"):
        io.read(tmp_path / "x.npz")
