"""Time points of NIfTI files as cases."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest
import SimpleITK

from ushape import io
from ushape.data.checks.images import find_unpaired
from ushape.data.discovery import discover
from ushape.data.scan import scan_dataset
from ushape.data.time_points import split_into_time_points
from ushape.io.annotations import read_annotation
from ushape.labels import LabelConfig

RNG = np.random.default_rng(0)


def save(path, array, origin=(1, 2, 3, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetOrigin(origin[: array.ndim])
    image.SetSpacing((1, 1, 4, 1)[: array.ndim])
    SimpleITK.WriteImage(image, str(path))


def masks_in_time(times=3):
    """Returns a mask whose object moves from one time point to the next."""
    masks = np.zeros((times, 4, 12, 10), np.uint8)
    for time in range(times):
        masks[time, 1:3, 2 + time : 7 + time, 3:8] = 1
    return masks


def add(folder, name, masks, times=None):
    times = len(masks) if times is None else times
    shape = (times, *masks.shape[-3:]) if times > 1 else masks.shape[-3:]
    save(folder / "images" / f"{name}.nii.gz", RNG.normal(size=shape).astype(np.float32))
    save(folder / "masks" / f"{name}.nii.gz", masks)


def test_each_time_point_with_a_mask_is_a_case(tmp_path):
    for name in ("anna", "berta"):
        add(tmp_path, name, masks_in_time())
    found = split_into_time_points(discover(tmp_path))
    assert [case.id for case in found.cases] == [
        f"{n}/{t}" for n in ("anna", "berta") for t in "123"
    ]
    assert "each of the 6 time points of 2 files" in found.layout
    for case, expected in zip(found.cases, [*masks_in_time(), *masks_in_time()], strict=True):
        assert (read_annotation(case.mask, case.image).codes == expected).all()


def test_time_points_of_a_file_are_in_one_group(tmp_path):
    names = ("anna", "berta", "carla", "dora")
    for name in names:
        add(tmp_path, name, masks_in_time(12))
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    groups = {}
    for case in stats.grouping.cases:
        groups.setdefault(case.group, set()).add(case.id.partition("/")[0])
    assert sorted(map(tuple, groups.values())) == [(name,) for name in names]
    assert stats.grouping.text == "4, by the files of the time points (12 images each)"
    assert {one.shape for one in stats.readable} == {(4, 12, 10)}
    assert {one.channels for one in stats.readable} == {1}


def test_a_single_file_is_divided_into_blocks_of_time_points(tmp_path):
    add(tmp_path, "a", masks_in_time(6))
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    assert stats.grouping.noun == "blocks of time points"
    assert "6 neighboring time points" in stats.grouping.text


def test_files_of_a_patient_stay_together(tmp_path):
    for name in ("p1_rest", "p1_stress", "p2_rest", "p2_stress", "p3_rest", "p3_stress"):
        add(tmp_path, name, masks_in_time())
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    of_group = {}
    for case in stats.grouping.cases:
        of_group.setdefault(case.group, set()).add(case.id[:2])
    assert sorted(map(tuple, of_group.values())) == [("p1",), ("p2",), ("p3",)]
    assert "time points of a file are in one group" in stats.grouping.text


def test_masks_are_placed_on_the_grid_of_their_image(tmp_path):
    masks = masks_in_time()
    save(tmp_path / "images" / "a.nii.gz", RNG.normal(size=masks.shape).astype(np.float32))
    save(tmp_path / "masks" / "a.nii.gz", masks[:, 1:], origin=(1, 2, 7, 0))
    case = split_into_time_points(discover(tmp_path)).cases[2]
    mask = read_annotation(case.mask, case.image)
    assert (mask.codes[1:] == masks[2, 1:]).all()
    assert mask.remarks == {"cropped"}


@pytest.mark.parametrize("kind", ["one mask", "classes", "copies", "other number"])
def test_other_fourth_axes_are_not_time(kind, tmp_path):
    masks = masks_in_time()
    if kind == "one mask":
        add(tmp_path, "a", masks[0], times=3)
    elif kind == "classes":
        add(tmp_path, "a", np.stack([masks[0], 1 - masks[0]]))
    elif kind == "copies":
        add(tmp_path, "a", np.stack([masks[0]] * 3))
    else:
        add(tmp_path, "a", masks, times=4)
    listing = discover(tmp_path)
    assert split_into_time_points(listing) == listing


def test_single_volumes_beside_series_stay_cases(tmp_path):
    add(tmp_path, "a", masks_in_time())
    add(tmp_path, "b", masks_in_time()[0], times=1)
    found = split_into_time_points(discover(tmp_path))
    assert [case.id for case in found.cases] == ["a/1", "a/2", "a/3", "b"]
    assert [case.page for case in found.cases] == [0, 1, 2, None]


def test_one_file_that_shows_time_decides_for_all(tmp_path):
    still = np.stack([masks_in_time()[0]] * 3)
    add(tmp_path, "a", still)
    add(tmp_path, "b", masks_in_time())
    found = split_into_time_points(discover(tmp_path))
    assert [case.id for case in found.cases] == [f"{n}/{t}" for n in "ab" for t in "123"]


def test_what_the_fourth_axis_is_taken_for_is_noted_and_can_be_stated(tmp_path):
    add(tmp_path, "a", masks_in_time())
    listing = discover(tmp_path)
    assert "labels.time_points=false" in split_into_time_points(listing).notes[-1]
    assert split_into_time_points(listing, is_time=True).notes == listing.notes
    assert split_into_time_points(listing, is_time=False) is listing
    still = np.stack([masks_in_time()[0]] * 3)
    add(tmp_path, "a", still)
    assert len(split_into_time_points(listing, is_time=True).cases) == 3


def test_the_note_is_a_check_of_its_own(tmp_path):
    add(tmp_path, "a", masks_in_time())
    stats = scan_dataset(tmp_path, None, LabelConfig(), workers=1)
    assert [finding.check for finding in find_unpaired(stats)] == ["time_points"]


def test_a_file_in_time_is_unpacked_once_for_several_threads(tmp_path, monkeypatch):
    add(tmp_path, "a", masks_in_time(6))
    read, paths = io._read, []

    def slow_read(path):
        paths.append(path)
        sleep(0.01)
        return read(path)

    monkeypatch.setattr(io, "_read", slow_read)
    case = split_into_time_points(discover(tmp_path), is_time=True).cases[0]
    files = [case.image, case.mask.path] * 6
    numbers = [number for number in range(6) for _ in "ab"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(io.read_page, files, numbers))
    assert sorted(paths) == sorted(files[:2])
    assert [int(one.array.sum()) for one in found[1::2]] == [50] * 6
    io.read_page(case.image, 0)
    assert len(paths) == 3  # The memory was freed after the last one.
