import numpy as np
import pytest

from ushape import io
from ushape.errors import DataError


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
def test_axes_by_their_number_and_the_last_length(shape, becomes, tmp_path):
    array = np.random.default_rng(0).random(shape)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", only=array)
    for name in ("x.npy", "x.npz"):
        read = io.read(tmp_path / name).array
        assert read.shape == becomes
        has_channels = len(shape) == len(becomes) == 3
        assert (read == (np.moveaxis(array, -1, 0) if has_channels else array)).all()


@pytest.mark.parametrize("dtype", [bool, ">u2", "<i8", np.float16, ">f8"])
def test_numbers_keep_their_type_in_the_order_of_this_machine(dtype, tmp_path):
    array = (np.random.default_rng(0).random((5, 7)) * 9).astype(dtype)
    np.save(tmp_path / "x.npy", np.asfortranarray(array))
    read = io.read(tmp_path / "x.npy").array
    assert (read[0] == array).all()
    assert read.dtype.isnative
    assert read.dtype.itemsize == array.dtype.itemsize


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros(5), "an array of 1 axes"),
        (np.zeros((2, 2, 2, 2, 2)), "an array of 5 axes"),
        (np.zeros((0, 5)), "claims the shape 0 x 5"),
        (np.zeros((5, 5), np.complex64), "type complex64, not numbers"),
        (np.array([["a"]]), "not numbers"),
        (np.zeros((5, 5), np.longdouble), "64 bits"),
    ],
)
def test_arrays_that_are_no_images(array, complaint, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=complaint):
        io.read(tmp_path / "x.npy")


def test_several_arrays_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros((2, 2)), mask=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"x.npz: holds 2 arrays \(image, mask\)"):
        io.read(tmp_path / "x.npz")
