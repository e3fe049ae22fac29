from pathlib import Path

import numpy as np

from ushape.data.grouping import infer_groups
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


def infer(cases, thumbnail_of):
    return infer_groups(cases, {case.id: thumbnail_of(case) for case in cases})


def groups_of(grouping):
    return [case.group for case in grouping.cases]


def test_groups_by_folder():
    found = infer(cases("p1/1", "p1/2", "p2/1", "p2/2"), unlike)
    assert found.kind == "folder"
    assert groups_of(found) == ["p1", "p1", "p2", "p2"]
    assert "2, by folder (2 images each)" in found.text


def test_groups_by_the_name_before_the_number():
    found = infer(cases("car1_01", "car1_02", "car2_01", "car2_02", "car2_03"), unlike)
    assert found.kind == "prefix"
    assert groups_of(found) == ["car1"] * 2 + ["car2"] * 3
    assert "2 to 3 images each" in found.text


def test_grouping_of_different_numbered_images_is_single():
    found = infer(cases(*(f"img_{n:03d}" for n in range(30))), unlike)
    assert found.kind == "single"
    assert len(set(groups_of(found))) == 30


def test_grouping_of_similar_sections_is_a_stack_in_blocks():
    found = infer(cases(*(f"sec_{n}" for n in range(30))), alike)
    assert found.kind == "stack"
    blocks = {}
    for case in found.cases:
        blocks.setdefault(case.group, []).append(int(case.id[4:]))
    assert len(blocks) == 10
    for members in blocks.values():
        assert members == list(range(members[0], members[0] + 3))
    assert [min(blocks[group]) for group in sorted(blocks)] == list(range(0, 30, 3))


def test_grouping_of_names_without_numbers_is_single():
    assert infer(cases("anna", "berta", "clara"), unlike).kind == "single"


def test_groups_of_a_table_take_precedence():
    stated = [Case(id=f"p1/{n}", image=Path("x"), group="ab"[n % 2]) for n in range(4)]
    found = infer(stated, unlike)
    assert (found.kind, groups_of(found)) == ("table", ["a", "b", "a", "b"])
    assert found.text == "2, as stated (2 images each)"


def test_grouping_text_names_the_rules_that_do_not_fit():
    found = infer(cases(*(f"img_{n:03d}" for n in range(5))), unlike)
    assert (
        "by the name before the last number would put all of them in one group (img)" in found.text
    )
    found = infer(cases("p1/a", "p2/b", "p3/c"), unlike)
    assert "neither folders nor file names" in found.text
    found = infer(cases("p1/a", "p1/b", "p2/b", "p3/c"), unlike)
    assert "by folder would give 3 groups, most with a single image" in found.text
    assert "(" not in infer(cases("anna", "berta"), unlike).text


def given(split, *ids):
    return [Case(id=f"{split}/{name}", image=Path("x"), split=split) for name in ids]


def test_grouping_ignores_folders_that_state_the_split():
    both = [*given("train", "p1/1", "p1/2"), *given("test", "p2/1", "p2/2")]
    assert groups_of(infer(both, unlike)) == ["p1", "p1", "p2", "p2"]
    both = [*given("train", "car1_1", "car2_1", "car2_2"), *given("test", "car3_1", "car3_2")]
    assert infer(both, unlike).kind == "single"
    both = [*given("train", "img_1", "img_2"), *given("test", "img_3", "img_4")]
    assert infer(both, unlike).kind == "single"


def test_grouping_cuts_each_stated_part_of_a_stack():
    train = given("train", *(f"sec_{n}" for n in range(20)))
    found = infer([*train, *given("test", *(f"sec_{n}" for n in range(20, 29)))], alike)
    assert found.kind == "stack"
    parts = {}
    for case in found.cases:
        parts.setdefault(case.group, set()).add(case.split)
    assert all(len(own) == 1 for own in parts.values())
    assert "tears" not in found.text


def test_grouping_text_names_a_split_of_neighboring_sections():
    mixed = [
        Case(id=f"{part}/sec_{n}", image=Path("x"), split=part)
        for n in range(30)
        for part in ["test" if n % 5 == 4 else "train"]
    ]
    found = infer(mixed, alike)
    assert "the given split separates 11 pairs of neighbors" in found.text


def test_groups_by_dicom_patient(tmp_path):
    import pydicom

    cases = []
    for index, patient in enumerate(["anna", "anna", "ben"]):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = pydicom.uid.CTImageStorage
        data.SOPInstanceUID = pydicom.uid.generate_uid()
        data.PatientID = patient
        path = tmp_path / f"x{index}.dcm"
        data.save_as(path, enforce_file_format=True)
        cases.append(Case(id=path.stem, image=path))
    found = infer(cases, lambda case: np.zeros((4, 4)))
    assert [case.group for case in found.cases] == ["anna", "anna", "ben"]
    assert "PatientID" in found.text
