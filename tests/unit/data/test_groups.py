from pathlib import Path

import numpy as np

from ushape.data.groups import infer_groups
from ushape.types import Case


def cases(*ids):
    return [Case(id=name, image=Path(name)) for name in ids]


def unlike(case):
    """Every picture another one."""
    return np.random.default_rng(abs(hash(case.id)) % 2**32).standard_normal((8, 8))


def alike(case):
    """A picture that changes slowly with the number."""
    number = int(case.id.split("_")[-1])
    y, x = np.mgrid[:8, :8] / 8
    return np.sin(6 * x + 0.35 * number) + np.cos(6 * y - 0.2 * number)


def groups_of(grouping):
    return [case.group for case in grouping.cases]


def test_patients_by_folder():
    found = infer_groups(cases("p1/1", "p1/2", "p2/1", "p2/2"), unlike)
    assert found.kind == "folder"
    assert groups_of(found) == ["p1", "p1", "p2", "p2"]
    assert "2, by folder (2 images each)" in found.text


def test_cars_by_the_name_before_the_number():
    found = infer_groups(cases("car1_01", "car1_02", "car2_01", "car2_02", "car2_03"), unlike)
    assert found.kind == "prefix"
    assert groups_of(found) == ["car1"] * 2 + ["car2"] * 3
    assert "2 to 3 images each" in found.text


def test_numbered_images_that_differ_are_single():
    found = infer_groups(cases(*(f"img_{n:03d}" for n in range(30))), unlike)
    assert found.kind == "single"
    assert len(set(groups_of(found))) == 30


def test_sections_that_look_like_their_neighbours_are_a_stack_in_blocks():
    found = infer_groups(cases(*(f"sec_{n}" for n in range(30))), alike)
    assert found.kind == "stack"
    blocks = {}
    for case in found.cases:
        blocks.setdefault(case.group, []).append(int(case.id[4:]))
    assert len(blocks) == 10
    for members in blocks.values():
        assert members == list(range(members[0], members[0] + 3))
    assert [min(blocks[group]) for group in sorted(blocks)] == list(range(0, 30, 3))


def test_names_without_numbers_are_single():
    assert infer_groups(cases("anna", "berta", "clara"), unlike).kind == "single"
