"""Sections of a single volume as cases."""

import numpy as np
import pytest
import SimpleITK
import tifffile

from ushape.data.case_stats import scan_case
from ushape.data.discovery import discover
from ushape.data.grouping import find_groups
from ushape.data.reading import read_first_file, read_image
from ushape.data.sections import split_into_sections
from ushape.io.annotations import read_annotation

VOLUME = np.random.default_rng(0).integers(0, 255, (12, 8, 8), dtype=np.uint8)


@pytest.fixture
def put(tmp_path):
    def write(name, array):
        tifffile.imwrite(tmp_path / name, array, photometric="minisblack")

    return write


def test_sections_of_one_volume_are_cases_in_blocks(put, tmp_path):
    labels = (VOLUME > 128).astype(np.uint8) * 255
    put("train-volume.tif", VOLUME)
    put("train-labels.tif", labels)
    found = split_into_sections(discover(tmp_path))
    assert [case.id for case in found.cases[:2]] == ["train-volume/01", "train-volume/02"]
    for page, case in enumerate(found.cases):
        assert (read_image(case) == VOLUME[page]).all()
        assert (read_annotation(case.mask).codes == labels[page]).all()
    grouping = find_groups(found.cases, {case.id: np.zeros((2, 2)) for case in found.cases})
    groups = [case.group for case in grouping.cases]
    assert grouping.kind == "stack"
    assert groups == sorted(groups)
    assert len(set(groups)) == 4


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_sections_of_a_medical_volume_are_read_from_one_file(suffix, tmp_path):
    labels = (VOLUME > 128).astype(np.uint8)
    for kind, array in (("images", VOLUME), ("masks", labels)):
        (tmp_path / kind).mkdir()
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((0.5, 0.75, 4.0))
        SimpleITK.WriteImage(image, str(tmp_path / kind / f"a{suffix}"))
    cases = split_into_sections(discover(tmp_path)).cases
    assert len(cases) == 12
    for page, case in enumerate(cases):
        pixels = read_first_file(case)
        assert (pixels.array == VOLUME[page]).all()
        assert pixels.spacing_mm == pytest.approx((0.75, 0.5))
        assert (read_annotation(case.mask, case.image).codes == labels[page]).all()
    assert {scan_case(case).error for case in cases} == {None}


def test_a_volume_whose_mask_lies_elsewhere_is_not_cut(tmp_path):
    for kind, place in (("images", 0), ("masks", 5)):
        (tmp_path / kind).mkdir()
        image = SimpleITK.GetImageFromArray(VOLUME)
        image.SetOrigin((place, 1, 1))
        SimpleITK.WriteImage(image, str(tmp_path / kind / "a.nii.gz"))
    assert [case.page for case in split_into_sections(discover(tmp_path)).cases] == [None]


def test_sections_are_measured_one_by_one(put, tmp_path):
    put("train-volume.tif", VOLUME)
    put("train-labels.tif", (VOLUME > 128).astype(np.uint8) * 255)
    measured = [scan_case(case) for case in split_into_sections(discover(tmp_path)).cases]
    assert {(stats.error, stats.channels, stats.shape) for stats in measured} == {(None, 1, (8, 8))}
    assert [stats.low for stats in measured] == [float(page.min()) for page in VOLUME]
    assert len({stats.pixel_hash for stats in measured}) == len(VOLUME)


def test_several_volumes_remain_volumes(put, tmp_path):
    for name in "ab":
        put(f"{name}.tif", VOLUME)
        put(f"{name}_mask.tif", VOLUME // 128)
    assert [case.page for case in split_into_sections(discover(tmp_path)).cases] == [None] * 2


@pytest.mark.parametrize("mask", [VOLUME[:3], VOLUME[0]])
def test_volume_with_a_mask_of_another_size_is_not_cut(put, tmp_path, mask):
    put("a.tif", VOLUME)
    put("a_mask.tif", mask)
    assert [case.page for case in split_into_sections(discover(tmp_path)).cases] == [None]
