import zlib
from pathlib import Path

import numpy as np

from ushape.data.duplicates import Duplicates
from ushape.data.grouping import find_groups, merge_groups_sharing_duplicates
from ushape.types import Case


def cases(*ids):
    return [Case(id=name, image=Path(name)) for name in ids]


def unlike(case):
    """Every picture another one."""
    return np.random.default_rng(zlib.crc32(case.id.encode())).standard_normal((8, 8))


def alike(case):
    """A picture that changes slowly with the number."""
    number = int(case.id.split("_")[-1])
    y, x = np.mgrid[:8, :8] / 8
    return np.sin(6 * x + 0.35 * number) + np.cos(6 * y - 0.2 * number)


def infer(cases, thumbnail_of, option=None):
    return find_groups(cases, {case.id: thumbnail_of(case) for case in cases}, option)


def groups_of(grouping):
    return [case.group for case in grouping.cases]


def test_a_single_image_is_its_own_group():
    found = infer(cases("x"), unlike)
    assert groups_of(found) == ["x"]
    assert "the only image is its own group" in found.text


def test_groups_by_folder():
    found = infer(cases("p1/1", "p1/2", "p2/1", "p2/2", "p3/1", "p3/2"), unlike)
    assert found.kind == "folder"
    assert groups_of(found) == ["p1", "p1", "p2", "p2", "p3", "p3"]
    assert "3, by folder (2 images each)" in found.text
    assert "--groups" in found.description


def test_groups_by_the_beginning_of_the_names():
    found = infer(cases("car1_01", "car1_02", "car2_01", "car2_02", "car2_03", "car3_01"), unlike)
    assert found.kind == "prefix"
    assert groups_of(found) == ["car1"] * 2 + ["car2"] * 3 + ["car3"]
    assert "1 to 3 images each" in found.text
    assert "car2 for car2_01 and car2_02" in found.text


def test_groups_of_two_are_divided_into_blocks_with_a_warning():
    ids = [f"d{group}_{number:03d}" for group in (1, 2) for number in range(12)]
    found = infer(cases(*ids), unlike)
    assert (found.kind, found.is_stated) == ("blocks", False)
    assert len(set(groups_of(found))) == 8
    blocks = {}
    for case in found.cases:
        blocks.setdefault(case.group, []).append(ids.index(case.id))
    for members in blocks.values():
        assert members == list(range(members[0], members[0] + 3))
    assert "d1, d2" in found.warning
    assert "--groups" in found.warning


def test_groups_of_two_slides_are_divided_by_a_smaller_unit_with_a_warning():
    ids = [f"slide{s}_x{x}_y{y}" for s in (1, 2) for x in range(3) for y in range(2)]
    found = infer(cases(*ids), unlike)
    assert groups_of(found) == [name.rpartition("_")[0] for name in ids]
    assert "slide1, slide2" in found.warning


def test_kinds_of_images_are_not_groups():
    ids = [f"{kind}_{number:02d}" for kind in ("control", "treated") for number in range(20)]
    found = infer(cases(*ids), unlike)
    assert (found.kind, len(set(groups_of(found)))) == ("single", 40)
    assert "control, treated are regarded as kinds of images" in found.text


def test_videos_are_groups_if_their_images_are_alike():
    ids = [f"{video}/{number:05d}" for video in ("bear", "camel", "drift") for number in range(8)]

    def scene(case):
        rng = np.random.default_rng(zlib.crc32(case.id[:3].encode()))
        return rng.standard_normal((8, 8)) + 0.3 * unlike(case)

    assert infer(cases(*ids), unlike).kind == "single"
    found = infer(cases(*ids), scene)
    assert set(groups_of(found)) == {"bear", "camel", "drift"}


def test_images_of_close_numbers_are_a_group_if_they_are_alike():
    """Exposures of one object share a counter; the exposure is not the group."""
    members = cases(*(f"exp{e}_num_{1000 * n + 7 * e}" for n in range(1, 13) for e in (1, 2, 3)))

    def exposure(case):
        rng = np.random.default_rng(int(case.id.rpartition("_")[2]) // 1000)
        return rng.standard_normal((8, 8)) + 0.3 * unlike(case)

    found = infer(members, exposure)
    assert [len(set(groups_of(found)[n : n + 3])) for n in range(0, 36, 3)] == [1] * 12
    assert len(set(groups_of(found))) == 12
    assert "exp1, exp2, exp3 are regarded as kinds of images" in found.description
    assert "--groups" in found.description
    assert set(groups_of(infer(members, unlike))) == {"exp1", "exp2", "exp3"}
    renamed = cases(*(case.id.replace("exp", "patient") for case in members))
    assert set(groups_of(infer(renamed, exposure))) == {"patient1", "patient2", "patient3"}


def test_grouping_of_different_numbered_images_is_single():
    found = infer(cases(*(f"img_{n:03d}" for n in range(30))), unlike)
    assert found.kind == "single"
    assert len(set(groups_of(found))) == 30


def test_images_numbered_in_equal_steps_are_split_by_blocks_with_a_warning():
    found = infer(cases(*(f"frame_{n:04d}" for n in range(0, 240, 10))), unlike)
    assert (found.kind, found.noun) == ("blocks", "blocks of images")
    assert groups_of(found)[:4] == ["(frame_0000 to frame_0020)"] * 3 + [
        "(frame_0030 to frame_0050)"
    ]
    assert len(set(groups_of(found))) == 8
    assert "numbered in equal steps" in found.warning
    assert "--groups" in found.warning


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
    assert found.description == "Groups: 2, as defined by the dataset (2 images each)."


def test_groups_of_few_images_are_kept():
    found = infer(cases("p1/a", "p1/b", "p2/b", "p3/c"), unlike)
    assert groups_of(found) == ["p1", "p1", "p2", "p3"]


def test_option_states_the_groups():
    own = cases("a_01_x", "a_02_x", "b_01_x", "b_02_x")
    found = infer(own, unlike, r"_(\d+)_")
    assert (groups_of(found), found.kind, found.is_stated) == (["01", "02"] * 2, "option", True)
    assert "--groups" not in found.description
    assert groups_of(infer(own, unlike, "[ab]")) == ["a", "a", "b", "b"]
    single = infer(own, unlike, "none")
    assert (single.kind, single.is_stated, single.noun) == ("single", True, "images")
    assert len(set(groups_of(single))) == 4


def test_option_takes_precedence_over_a_table():
    stated = [
        Case(id=f"{n}", image=Path("x"), group="g", metadata={"scanner": "ab"[n % 2]})
        for n in range(4)
    ]
    assert groups_of(infer(stated, unlike, "scanner")) == ["a", "b", "a", "b"]
    assert groups_of(infer(stated, unlike, "Group")) == ["g"] * 4


def test_groups_that_a_stated_split_separates_are_divided_with_a_warning():
    both = [*given("train", "p1_1", "p1_2", "p2_1"), *given("test", "p1_3", "p3_1", "p3_2")]
    found = infer(both, unlike)
    assert groups_of(found) == ["p1 (train)"] * 2 + ["p2", "p1 (test)", "p3", "p3"]
    assert "separates 1 group" in found.warning
    again = [
        *given("train", *(f"p{n}_{i}" for n in range(3) for i in range(2))),
        *given("test", *(f"p{n}_{i}" for n in range(3) for i in range(2))),
    ]
    assert infer(again, unlike).warning == ""  # The numbers of each part begin anew.


def near(first, second):
    return Duplicates(first, second, is_exact=False)


def test_near_duplicates_of_all_groups_by_name_make_each_image_a_group():
    ids = [f"exp{group}_num_{number}" for number in range(6) for group in (1, 2, 3)]
    found = infer(cases(*ids), unlike)
    pairs = [near(f"exp1_num_{n}", f"exp{n % 2 + 2}_num_{n}") for n in range(6)]
    merged = merge_groups_sharing_duplicates(found, pairs)
    assert len(set(groups_of(merged))) == 12
    assert "exp1, exp2, exp3" in merged.text


def test_near_duplicates_never_leave_fewer_than_three_groups():
    found = infer(cases("a", "b", "c", "d"), unlike)
    pairs = [near("a", "b"), near("b", "c"), Duplicates("c", "d", is_exact=True)]
    assert groups_of(merge_groups_sharing_duplicates(found, pairs)) == ["a", "b", "c", "c"]


def test_near_duplicates_in_different_parts_of_a_stated_split_are_not_merged():
    found = infer([*given("train", "a", "b", "c"), *given("test", "d", "e")], unlike)
    pairs = [near("train/a", "test/d"), near("train/a", "train/b")]
    merged = groups_of(merge_groups_sharing_duplicates(found, pairs))
    assert merged == ["train/a", "train/a", "train/c", "test/d", "test/e"]


def given(split, *ids):
    return [Case(id=f"{split}/{name}", image=Path("x"), split=split) for name in ids]


def test_grouping_ignores_folders_that_state_the_split():
    both = [*given("train", "p1/1", "p1/2", "p3/1"), *given("test", "p2/1", "p2/2")]
    assert groups_of(infer(both, unlike)) == ["p1", "p1", "p3", "p2", "p2"]
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
