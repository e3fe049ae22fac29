"""Groups of images without masks."""

import pytest

from ushape.studio.relatives import groups_of_others, value_of_folder, values_by_folder

PATIENTS = {f"images/p{p}/{n}": f"P{p}" for p in range(3) for n in range(2)}
NAMES = {f"p{p}_{n}": f"P{p}" for p in range(3) for n in range(2)}
BLOCKS = {f"s{n}": f"block {n // 4}" for n in (0, 1, 3, 4, 5, 7, 8, 9, 11)}
SINGLES = {f"images/{n}": f"{n}" for n in "aceg"}


@pytest.mark.parametrize(
    ("known", "name", "group"),
    [
        (PATIENTS, "images/p1/9", "P1"),
        (PATIENTS, "images/p1/deep/9", "P1"),
        (PATIENTS, "images/p7/0", ""),
        (PATIENTS, "0", ""),
        (NAMES, "p2_9", "P2"),
        (NAMES, "p7_0", ""),
        (BLOCKS, "s2", "block 0"),
        (BLOCKS, "s10", "block 2"),
        (SINGLES, "images/d", ""),
        ({"a/0": "x", "a/1": "x"}, "a/2", ""),
        ({}, "a", ""),
    ],
)
def test_further_image_has_the_group_that_folders_or_names_show(known, name, group):
    assert groups_of_others(known, [name]) == ({name: group} if group else {})


def test_value_of_a_folder_is_that_of_the_first_level_with_one_value_each():
    folders = values_by_folder({"test/images/a": "test", "train/images/b": "train"})
    assert value_of_folder("test/images/c", folders) == "test"
    assert value_of_folder("new/images/c", folders) == ""
    assert values_by_folder({"a/x": "1", "a/y": "2", "b/z": "1"}) == {}
