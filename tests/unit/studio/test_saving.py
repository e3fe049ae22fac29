"""Annotations are saved in the encoding of the user's masks, and read back as they were."""

import json
import os
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from codes import raises_code
from studio_client import SHAPE, write_image, write_mask
from ushape import io
from ushape.data.case_stats import scan_case
from ushape.data.discovery import discover
from ushape.data.mask_values import interpret_masks
from ushape.errors import DataError
from ushape.labels import IGNORE, LabelSpace
from ushape.studio import saving
from ushape.studio.annotations import NO_OBJECT
from ushape.studio.commands import data_settings
from ushape.studio.encoding import MaskTarget
from ushape.studio.saving import Saver, keep_original
from ushape.types import MaskEncoding

GRAY = np.zeros(SHAPE, dtype=np.uint8)


def blocks(*values, dtype=np.uint8):
    """A mask with a block of each value, on a background of 0."""
    mask = np.zeros(SHAPE, dtype=dtype)
    for number, value in enumerate(values):
        mask[4:12, 2 + 8 * number : 8 + 8 * number] = value
    return mask


def palette_image(mask):
    image = Image.fromarray(mask, mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255, *[9] * 20])
    return image


def colors(mask):
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=np.uint8)
    return Image.fromarray(table[mask])


ENCODINGS = {
    "0 and 255": (lambda m: Image.fromarray((m > 0) * np.uint8(255)), ".png", 1),
    "0 and 1": (lambda m: Image.fromarray((m > 0) * np.uint8(1)), ".png", 1),
    "1 bit": (lambda m: Image.fromarray(m > 0), ".png", 1),
    "class values": (lambda m: Image.fromarray(m), ".png", 2),
    "class values in TIFF": (lambda m: Image.fromarray(m), ".tif", 2),
    "distant values": (lambda m: Image.fromarray(m * np.uint8(120)), ".png", 2),
    "palette": (palette_image, ".png", 2),
    "colors": (colors, ".png", 2),
}


@pytest.fixture(params=ENCODINGS)
def encoded(request, tmp_path):
    """A data folder in one of the encodings, its number of classes and the truth."""
    encode, suffix, count = ENCODINGS[request.param]
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.png", number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        encode(blocks(*range(1, count + 1))).save(tmp_path / "masks" / f"{number}{suffix}")
    return tmp_path, count


def test_corrected_mask_has_the_users_encoding(encoded, open_studio):
    folder, count = encoded
    client = open_studio(folder)
    project, image_id = client.studio.project, client.ids[0]
    before = io.read_mask(project.image(image_id).mask)
    client.post("/api/settings", {"save": "replace"})
    assert client.edit(image_id, "brush", [20, 20], radius=3, **{"class": count}).status_code == 200
    labels = project.annotation(image_id).read([(0, size) for size in (1, *SHAPE)])[0]
    project.saver.flush()
    after = io.read_mask(project.image(image_id).mask)
    assert (after.encoding.kind, after.encoding.dtype) == (
        before.encoding.kind,
        before.encoding.dtype,
    )
    assert (project.listing.meaning.space.classes_of(after.codes, after.encoding) == labels).all()
    assert (before.codes == after.codes).mean() > 0.9
    # The other masks still have the same meaning together with the corrected one.
    assert len(discover(folder).cases) == 3


def test_partly_annotated_mask_has_a_value_that_no_class_has(encoded, open_studio):
    client = open_studio(encoded[0])
    project, image_id = client.studio.project, client.ids[0]
    client.post("/api/settings", {"save": "replace"})
    client.edit(image_id, "unmark", [5, 5], radius=4)
    labels = project.annotation(image_id).read([(0, size) for size in (1, *SHAPE)])[0]
    assert (labels == IGNORE).any()
    project.saver.flush()
    assert project.saver.error is None
    after = io.read_mask(project.image(image_id).mask)
    ignore = project.target.label_config(has_partial=True).ignore
    assert ignore is not None
    cases = [scan_case(case) for case in discover(encoded[0]).cases]
    meaning = interpret_masks(cases, project.target.label_config(has_partial=True))
    assert meaning.error is None
    assert (meaning.space.classes_of(after.codes, after.encoding) == labels).all()
    known = labels != IGNORE
    space = project.listing.meaning.space
    assert (space.classes_of(after.codes[known], after.encoding) == labels[known]).all()


def test_partly_annotated_mask_is_read_together_with_those_of_other_encodings(
    tmp_path, open_studio
):
    # 1 bit and gray masks are compared by color: white is the foreground of both.
    for number in range(4):
        write_image(tmp_path / "images" / f"{number}.png", number)
        mask = blocks(1) * np.uint8(255)
        image = Image.fromarray(mask > 0 if number < 3 else mask)
        (tmp_path / "masks").mkdir(exist_ok=True)
        image.save(tmp_path / "masks" / f"{number}.png")
    client = open_studio(tmp_path)
    project, first = client.studio.project, client.ids[0]
    client.post("/api/settings", {"save": "replace"})
    client.edit(first, "unmark", [20, 20], radius=4)
    labels = project.annotation(first).read([(0, size) for size in (1, *SHAPE)])[0]
    project.saver.flush()
    cases = [scan_case(case) for case in discover(tmp_path).cases]
    meaning = interpret_masks(cases, project.target.label_config(has_partial=True))
    assert meaning.error is None
    mask = io.read_mask(project.image(first).mask)
    assert (meaning.space.classes_of(mask.codes, mask.encoding) == labels).all()
    assert (labels == IGNORE).any()


def test_new_mask_of_data_without_masks_is_a_palette_image(images, open_studio):
    client = open_studio(images)
    project, image_id = client.studio.project, client.ids[1]
    client.edit(image_id, "brush", [10, 10], radius=3)
    client.post("/api/settings", {"classes": [{"name": "nucleus", "color": "#00ff00"}]})
    client.edit(image_id, "brush", [20, 10], radius=3, **{"class": 2})
    project.saver.flush()
    path = images / "masks" / "1.png"
    mask = io.read_mask(path)
    assert mask.encoding.kind == "palette"
    assert set(np.unique(mask.codes)) == {1, 2, 255}
    assert (mask.codes[10, 10], mask.codes[10, 20], mask.codes[20, 1]) == (1, 2, 255)
    assert project.target.label_config(has_partial=project.masks.has_partial).ignore == 255


def test_new_mask_is_named_like_those_of_other_images(tmp_path, open_studio):
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png", ord(name))
    for name in ("a", "b"):
        write_mask(tmp_path / f"{name}_mask.png")
    client = open_studio(tmp_path)
    third = client.ids[2]
    client.edit(third, "background_rest")
    client.studio.project.saver.flush()
    assert (tmp_path / "c_mask.png").exists()
    assert len(discover(tmp_path).cases) == 3


@pytest.mark.parametrize(
    ("names", "pattern"),
    [("abc", "mask_{}"), ("abc", "{}_mask"), ("stk", "mask_{}"), ("1234", "seg1_{}")],
)
def test_new_mask_is_named_well_if_the_word_for_masks_contains_the_name_of_an_image(
    names, pattern, tmp_path, open_studio
):
    for name in names:
        write_image(tmp_path / f"{name}.png", ord(name))
    for name in names[:-2]:
        write_mask(tmp_path / f"{pattern.format(name)}.png")
    client = open_studio(tmp_path)
    for image_id in client.ids[-2:]:
        client.edit(image_id, "background_rest")
    client.studio.project.saver.flush()
    masks = {path.stem for path in tmp_path.rglob("*.png")} - {*names}
    assert masks == {pattern.format(name) for name in names}


def test_numbers_of_objects_are_saved_as_numbers(tmp_path, open_studio):
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.png", number)
        mask = np.zeros(SHAPE, dtype=np.uint16)
        for place in range(6):
            mask[2 + 3 * place : 4 + 3 * place, 2:12] = place + 1
        path = tmp_path / "masks" / f"{number}.tif"
        path.parent.mkdir(exist_ok=True)
        io.write_mask(path, mask, MaskEncoding(dtype="uint16", suffix=".tif"))
    (tmp_path / "ushape.yaml").write_text("labels.instances: true")
    client = open_studio(tmp_path)
    project, image_id = client.studio.project, client.ids[0]
    assert project.mode == "objects"
    client.post("/api/settings", {"save": "replace"})
    assert client.edit(image_id, "brush", [25, 10], radius=2).json()["objects"] == 7
    assert client.edit(image_id, "delete", [5, 2.5]).json()["objects"] == 6
    project.saver.flush()
    saved = io.read_mask(project.image(image_id).mask)
    assert saved.encoding.dtype == "uint16"
    assert set(np.unique(saved.codes)) == {0, 2, 3, 4, 5, 6, 7}


def test_object_ids_beside_a_negative_background_are_numbered_from_1(tmp_path, open_studio):
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.png", number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = blocks(1, 2, 3, dtype=np.int32) - 1  # The ids 0, 1 and 2 on -1.
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.tif")
    (tmp_path / "ushape.yaml").write_text("labels.instances: true")
    client = open_studio(tmp_path)
    project, first = client.studio.project, client.ids[0]
    assert project.mode == "objects"
    labels = project.annotation(first).read([(0, size) for size in (1, *SHAPE)])[0]
    assert (labels == blocks(1, 2, 3)).all()
    assert client.edit(first, "brush", [25, 20], radius=2).json()["objects"] == 4
    # A mask with the background 0 cannot replace one in which 0 is an object.
    assert io.read_mask(project.masks.for_training(first)).codes.max() == 4
    assert (
        io.read_mask(tmp_path / "masks" / "0.tif").codes == blocks(1, 2, 3).astype(int) - 1
    ).all()


def test_corrected_masks_are_separate_if_a_threshold_divides_the_values(tmp_path, open_studio):
    # With every value from 0 to 255, no value is left for a new class or for missing pixels.
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.png", number)
        smooth = ndimage.gaussian_filter(blocks(1) * 255.0, 1.2).astype(np.uint8)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(smooth).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "ushape.yaml").write_text("labels.threshold: 128")
    client = open_studio(tmp_path)
    project, first = client.studio.project, client.ids[0]
    before = (tmp_path / "masks" / "0.png").read_bytes()
    settings = {"save": "replace", "classes": [{"name": "border"}]}
    assert client.post("/api/settings", settings).status_code == 200
    client.edit(first, "brush", [24, 20], radius=2, **{"class": 2})
    client.edit(first, "unmark", [5, 20], radius=2)
    masks = [project.masks.for_training(image_id) for image_id in client.ids]
    assert (tmp_path / "masks" / "0.png").read_bytes() == before
    cases = [
        scan_case(replace(one.case, mask=mask))
        for one, mask in zip(project.images.values(), masks, strict=True)
    ]
    meaning = interpret_masks(cases, project.target.label_config(has_partial=True))
    assert meaning.error is None
    for image_id, path in zip(client.ids, masks, strict=True):
        mask = io.read_mask(path)
        labels = project.annotation(image_id).read([(0, size) for size in (1, *SHAPE)])[0]
        assert (meaning.space.classes_of(mask.codes, mask.encoding) == labels).all()
    assert data_settings(client.studio.project) == [
        *("--set", "split.test_fraction=0"),
        *("--set", "split.validation_fraction=0"),
    ]


@pytest.mark.parametrize(
    ("dtype", "ignore"), [("uint8", 65_535), ("uint16", 65_535), ("uint32", 2**31 - 1)]
)
def test_object_numbers_differ_from_the_value_of_missing_pixels(dtype, ignore):
    space = LabelSpace(values=(0, 1), names=("background", "object"), threshold=1)
    target = MaskTarget(space=space, encoding=MaskEncoding(dtype=dtype), are_objects=True)
    numbers = np.array([0, 1, 65_535, NO_OBJECT], dtype=np.uint32)
    if ignore == 65_535:
        with raises_code(DataError, "object_number_reserved"):
            target.codes_of(numbers)
        numbers[2] = 65_534
    codes, _ = target.codes_of(numbers)
    assert codes.tolist() == [*numbers[:3].tolist(), ignore]


def test_parts_of_a_mask_get_the_white_of_the_whole_mask():
    space = LabelSpace(values=(0, 1), names=("background", "cell"), colors=(0, 0xFFFFFF))
    target = MaskTarget(space=space, encoding=MaskEncoding(dtype="bool"))
    labels = np.array([[0, 1, 1], [0, IGNORE, 1]], dtype=np.uint8)
    whole, encoding = target.codes_of(labels)
    parts = [target.codes_of(row, encoding)[0] for row in labels]
    assert whole.max() == 255
    assert (np.stack(parts) == whole).all()


def test_masks_of_the_user_are_not_replaced_without_consent(pairs, open_studio):
    client = open_studio(pairs)
    path = pairs / "masks" / "0.png"
    before = path.read_bytes()
    client.edit(client.ids[0], "brush", [2, 2], radius=1)
    client.studio.project.saver.flush()
    assert path.read_bytes() == before
    state = client.get("/api/state").json()
    assert (state["project"]["needs_consent"], state["saved"]["pending"]) == (True, 1)
    client.post("/api/settings", {"save": "replace"})
    client.studio.project.saver.flush()
    assert path.read_bytes() != before
    kept = pairs / ".ushape_studio" / "masks_before_studio" / "masks" / "0.png"
    assert kept.read_bytes() == before


def test_separate_masks_leave_those_of_the_user(pairs, open_studio):
    client = open_studio(pairs)
    path = pairs / "masks" / "0.png"
    before = path.read_bytes()
    client.post("/api/settings", {"save": "separate"})
    client.edit(client.ids[0], "brush", [2, 2], radius=1)
    client.studio.project.saver.flush()
    assert path.read_bytes() == before
    separate = pairs / ".ushape_studio" / "masks_corrected" / "images" / "0.png"
    assert separate.exists()
    assert client.studio.project.masks.for_training(client.ids[0]) == separate
    assert len(discover(pairs).cases) == 3


def test_mask_that_another_program_changed_is_kept_before_it_is_replaced(images, open_studio):
    client = open_studio(images)
    path = images / "masks" / "0.png"
    client.edit(client.ids[0], "brush", [2, 2], radius=1)
    client.studio.project.saver.flush()
    write_mask(path)
    other = path.read_bytes()
    client.edit(client.ids[0], "brush", [9, 9], radius=1)
    client.studio.project.saver.flush()
    assert path.read_bytes() == other
    client.post("/api/settings", {"save": "replace"})
    client.studio.project.saver.flush()
    kept = images / ".ushape_studio" / "masks_before_studio" / "masks" / "0.png"
    assert kept.read_bytes() == other


def test_second_copy_of_a_mask_gets_another_name(tmp_path):
    mask = write_mask(tmp_path / "masks" / "a.png")
    first = keep_original(mask, tmp_path / "kept", tmp_path)
    assert keep_original(mask, tmp_path / "kept", tmp_path) == first
    write_mask(mask, 3)
    second = keep_original(mask, tmp_path / "kept", tmp_path)
    assert (first.name, second.name) == ("a.png", "a-2.png")


def test_unsaved_edits_of_a_killed_server_are_saved_by_the_next(images, open_studio, tmp_path):
    client = open_studio(images)
    client.edit(client.ids[0], "brush", [2, 2], radius=1)
    client.studio.project.saver.flush()
    client.studio.close()
    saved = images / ".ushape_studio" / "saved.json"
    (images / "masks" / "0.png").unlink()
    saved.write_text(json.dumps({}))  # As if the server had been killed before it saved.
    again = open_studio(images)
    again.studio.project.saver.flush()
    assert (images / "masks" / "0.png").exists()


def test_reopened_project_knows_the_meaning_of_its_own_masks(encoded, open_studio):
    first = open_studio(encoded[0])
    first.post("/api/settings", {"save": "replace", "classes": [{"name": "another"}]})
    for image_id in first.ids:
        first.edit(image_id, "unmark", [5, 5], radius=4)
    before = first.studio.project.target
    first.studio.close()
    second = open_studio(encoded[0])
    project = second.studio.project
    assert project.target == before
    assert second.edit(second.ids[0], "brush", [9, 9], radius=2).json()["revision"] == 2
    project.saver.flush()
    assert project.saver.error is None


def test_project_without_masks_is_reopened_after_the_first_strokes(images, open_studio):
    first = open_studio(images)
    first.edit(first.ids[0], "brush", [5, 5], radius=2)
    first.edit(first.ids[0], "brush", [15, 15], radius=2, **{"class": 0})
    first.studio.close()
    second = open_studio(images)
    found = second.get("/api/images").json()
    assert [one["has_mask"] for one in found] == [True, False, False]
    assert [one["annotated"] > 0 for one in found] == [True, False, False]
    assert second.studio.project.target == first.studio.project.target


def test_ambiguous_masks_are_refused_with_the_file_that_settles_it(tmp_path, open_studio):
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.png", number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = np.full(SHAPE, 255, dtype=np.uint8)
        mask[2:8, 2:8], mask[12:18, 12:18] = 0, 1
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    with raises_code(DataError, "ambiguous_white") as caught:
        open_studio(tmp_path)
    assert "ushape.yaml" in caught.value.hint
    (tmp_path / "ushape.yaml").write_text("labels.ignore: 255")
    client = open_studio(tmp_path)
    assert client.studio.project.annotation(client.ids[0]).annotated < 1


def test_new_masks_of_volumes_are_volumes(tmp_path, open_studio):
    (tmp_path / "images").mkdir()
    volume = np.random.default_rng(0).integers(0, 256, (5, 20, 30), dtype=np.uint8)
    for number in range(2):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", volume, photometric="minisblack")
    client = open_studio(tmp_path)
    assert client.edit(client.ids[0], "brush", [8, 3], plane="y", index=4, radius=1).json()["box"]
    client.studio.project.saver.flush()
    codes = io.read_mask(tmp_path / "masks" / "0.tif").codes
    assert codes.shape == volume.shape
    assert (codes[3, 4, 8], codes[3, 5, 8]) == (1, 255)


def test_moved_data_folder_keeps_its_annotations(pairs, open_studio):
    first = open_studio(pairs)
    first.post("/api/settings", {"save": "replace"})
    first.edit(first.ids[0], "brush", [2, 2], radius=1)
    first.studio.close()
    moved = pairs.rename(pairs.with_name("moved"))
    second = open_studio(moved)
    assert second.ids == first.ids
    assert second.studio.project.annotation(second.ids[0]).can_undo
    second.edit(second.ids[0], "brush", [9, 9], radius=1)
    second.studio.project.saver.flush()
    kept = moved / ".ushape_studio" / "masks_before_studio" / "masks"
    assert [path.name for path in kept.iterdir()] == ["0.png"]


def test_mask_that_the_studio_has_written_is_written_again_after_it_is_opened_again(
    images, open_studio
):
    first = open_studio(images)
    first.edit(first.ids[0], "brush", [2, 2], radius=1)
    first.studio.close()
    second = open_studio(images)
    second.post("/api/settings", {"save": "separate"})
    second.edit(second.ids[0], "brush", [9, 9], radius=1)
    second.studio.project.saver.flush()
    assert io.read_mask(images / "masks" / "0.png").codes[9, 9] == 1
    assert not (images / ".ushape_studio" / "masks_corrected").exists()


def test_replaced_masks_that_another_program_changed_are_asked_about_again(pairs, open_studio):
    client = open_studio(pairs)
    project, path = client.studio.project, pairs / "masks" / "0.png"
    client.post("/api/settings", {"save": "replace"})
    client.edit(client.ids[0], "brush", [2, 2], radius=1)
    project.saver.flush()
    write_mask(path, 3)
    other = path.read_bytes()
    client.edit(client.ids[0], "brush", [22, 22], radius=1)
    project.saver.flush()
    assert path.read_bytes() == other
    assert client.get("/api/state").json()["project"]["needs_consent"]
    client.post("/api/settings", {"save": "replace"})
    project.saver.flush()
    assert path.read_bytes() != other
    assert not client.get("/api/state").json()["project"]["needs_consent"]
    kept = pairs / ".ushape_studio" / "masks_before_studio" / "masks"
    assert other in [one.read_bytes() for one in kept.iterdir()]


def test_separate_masks_leave_a_mask_that_another_program_has_added(images, open_studio):
    client = open_studio(images)
    project, image_id = client.studio.project, client.ids[0]
    client.post("/api/settings", {"save": "separate"})
    added = write_mask(images / "masks" / "0.png").read_bytes()
    client.edit(image_id, "brush", [2, 2], radius=1)
    project.saver.flush()
    assert (images / "masks" / "0.png").read_bytes() == added
    assert "masks_corrected" in project.masks.for_training(image_id).parts


def test_mask_that_was_deleted_is_written_again_for_a_training(images, open_studio):
    client = open_studio(images)
    project, image_id = client.studio.project, client.ids[0]
    client.edit(image_id, "brush", [2, 2], radius=1)
    project.saver.flush()
    (images / "masks" / "0.png").unlink()
    (images / "masks").rmdir()
    assert project.masks.for_training(image_id).exists()


@pytest.mark.parametrize(
    ("names", "annotated"),
    [
        (("top", "sub/one", "sub/two"), ("top", "sub/one")),
        (("train/images/1", "train/images/2", "test/images/1"), ("train/images/1",)),
        (("train/1", "train/2", "test/1"), ("train/1",)),
        (("p1/001", "p1/002", "p2/001"), ("p1/001", "p2/001")),
        (("images/p1/001", "images/p1/002", "images/p2/001"), ("images/p1/001",)),
        (("p1/images/001", "p2/images/001"), ("p1/images/001", "p2/images/001")),
        (("sub/1", "sub/2"), ("sub/2",)),
    ],
)
def test_new_masks_in_any_arrangement_of_folders_are_found_again(
    names, annotated, tmp_path, open_studio
):
    for number, name in enumerate(names):
        write_image(tmp_path / f"{name}.png", number)
    client = open_studio(tmp_path)
    paths = {one.id: one.case.image for one in client.studio.project.images.values()}
    chosen = [
        one for one, path in paths.items() if path in {tmp_path / f"{n}.png" for n in annotated}
    ]
    for image_id in chosen:
        client.edit(image_id, "background_rest")
    client.studio.close()
    assert {case.image for case in discover(tmp_path).cases} == {paths[one] for one in chosen}
    found = open_studio(tmp_path).get("/api/images").json()
    assert {one["id"] for one in found} == {*paths}
    assert {one["id"] for one in found if one["has_mask"]} == {*chosen}


def test_images_with_the_same_stem_can_be_opened_again_after_another_one_has_a_mask(
    tmp_path, open_studio
):
    for name in ("a.png", "a.tif", "b.png"):
        write_image(tmp_path / "images" / name, len(name))
    client = open_studio(tmp_path)
    for image_id in client.ids:
        client.edit(image_id, "background_rest")
    client.studio.close()
    again = open_studio(tmp_path)
    assert [one["annotated"] for one in again.get("/api/images").json()] == [1, 1, 1]
    assert len({again.studio.project.masks.for_training(one) for one in again.ids}) == 3


@pytest.mark.parametrize("second", ["images/a.tif", "imgs/a.png", "a.png"])
def test_images_with_the_same_stem_get_masks_of_their_own(tmp_path, open_studio, second):
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / second, 1)
    for attempt in range(2):  # The second studio opens what the first one has written.
        client = open_studio(tmp_path)
        project = client.studio.project
        for image_id, column in zip(client.ids, (4, 20), strict=True):
            client.edit(image_id, "brush", [column + attempt, 9], radius=2)
        client.studio.close()
        files = [project.masks.for_training(image_id) for image_id in client.ids]
        assert len(set(files)) == 2
        for file, column, other in zip(files, (4, 20), (20, 4), strict=True):
            codes = io.read_mask(file).codes
            assert (codes[9, column] == 1, codes[9, other] == 1) == (True, False)


def test_mask_of_two_images_is_not_replaced(tmp_path, open_studio):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", ord(name))
    before = write_mask(tmp_path / "m.png").read_bytes()
    (tmp_path / "t.csv").write_text("image,mask\na.png,m.png\nb.png,m.png\n")
    client = open_studio(tmp_path / "t.csv")
    client.post("/api/settings", {"save": "replace"})
    for image_id in client.ids:
        client.edit(image_id, "brush", [2, 2], radius=1)
    client.studio.project.saver.flush()
    assert (tmp_path / "m.png").read_bytes() == before
    assert len({client.studio.project.masks.for_training(one) for one in client.ids}) == 2


def test_other_masks_of_the_same_images_have_annotations_of_their_own(tmp_path, open_studio):
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.png", number)
        write_mask(tmp_path / "cells" / f"{number}.png")
        write_mask(tmp_path / "nuclei" / f"{number}.png", 6)
    first = open_studio(tmp_path / "images", masks=tmp_path / "cells")
    first.post("/api/settings", {"save": "replace"})
    first.edit(first.ids[0], "brush", [2, 2], radius=1)
    first.studio.close()
    second = open_studio(tmp_path / "images", masks=tmp_path / "nuclei")
    annotation = second.studio.project.annotation(second.ids[0])
    labels = annotation.read([(0, size) for size in (1, *SHAPE)])[0]
    assert (labels == io.read_mask(tmp_path / "nuclei" / "0.png").codes // 255).all()
    assert second.studio.project.settings.save is None
    second.studio.close()
    third = open_studio(tmp_path / "images", masks=tmp_path / "cells")
    assert third.studio.project.annotation(third.ids[0]).can_undo


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission")
def test_mask_that_is_a_link_stays_one(pairs, open_studio):
    path, archive = pairs / "masks" / "0.png", pairs.parent / "archive" / "0.png"
    archive.parent.mkdir()
    path.rename(archive)
    path.symlink_to(archive)
    before = archive.read_bytes()
    client = open_studio(pairs)
    client.post("/api/settings", {"save": "replace"})
    for place in (2, 22):
        client.edit(client.ids[0], "brush", [place, place], radius=1)
        client.studio.project.saver.flush()
    assert path.is_symlink()
    assert io.read_mask(archive).codes[22, 22]
    kept = pairs / ".ushape_studio" / "masks_before_studio"
    assert [one.read_bytes() for one in kept.rglob("*.png")] == [before]


@pytest.mark.parametrize("up", ["..", "../.."])
@pytest.mark.parametrize("save", ["replace", "separate"])
def test_masks_of_images_outside_of_the_folder_stay_in_the_state_folder(
    tmp_path, open_studio, save, up
):
    folder = tmp_path / "deep" / "t"
    folder.mkdir(parents=True)
    data = (folder / up).resolve() / "data"
    rows = ["image,mask"]
    for name in ("a", "b"):
        write_image(data / "x" / f"{name}.png", ord(name))
        write_mask(data / "y" / f"{name}.png")
        rows.append(f"{up}/data/x/{name}.png,{up}/data/y/{name}.png")
    (folder / "t.csv").write_text("\n".join(rows))
    client = open_studio(folder / "t.csv")
    client.post("/api/settings", {"save": save})
    for image_id in client.ids:
        client.edit(image_id, "brush", [2, 2], radius=1)
    project = client.studio.project
    project.saver.flush()
    name = {"replace": "masks_before_studio", "separate": "masks_corrected"}[save]
    found = {one.name for one in (project.state / name).rglob("*.png")}
    assert found == {"a.png", "b.png"}
    assert len(list(tmp_path.rglob("*.png"))) == 6


def test_image_that_cannot_be_saved_does_not_stop_the_others(images, open_studio, monkeypatch):
    client = open_studio(images)
    project, first, second = client.studio.project, *client.ids[:2]
    written = saving.write_annotation
    broken = {images / "images" / "0.png"}

    def write(path, snapshot, target, image):
        if image in broken:
            raise ValueError("unforeseen")
        written(path, snapshot, target, image)

    monkeypatch.setattr("ushape.studio.mask_files.write_annotation", write)
    for image_id in (first, second):
        client.edit(image_id, "brush", [2, 2], radius=1)
    project.saver.flush()
    saved = client.get("/api/state").json()["saved"]
    assert (saved["pending"], "an internal error" in saved["error"]) == (1, True)
    assert (images / "masks" / "1.png").exists()
    broken.clear()
    project.saver.flush()
    assert (project.saver.pending, project.saver.error) == (0, None)
    assert (images / "masks" / "0.png").exists()


def test_image_of_another_size_is_not_drawn_on(images, open_studio):
    first = open_studio(images)
    first.edit(first.ids[0], "brush", [2, 2], radius=1)
    first.studio.close()
    write_image(images / "images" / "0.png", shape=(50, 40))
    second = open_studio(images)
    answer = second.get(f"/api/images/{second.ids[0]}")
    assert (answer.status_code, answer.json()["code"]) == (422, "annotation_mismatch")
    assert second.get("/api/images").status_code == 200
    assert second.edit(second.ids[1], "brush", [2, 2], radius=1).status_code == 200


def test_state_that_cannot_be_written_is_answered_with_the_reason(images, open_studio, monkeypatch):
    client = open_studio(images)

    def fail(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.touch", fail)
    answer = client.get(f"/api/images/{client.ids[0]}")
    assert (answer.status_code, answer.json()["code"]) == (507, "edit_not_stored")


def test_error_that_is_explained_is_not_logged(caplog):
    def save(image_id):
        raise OSError(28, "No space left on device", "a.png") if image_id == "a" else KeyError("b")

    saver = Saver(save)
    saver.add("a", 0)
    saver.flush()
    assert not caplog.records
    saver.add("b", 0)
    saver.flush()
    assert len(caplog.records) == 1
    saver.close()


def test_naming_masks_that_are_found_anyway_shows_the_same_project(pairs, open_studio):
    first = open_studio(pairs)
    first.post(f"/api/images/{first.ids[0]}/apart", {"apart": True})
    first.studio.close()
    named = open_studio(pairs, masks=pairs / "masks")
    assert named.studio.project.parts.of(named.ids[0]) == "test"
    for number in range(3):
        write_mask(pairs / "others" / f"{number}.png", number + 5)
    other = open_studio(pairs, masks=pairs / "others")
    assert other.studio.project.state != named.studio.project.state


def test_unfinished_files_of_killed_processes_are_removed(images, open_studio):
    first = open_studio(images)
    first.edit(first.ids[0], "brush", [5, 5], radius=2)
    state = first.studio.project.state
    first.studio.close()
    places = [images / "masks", state / "predictions" / "run-1"]
    places[1].mkdir(parents=True)
    ended, running = 2**22 + 1, os.getpid()  # No process has a higher number than 2**22.
    for process in (ended, running):
        for place in places:
            (place / f".0.png.{process}-1.part").write_bytes(b"")
    open_studio(images)
    for place in places:
        assert [path.name for path in place.glob(".*")] == [f".0.png.{running}-1.part"]


def test_image_is_opened_while_another_one_is_edited(images, open_studio):
    for number in range(3, 6):
        write_image(images / "images" / f"{number}.png", number)
    project = open_studio(images).studio.project
    first, *others = project.images
    annotation = project.annotation(first)
    opened = threading.Thread(target=lambda: [project.annotation(one) for one in others])
    with annotation.lock:
        opened.start()
        end = time.monotonic() + 60
        while not project._annotations.keys() >= set(others[:4]) and time.monotonic() < end:
            time.sleep(0.01)
        is_free = project.lock.acquire(timeout=60)
        assert is_free
        project.lock.release()
    opened.join()


def test_mask_of_an_image_whose_edits_are_undone_is_removed(images, open_studio):
    client = open_studio(images)
    project, image_id, path = client.studio.project, client.ids[0], images / "masks" / "0.png"
    for step, exists in (("edit", True), ("undo", False), ("redo", True), ("undo", False)):
        if step == "edit":
            client.edit(image_id, "brush", [2, 2], radius=1)
        else:
            revision = project.annotation(image_id).revision
            client.post(f"/api/images/{image_id}/{step}", {"revision": revision})
        project.saver.flush()
        assert path.exists() == exists
    write_mask(path)  # By another program.
    client.edit(image_id, "brush", [2, 2], radius=1)
    client.post(f"/api/images/{image_id}/undo", {"revision": project.annotation(image_id).revision})
    project.saver.flush()
    assert path.exists()


@pytest.mark.parametrize("has_mask", [False, True])
def test_mask_of_a_server_that_was_killed_while_it_saved_is_known(
    images, open_studio, monkeypatch, has_mask
):
    if has_mask:
        for number in range(3):
            write_mask(images / "masks" / f"{number}.png", number)
    client = open_studio(images)
    if has_mask:
        client.post("/api/settings", {"save": "replace"})
    with monkeypatch.context() as patch:
        patch.setattr("ushape.studio.mask_files.store_saved", lambda *_: None)
        client.edit(client.ids[0], "brush", [2, 2], radius=1)
        client.studio.project.saver.flush()
        client.studio.close()
    again = open_studio(images)
    again.studio.project.saver.flush()
    state = again.get("/api/state").json()
    assert (state["project"]["needs_consent"], state["saved"]["pending"]) == (False, 0)
    assert again.edit(again.ids[0], "brush", [22, 22], radius=1).status_code == 200
    again.studio.project.saver.flush()
    assert again.studio.project.saver.pending == 0


def test_mask_of_the_user_is_not_taken_for_one_of_the_studio_after_an_undo(pairs, open_studio):
    client = open_studio(pairs)
    path, image_id = pairs / "masks" / "0.png", client.ids[0]
    before = path.read_bytes()
    client.edit(image_id, "brush", [2, 2], radius=1)
    client.post(f"/api/images/{image_id}/undo", {"revision": 1})
    client.studio.project.saver.flush()
    client.edit(image_id, "brush", [22, 22], radius=1, revision=2)
    client.studio.project.saver.flush()
    assert path.read_bytes() == before
