"""Edits of annotations: which pixels they change in classes, objects and volumes."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from codes import raises_code
from ushape.errors import DataError
from ushape.studio import accepting, editing, tile_grid
from ushape.studio.annotations import NO_OBJECT, Annotation
from ushape.studio.editing import Edit, apply_edit


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tile_grid, "FLAT_TILE", (1, 8, 8))
    monkeypatch.setattr(tile_grid, "DEEP_TILE", (2, 4, 4))
    monkeypatch.setattr(editing, "BLOCK_PX", 16)
    monkeypatch.setattr(editing, "FIRST_REACH_PX", 3)


def annotated(folder, values, *, are_objects=False):
    """An annotation with the values of an array."""
    values = np.asarray(values)
    rows = lambda: iter([(slice(0, len(values)), values)])  # noqa: E731
    return Annotation(
        folder / "a.log", values.shape, are_objects=are_objects, import_mask=rows, origin="x"
    )


def whole(annotation):
    return annotation.snapshot().whole()


def apply(annotation, tool, *points, prediction=None, **values):
    """Carry out an edit with points (row, column)."""
    edit = Edit(tool=tool, points=np.array(points, dtype=float).reshape(-1, 2), **values)
    return apply_edit(annotation, edit, annotation.revision, "", prediction)


def two_squares(dtype=np.uint8):
    """Squares of 1 and 2 that touch, on a background of 0."""
    values = np.zeros((30, 40), dtype=dtype)
    values[5:15, 5:15], values[5:15, 15:25] = 1, 2
    return values


def test_long_stroke_equals_that_of_a_single_block(tmp_path, monkeypatch):
    line = [(2, 3), (38, 45), (5, 44)]
    small = annotated(tmp_path / "small", np.zeros((40, 50), np.uint8))
    apply(small, "brush", *line, radius_px=2.5)
    monkeypatch.setattr(editing, "BLOCK_PX", 1024)
    large = annotated(tmp_path / "large", np.zeros((40, 50), np.uint8))
    apply(large, "brush", *line, radius_px=2.5)
    assert whole(small).any()
    assert (whole(small) == whole(large)).all()


def test_eraser_draws_background_and_unmark_removes_the_annotation(tmp_path):
    annotation = annotated(tmp_path, np.ones((10, 10), np.uint8))
    apply(annotation, "eraser", (2.5, 2.5), radius_px=0.5)
    apply(annotation, "unmark", (7.5, 7.5), radius_px=0.5)
    assert (whole(annotation)[2, 2], whole(annotation)[7, 7]) == (0, 255)
    assert annotation.annotated == pytest.approx(0.99)


def test_polygon_draws_its_class(tmp_path):
    annotation = annotated(tmp_path, np.zeros((20, 20), np.uint8))
    apply(annotation, "polygon", (2, 2), (2, 18), (12, 18), (12, 2), class_index=3)
    assert (whole(annotation)[2:12, 2:18] == 3).all()
    assert (whole(annotation) == 3).sum() == 160


def test_fill_follows_a_region_beyond_the_first_window(tmp_path):
    values = np.zeros((30, 30), np.uint8)
    values[10, :] = 1
    annotation = annotated(tmp_path, values)
    apply(annotation, "fill", (2.5, 2.5), class_index=2)
    assert (whole(annotation)[:10] == 2).all()
    assert (whole(annotation)[11:] == 0).all()


def test_delete_removes_the_connected_part_of_a_class(tmp_path):
    values = two_squares()
    values[20:25, 5:10] = 1
    annotation = annotated(tmp_path, values)
    apply(annotation, "delete", (7.5, 7.5))
    expected = values.copy()
    expected[5:15, 5:15] = 0
    assert (whole(annotation) == expected).all()


def test_delete_of_background_is_refused(tmp_path):
    annotation = annotated(tmp_path, two_squares())
    with raises_code(DataError, "no_object_here"):
        apply(annotation, "delete", (1.5, 1.5))
    assert annotation.revision == 0


def test_merge_of_classes_joins_parts_by_a_stroke(tmp_path):
    values = np.zeros((10, 20), np.uint8)
    values[4:7, 2:5], values[4:7, 10:13] = 2, 2
    annotation = annotated(tmp_path, values)
    apply(annotation, "merge", (5.5, 3.5), (5.5, 11.5))
    assert (whole(annotation)[5, 2:13] == 2).all()


def test_split_of_a_class_separates_its_parts(tmp_path):
    from scipy import ndimage

    values = np.zeros((12, 20), np.uint8)
    values[2:10, 2:18] = 1
    annotation = annotated(tmp_path, values)
    apply(annotation, "split", (0, 9), (12, 11))
    _, count = ndimage.label(whole(annotation) == 1, np.ones((3, 3)))
    assert count == 2


def test_brush_makes_a_new_object_or_extends_the_one_it_begins_in(tmp_path):
    annotation = annotated(tmp_path, two_squares(np.uint32), are_objects=True)
    apply(annotation, "brush", (25.5, 25.5), radius_px=1)
    assert whole(annotation)[25, 25] == 3
    apply(annotation, "brush", (7.5, 23.5), (7.5, 30.5), radius_px=1)
    assert whole(annotation)[7, 30] == 2
    assert annotation.object_count == 3


def test_objects_that_touch_are_split_merged_and_deleted_by_number(tmp_path):
    annotation = annotated(tmp_path, two_squares(np.uint32), are_objects=True)
    apply(annotation, "merge", (7.5, 7.5), (7.5, 20.5))
    assert (whole(annotation)[5:15, 5:25] == 1).all()
    assert annotation.object_count == 1
    apply(annotation, "split", (3, 12), (17, 12))
    numbers = whole(annotation)
    assert set(np.unique(numbers)) == {0, 1, 3}
    assert (numbers[5:15, 14:25] == 1).all()
    assert (numbers > 0).sum() == 200
    apply(annotation, "delete", (7.5, 6.5))
    assert set(np.unique(whole(annotation))) == {0, 1}


def test_deleted_object_disappears_from_all_planes_of_a_volume(tmp_path):
    values = np.zeros((5, 12, 12), np.uint32)
    values[1:4, 2:8, 2:8] = 7
    values[0, 10, 10] = 2
    annotation = annotated(tmp_path, values, are_objects=True)
    apply(annotation, "delete", (3.5, 3.5), plane="z", index=2)
    assert set(np.unique(whole(annotation))) == {0, 2}


@pytest.mark.parametrize(("plane", "index"), [("z", 2), ("y", 4), ("x", 6)])
def test_stroke_in_a_plane_of_a_volume_changes_this_plane_only(tmp_path, plane, index):
    annotation = annotated(tmp_path, np.zeros((6, 9, 10), np.uint8))
    apply(annotation, "brush", (3.5, 5.5), radius_px=1.2, plane=plane, index=index)
    axis = "zyx".index(plane)
    drawn = whole(annotation)
    assert np.take(drawn, index, axis).sum() == drawn.sum() == 5
    assert np.take(drawn, index, axis)[3, 5] == 1


def test_rest_becomes_background_and_clear_removes_everything(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (20, 30))
    apply(annotation, "brush", (5.5, 5.5), radius_px=1.2)
    apply(annotation, "background_rest")
    assert annotation.is_complete
    assert (whole(annotation) == 1).sum() == 5
    apply(annotation, "clear")
    assert annotation.annotated == 0
    annotation.step(annotation.revision, "", "undo")
    assert (whole(annotation) == 1).sum() == 5


def test_edit_outside_of_the_image_is_refused(tmp_path):
    annotation = annotated(tmp_path, np.zeros((10, 10), np.uint8))
    for tool in ("brush", "fill", "delete", "split"):
        with raises_code(DataError, "edit_outside"):
            apply(annotation, tool, (500, 500), radius_px=3)


def test_edit_without_points_is_refused(tmp_path):
    annotation = annotated(tmp_path, np.zeros((10, 10), np.uint8))
    with raises_code(DataError, "edit_incomplete"):
        apply(annotation, "brush")
    with raises_code(DataError, "edit_incomplete"):
        apply(annotation, "polygon", (1, 1), (5, 5))


class Stub:
    """A prediction of classes, and of object numbers if there are any."""

    def __init__(self, classes, objects=None):
        self._classes, self._objects = classes, objects
        self.shape, self.has_objects = classes.shape, objects is not None
        self.largest_px = 0

    def classes(self, plane, index, window, step, threshold):
        return self._part(self._classes, index, window)

    def objects(self, plane, index, window, step):
        return self._part(self._objects, index, window)

    def _part(self, values, index, window):
        flat = values[index] if values.ndim == 3 else values
        part = flat[tuple(slice(*own) for own in window)]
        self.largest_px = max(self.largest_px, part.size)
        return part.copy()


def test_accepted_prediction_becomes_the_annotation(tmp_path):
    predicted = two_squares()
    annotation = Annotation(tmp_path / "a.log", predicted.shape)
    apply(annotation, "accept", prediction=Stub(predicted))
    assert (whole(annotation) == predicted).all()
    assert annotation.annotated == 1


def test_accepted_prediction_leaves_what_the_user_has_drawn(tmp_path):
    predicted = two_squares()
    annotation = Annotation(tmp_path / "a.log", predicted.shape)
    apply(annotation, "brush", (7.5, 7.5), radius_px=1.2, class_index=3)
    drawn = whole(annotation) == 3
    apply(annotation, "accept", prediction=Stub(predicted))
    assert (whole(annotation) == np.where(drawn, 3, predicted)).all()
    apply(annotation, "accept", prediction=Stub(predicted))
    assert (whole(annotation) == predicted).all()


def test_accepted_objects_do_not_repeat_those_that_the_user_has_drawn(tmp_path):
    predicted = two_squares(np.int32)
    annotation = Annotation(tmp_path / "a.log", predicted.shape, are_objects=True)
    apply(annotation, "polygon", (5, 5), (5, 15), (14, 15), (14, 5))
    stub = Stub((predicted > 0).astype(np.uint8), predicted)
    apply(annotation, "accept", prediction=stub)
    numbers = whole(annotation)
    assert set(np.unique(numbers)) == {0, 1, 3}
    assert ((numbers == 3) == (predicted == 2)).all()
    assert (numbers == 1).sum() == 90


def test_accepted_object_is_copied_alone(tmp_path):
    predicted = two_squares()
    annotation = Annotation(tmp_path / "a.log", predicted.shape)
    apply(annotation, "accept_object", (7.5, 20.5), prediction=Stub(predicted))
    assert ((whole(annotation) == 2) == (predicted == 2)).all()
    assert (whole(annotation)[predicted != 2] == 255).all()


@pytest.mark.parametrize("are_objects", [False, True])
def test_accepted_object_leaves_what_the_user_has_drawn(are_objects, tmp_path):
    predicted = two_squares()
    annotation = Annotation(tmp_path / "a.log", predicted.shape, are_objects=are_objects)
    drawn = [(5, 5), (5, 10), (15, 10), (15, 5)]
    apply(annotation, "polygon", *drawn, class_index=3)
    before = whole(annotation)
    stub = Stub((predicted > 0).astype(np.uint8), predicted) if are_objects else Stub(predicted)
    apply(annotation, "accept_object", (7.5, 7.5), prediction=stub)
    new = 2 if are_objects else 1
    assert (whole(annotation)[5:15, 5:10] == before[5:15, 5:10]).all()
    assert (whole(annotation)[5:15, 10:15] == new).all()
    with raises_code(DataError, "edit_without_effect"):
        apply(annotation, "accept_object", (7.5, 7.5), prediction=stub)


def test_object_accepted_slice_by_slice_is_one_object(tmp_path):
    objects = np.zeros((4, 12, 12), np.int32)
    objects[:3, 2:6, 2:6], objects[:, 8:, 8:] = 1, 2
    stub = Stub((objects > 0).astype(np.uint8), objects)
    annotation = Annotation(tmp_path / "a.log", objects.shape, are_objects=True)
    for index in range(3):
        apply(annotation, "accept_object", (3.5, 3.5), prediction=stub, index=index)
        apply(annotation, "accept_object", (9.5, 9.5), prediction=stub, index=index)
    numbers = whole(annotation)
    assert set(np.unique(numbers[:3])) == {1, 2, NO_OBJECT}
    assert ((numbers[:3] == 1) == (objects[:3] == 1)).all()
    assert (numbers[3] == NO_OBJECT).all()


def test_accepted_objects_keep_their_numbers_or_are_connected_parts(tmp_path):
    predicted = two_squares()
    foreground = (predicted > 0).astype(np.uint8)
    separated = Annotation(tmp_path / "a.log", predicted.shape, are_objects=True)
    apply(separated, "accept", prediction=Stub(foreground, predicted.astype(np.int32)))
    assert separated.object_count == 2
    joined = Annotation(tmp_path / "b.log", predicted.shape, are_objects=True)
    apply(joined, "accept", prediction=Stub(foreground))
    assert joined.object_count == 1
    assert not (whole(joined) == NO_OBJECT).any()
    apply(joined, "clear")
    apply(joined, "accept_object", (7.5, 20.5), prediction=Stub(foreground, predicted))
    assert ((whole(joined) == 2) == (predicted == 2)).all()


def same_parts(one, other):
    """Whether two arrays of numbers have the same parts; 0 is outside of all."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    sizes = [len(np.unique(own)) for own in (one, other)]
    return sizes == [pairs.shape[1]] * 2 and ((pairs[0] == 0) == (pairs[1] == 0)).all()


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (37, 45), (5, 13, 18)])
@pytest.mark.parametrize("share", [0.4, 0.55, 0.7, 1.0])
def test_accepted_parts_are_connected_across_tiles(shape, share, tmp_path):
    rng = np.random.default_rng(0)
    foreground = (rng.random(shape) < share).astype(np.uint8)
    annotation = Annotation(tmp_path / "a.log", shape, are_objects=True)
    prediction = Stub(foreground)
    apply(annotation, "accept", prediction=prediction)
    assert same_parts(whole(annotation), ndimage.label(foreground)[0])
    assert prediction.largest_px <= 64


@pytest.mark.parametrize("is_separated", [True, False])
@pytest.mark.parametrize("shape", [(37, 45), (5, 13, 18)])
def test_large_predictions_are_accepted_around_what_the_user_has_drawn(
    shape, is_separated, tmp_path
):
    rng = np.random.default_rng(0)
    objects, count = ndimage.label(rng.random(shape) < 0.4)
    drawn = np.full(shape, NO_OBJECT, np.uint32)
    corner = tuple(slice(0, size // 2) for size in shape)
    drawn[corner] = 0
    drawn[corner][..., :3] = 7
    annotation = annotated(tmp_path, drawn, are_objects=True)
    prediction = Stub((objects > 0).astype(np.uint8), objects if is_separated else None)
    apply(annotation, "accept", prediction=prediction)
    expected, number = drawn.copy(), 8
    for own in range(1, count + 1):
        inside = objects == own
        if (inside & (drawn != NO_OBJECT)).sum() <= inside.sum() // 2:
            expected[inside & (drawn == NO_OBJECT)] = number
            number += 1
    expected[expected == NO_OBJECT] = 0
    assert number > 20
    found = whole(annotation)
    assert same_parts(found, expected)
    assert (found[drawn != NO_OBJECT] == drawn[drawn != NO_OBJECT]).all()
    assert prediction.largest_px <= 64


def test_accepted_objects_are_numbered_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tile_grid, "FLAT_TILE", (1, 64, 64))
    foreground = np.zeros((1024, 1024), np.uint8)
    foreground[100:-100, 100:-100] = 1
    annotation = Annotation(tmp_path / "a.log", foreground.shape, are_objects=True)
    tracemalloc.start()
    for _, values in accepting.accepted_tiles(annotation, Stub(foreground), None):
        assert set(np.unique(values)) <= {0, 1}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < foreground.size / 2  # The numbers of all pixels are 4 bytes each.


def test_accept_without_a_prediction_is_refused(tmp_path):
    annotation = Annotation(tmp_path / "a.log", (10, 10))
    with raises_code(DataError, "no_prediction"):
        apply(annotation, "accept")
