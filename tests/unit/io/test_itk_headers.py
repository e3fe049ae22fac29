import struct

import numpy as np
import pytest
import SimpleITK

from codes import raises_code
from ushape.errors import DataError
from ushape.io.itk_headers import HEADER_CHECKS, check_meta, check_nrrd

VOLUME = np.zeros((2, 3, 4), np.int16)


@pytest.mark.parametrize("suffix", HEADER_CHECKS)
def test_header_checks_accept_complete_files_and_refuse_truncated_ones(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path), False)
    HEADER_CHECKS[suffix](path)
    data = tmp_path / "x.raw" if suffix == ".mhd" else path
    data.write_bytes(data.read_bytes()[:-9])
    with raises_code(DataError, "damaged_file"):
        HEADER_CHECKS[suffix](path)


def test_check_nifti_refuses_a_size_that_the_file_cannot_contain(tmp_path):
    path = tmp_path / "x.nii"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path))
    content = bytearray(path.read_bytes())
    content[42:48] = struct.pack("<3h", 2000, 2000, 2000)
    path.write_bytes(content)
    with raises_code(DataError, "image_too_large"):
        HEADER_CHECKS[".nii"](path)


def test_header_checks_refuse_pixels_in_other_files(tmp_path):
    nrrd = b"NRRD0004\ntype: short\ndimension: 1\nsizes: 1\nencoding: raw\ndata file: /x\n\n"
    (tmp_path / "x.nrrd").write_bytes(nrrd)
    with raises_code(DataError, "pixels_in_other_file"):
        check_nrrd(tmp_path / "x.nrrd")
    meta = b"NDims = 2\nDimSize = 1 1\nElementType = MET_UCHAR\nElementDataFile = ../x.raw\n"
    (tmp_path / "x.mhd").write_bytes(meta)
    with raises_code(DataError, "pixels_in_other_file"):
        check_meta(tmp_path / "x.mhd")
