"""Temporary arrays on a disk that is full."""

import errno
import os
import shutil

import numpy as np
import pytest

from ushape.io import pyramid
from ushape.io.pyramid import collect_levels
from ushape.io.temporary import temporary_map


@pytest.fixture
def reserved(monkeypatch):
    """Sizes that were to be reserved, and the function that refuses it."""
    asked = []

    def refuse(file, start, size):
        asked.append(size)
        raise OSError(refuse.code, os.strerror(refuse.code))

    refuse.code = errno.ENOSPC
    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    return asked, refuse


def free_bytes(monkeypatch, count):
    usage = shutil._ntuple_diskusage(10**12, 0, count)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, reserved):
    asked, _ = reserved
    with pytest.raises(OSError, match="space"), temporary_map((3, 5), tmp_path, np.int32):
        pass
    assert asked == [60]


def test_the_levels_of_a_large_mask_are_reserved(tmp_path, reserved, monkeypatch):
    asked, _ = reserved
    monkeypatch.setattr(pyramid, "LARGE_PX", 200)
    monkeypatch.setattr(pyramid, "SMALL_PX", 120)
    with (
        pytest.raises(OSError, match="space") as raised,
        collect_levels((300, 410, 3), np.dtype(np.uint8), tmp_path),
    ):
        pass
    assert asked == [75 * 102 * 3]
    assert raised.value.filename == str(tmp_path)


def test_a_file_system_without_reservation_is_compared_with_its_free_space(
    tmp_path, reserved, monkeypatch
):
    _, refuse = reserved
    refuse.code = errno.EOPNOTSUPP
    free_bytes(monkeypatch, 60)
    with temporary_map((3, 5), tmp_path, np.int32) as found:
        found[:] = 7
        assert found.sum() == 105
    free_bytes(monkeypatch, 59)
    with pytest.raises(OSError, match="space"), temporary_map((3, 5), tmp_path, np.int32):
        pass


def test_a_system_without_reservation_is_compared_with_its_free_space(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # macOS and Windows.
    free_bytes(monkeypatch, 60)
    with temporary_map((3, 5), tmp_path, np.int32) as found:
        assert found.shape == (3, 5)
    free_bytes(monkeypatch, 59)
    with pytest.raises(OSError, match="space"), temporary_map((3, 5), None, np.int32):
        pass


def test_an_array_is_empty_at_first(tmp_path):
    with temporary_map((2, 3), tmp_path) as found:
        assert found.shape == (2, 3)
        assert not found.any()
