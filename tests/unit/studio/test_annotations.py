"""Tiles, revisions and the log of an annotation."""

import os

import numpy as np
import pytest

from codes import raises_code
from ushape.errors import DataError
from ushape.studio import edit_log, tile_grid
from ushape.studio.annotations import NO_OBJECT, Annotation, StaleRevisionError


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tile_grid, "FLAT_TILE", (1, 8, 8))
    monkeypatch.setattr(tile_grid, "DEEP_TILE", (2, 4, 4))


def rectangle(top, bottom, left, right, value, z=0):
    box = ((z, z + 1), (top, bottom), (left, right))
    return [(box, np.full((1, bottom - top, right - left), value))]


def whole(annotation):
    return annotation.snapshot().whole()


def test_new_annotation_has_no_annotated_pixel(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (10, 20))
    assert (whole(annotation) == 255).all()
    assert annotation.annotated == 0
    assert not annotation.can_undo


def test_edit_changes_its_box_and_is_undone_and_redone(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (10, 20))
    change = annotation.edit(0, "a", rectangle(2, 5, 3, 9, 1))
    expected = np.full((10, 20), 255)
    expected[2:5, 3:9] = 1
    assert (whole(annotation) == expected).all()
    assert change.box == ((0, 1), (0, 8), (0, 16))
    assert annotation.annotated == pytest.approx(18 / 200)
    annotation.step(1, "b", "undo")
    assert (whole(annotation) == 255).all()
    annotation.step(2, "c", "redo")
    assert (whole(annotation) == expected).all()
    assert annotation.revision == 3


def test_edit_after_undo_drops_what_could_be_redone(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (8, 8))
    annotation.edit(0, "a", rectangle(0, 1, 0, 1, 1))
    annotation.step(1, "b", "undo")
    annotation.edit(2, "c", rectangle(1, 2, 1, 2, 2))
    assert not annotation.can_redo
    with raises_code(DataError, "edit_without_effect"):
        annotation.step(3, "d", "redo")


def test_stale_revision_is_refused_with_the_current_one(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (8, 8))
    annotation.edit(0, "a", rectangle(0, 1, 0, 1, 1))
    with pytest.raises(StaleRevisionError) as caught:
        annotation.edit(0, "b", rectangle(0, 1, 0, 1, 2))
    assert caught.value.revision == 1


def test_repeated_edit_is_answered_without_a_second_change(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (8, 8))
    annotation.edit(0, "a", rectangle(0, 1, 0, 1, 1))
    assert annotation.edit(0, "a", rectangle(0, 1, 0, 1, 1)).is_repeated
    assert annotation.revision == 1


def test_edit_that_changes_no_pixel_cannot_be_undone(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (8, 8))
    assert annotation.edit(0, "a", rectangle(0, 2, 0, 2, 255)).box is None
    assert (annotation.revision, annotation.can_undo) == (0, False)


def test_reopened_annotation_is_the_same_and_can_be_undone(tmp_path):
    first = Annotation(tmp_path / "a.log", (10, 20))
    first.edit(0, "a", rectangle(0, 9, 0, 9, 1))
    first.edit(1, "b", rectangle(3, 4, 3, 4, 2))
    second = Annotation(tmp_path / "a.log", (10, 20))
    assert (whole(second) == whole(first)).all()
    assert second.revision == 2
    assert second.edit(1, "b", []).is_repeated
    second.step(2, "c", "undo")
    assert whole(second)[3, 3] == 1


@pytest.mark.parametrize("cut", [1, 10, 60, 200])
def test_incomplete_record_at_the_end_is_dropped(tmp_path, cut):
    path = tmp_path / "a.log"
    annotation = Annotation(path, (10, 20))
    annotation.edit(0, "a", rectangle(0, 9, 0, 9, 1))
    kept, size = whole(annotation), path.stat().st_size
    annotation.edit(1, "b", rectangle(0, 9, 0, 9, 2))
    os.truncate(path, max(size + 1, path.stat().st_size - cut))
    reopened = Annotation(path, (10, 20))
    assert (whole(reopened) == kept).all()
    reopened.edit(1, "c", rectangle(0, 1, 0, 1, 2))
    assert whole(Annotation(path, (10, 20)))[0, 0] == 2


def test_damaged_record_at_the_end_is_dropped(tmp_path):
    path = tmp_path / "a.log"
    Annotation(path, (8, 8)).edit(0, "a", rectangle(0, 2, 0, 2, 1))
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    assert Annotation(path, (8, 8)).revision == 0


def test_damage_before_the_last_record_is_reported_and_nothing_removed(tmp_path):
    path = tmp_path / "a.log"
    annotation = Annotation(path, (10, 20))
    for revision in range(2):
        annotation.edit(revision, "abc"[revision], rectangle(0, 9, 0, 9, revision + 1))
    content = path.read_bytes()
    for place in (0, 5, len(content) // 2):
        damaged = bytearray(content)
        damaged[place] ^= 255
        path.write_bytes(damaged)
        with raises_code(DataError, "damaged_studio_state"):
            Annotation(path, (10, 20))
        assert path.read_bytes() == damaged


def test_edits_of_an_image_of_another_size_or_meaning_are_refused_and_kept(tmp_path):
    path = tmp_path / "a.log"
    assert Annotation(path, (9, 9)).shape == (9, 9)
    annotation = Annotation(path, (10, 20))  # Nothing was drawn yet.
    annotation.edit(0, "a", rectangle(0, 9, 0, 9, 1))
    content = path.read_bytes()
    for shape, are_objects in (((20, 10), False), ((10, 20), True), ((1, 10, 20), False)):
        with raises_code(DataError, "annotation_mismatch"):
            Annotation(path, shape, are_objects=are_objects)
    assert path.read_bytes() == content


def test_change_states_the_revision_after_it(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (10, 20))
    first = annotation.edit(0, "a", rectangle(0, 9, 0, 9, 1))
    second = annotation.step(1, "b", "undo")
    assert (first.revision, second.revision) == (1, 2)


@pytest.mark.parametrize(
    ("former", "changed"),
    [(b'"edit"', b'"edxt"'), (b'"tiles"', b'"tules"'), (b'"bytes": ', b'"bytes": 9')],
)
def test_damaged_header_before_other_records_is_reported(tmp_path, former, changed):
    path = tmp_path / "a.log"
    annotation = Annotation(path, (10, 20))
    size = path.stat().st_size
    annotation.edit(0, "a", rectangle(0, 9, 0, 9, 1))
    annotation.edit(1, "b", rectangle(0, 9, 0, 9, 2))
    content = path.read_bytes()
    content = content[:size] + content[size:].replace(former, changed, 1)
    path.write_bytes(content)
    with raises_code(DataError, "damaged_studio_state"):
        Annotation(path, (10, 20))
    assert path.read_bytes() == content


def test_part_that_cannot_be_unpacked_is_reported(tmp_path):
    path = tmp_path / "a.log"
    annotation = Annotation(path, (8, 8))
    annotation.edit(0, "a", rectangle(0, 2, 0, 2, 1))
    annotation.forget()
    path.write_bytes(path.read_bytes()[:-4] + b"none")
    with raises_code(DataError, "damaged_studio_state"):
        whole(annotation)


def test_users_mask_is_imported_once_and_again_if_it_changes_before_an_edit(tmp_path):
    def opened(value, origin):
        rows = lambda: iter([(slice(0, 10), np.full((10, 20), value))])  # noqa: E731
        return Annotation(tmp_path / "a.log", (10, 20), import_mask=rows, origin=origin)

    assert (whole(opened(1, "first")) == 1).all()
    assert (whole(opened(2, "first")) == 1).all()
    changed = opened(2, "second")
    assert (whole(changed) == 2).all()
    assert changed.annotated == 1
    changed.edit(0, "a", rectangle(0, 1, 0, 1, 0))
    assert whole(opened(3, "third"))[5, 5] == 2


def test_every_second_pixel_equals_that_of_the_whole(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (21, 35))
    values = np.random.default_rng(0).integers(0, 4, (1, 21, 35))
    annotation.edit(0, "a", [(((0, 1), (0, 21), (0, 35)), values)])
    for step in (1, 2, 4, 8, 16):
        for top, left in ((0, 0), (3, 5), (16, 16)):
            window = (top, 21), (left, 35)
            expected = values[0, top::step, left::step]
            assert (annotation.read_plane("z", 0, window, step) == expected).all()


@pytest.mark.parametrize(("plane", "index"), [("z", 3), ("y", 5), ("x", 2)])
def test_planes_of_a_volume_equal_those_of_the_array(tmp_path, plane, index):
    annotation = Annotation(tmp_path / "a.log", (5, 9, 7))
    values = np.random.default_rng(0).integers(0, 4, (5, 9, 7))
    annotation.edit(0, "a", [(((0, 5), (0, 9), (0, 7)), values)])
    expected = np.take(values, index, axis="zyx".index(plane))
    window = tuple((0, size) for size in expected.shape)
    assert (annotation.read_plane(plane, index, window) == expected).all()
    assert (annotation.read_plane(plane, index, window, 2) == expected[::2, ::2]).all()


def test_objects_are_counted_and_new_numbers_were_never_used(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (20, 20), are_objects=True)
    assert (whole(annotation) == NO_OBJECT).all()
    annotation.edit(0, "a", rectangle(0, 2, 0, 2, 1))
    annotation.edit(1, "b", rectangle(10, 12, 10, 12, 7))
    assert (annotation.object_count, annotation.next_number) == (2, 8)
    assert annotation.boxes_with([7]) == [((0, 1), (8, 16), (8, 16))]
    annotation.step(2, "c", "undo")
    assert (annotation.object_count, annotation.next_number) == (1, 8)
    assert Annotation(annotation.path, (20, 20), are_objects=True).next_number == 8


def test_edit_that_cannot_be_stored_is_refused_and_not_made(tmp_path, monkeypatch):
    annotation = Annotation(tmp_path / "a.log", (8, 8))

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edit_log.os, "fsync", fail)
    with raises_code(DataError, "edit_not_stored"):
        annotation.edit(0, "a", rectangle(0, 1, 0, 1, 1))
    monkeypatch.undo()
    assert annotation.revision == 0
    annotation.edit(0, "b", rectangle(0, 1, 0, 1, 2))
    assert Annotation(annotation.path, (8, 8)).revision == 1
