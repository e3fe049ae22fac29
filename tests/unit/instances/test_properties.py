import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import measure

from codes import raises_code
from ushape.errors import DataError
from ushape.instances.label import Objects, label_objects
from ushape.instances.properties import (
    measure_perimeters,
    measure_table,
    summarize_classes,
)

NAMES = ("background", "cell", "debris")
CLASSES = np.array([[0, 1, 1, 0], [0, 1, 0, 2], [0, 0, 0, 2]], dtype=np.uint8)


def test_measure_table_by_hand():
    probability = np.array([[0, 0.9, 0.8, 0], [0, 0.7, 0, 0], [0, 0, 0, 0]])
    debris = np.full((3, 4), 0.5)
    table = measure_table(
        label_objects(CLASSES),
        NAMES,
        probabilities={1: probability, 2: debris},
        spacing_mm=(0.5, 2.0),
    )
    cell, rest = table.rows()
    # Pixels (0, 1), (0, 2), (1, 1) of 0.5 mm x 2 mm.
    assert cell["id"] == 1
    assert cell["class"] == "cell"
    assert cell["area_px"] == 3
    assert cell["area_mm2"] == pytest.approx(3.0)
    assert cell["mean_probability"] == pytest.approx(0.8)
    assert cell["centroid_y_px"] == pytest.approx(1 / 3)
    assert cell["centroid_x_px"] == pytest.approx(4 / 3)
    assert cell["centroid_y_mm"] == pytest.approx(0.5 / 3)
    assert cell["centroid_x_mm"] == pytest.approx(8 / 3)
    box = [cell[f"box_{edge}_px"] for edge in ("y_start", "y_stop", "x_start", "x_stop")]
    assert box == [0, 2, 1, 3]
    assert cell["equivalent_diameter_px"] == pytest.approx(np.sqrt(12 / np.pi))
    assert cell["equivalent_diameter_mm"] == pytest.approx(np.sqrt(12 / np.pi))
    assert (rest["id"], rest["class"], rest["area_px"]) == (2, "debris", 2)
    assert rest["mean_probability"] == 0.5


def column_names(dims):
    """Columns of a table without objects."""
    nothing = label_objects(np.zeros((2,) * dims, np.uint8))
    return tuple(measure_table(nothing, NAMES).columns())


def test_column_names_are_independent_of_the_known_values():
    objects = label_objects(CLASSES)
    bare = measure_table(objects, NAMES)
    full = measure_table(objects, NAMES, spacing_mm=(1.0, 1.0))
    assert tuple(bare.rows()[0]) == tuple(full.rows()[0]) == column_names(2)
    unknown = {name for name, value in bare.rows()[0].items() if value is None}
    known = {name for name in column_names(2) if "_mm" in name}
    assert unknown == known | {"mean_probability"}
    assert measure_table(label_objects(np.zeros((2, 2), np.uint8)), NAMES).rows() == []


def test_measure_table_of_a_volume_has_no_perimeter():
    classes = np.zeros((4, 3, 3), dtype=np.uint8)
    classes[1:3, 0, :2] = 1
    table = measure_table(label_objects(classes), NAMES, spacing_mm=(3.0, 1.0, 0.5))
    (row,) = table.rows()
    assert tuple(row) == column_names(3)
    assert not [name for name in row if "area" in name or "perimeter" in name]
    assert (row["volume_px"], row["volume_mm3"]) == (4, 6.0)
    assert row["equivalent_diameter_mm"] == pytest.approx((36 / np.pi) ** (1 / 3))
    assert (row["centroid_z_px"], row["centroid_z_mm"], row["box_z_stop_px"]) == (1.5, 4.5, 3)


def test_summarize_classes_by_hand():
    objects = label_objects(CLASSES)
    table = measure_table(objects, NAMES, spacing_mm=(0.5, 2.0))
    cell, debris = (one.row() for one in summarize_classes(objects, table, NAMES))
    assert tuple(cell) == ("class", "objects", "area_px", "area_mm2", "share")
    assert cell == {"class": "cell", "objects": 1, "area_px": 3, "area_mm2": 3.0, "share": 0.25}
    assert (debris["objects"], debris["area_px"]) == (1, 2)
    assert debris["share"] == pytest.approx(1 / 6)


def test_summarize_classes_includes_classes_without_objects():
    objects = label_objects(np.zeros((2, 3, 4), np.uint8))
    both = summarize_classes(objects, measure_table(objects, NAMES), NAMES)
    assert [one.class_name for one in both] == ["cell", "debris"]
    empty = {"objects": 0, "volume_px": 0, "volume_mm3": None, "share": 0}
    assert all({**one.row(), **empty} == one.row() for one in both)
    assert tuple(both[0].row()) == ("class", "objects", "volume_px", "volume_mm3", "share")


@given(
    shape=st.sampled_from([(6, 7), (3, 4, 5)]),
    data=st.data(),
)
def test_measure_table_agrees_with_skimage(shape, data):
    classes = data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    probability = data.draw(arrays.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    objects = label_objects(classes)
    table = measure_table(objects, NAMES, probabilities={1: probability, 2: probability})
    for place, region in enumerate(measure.regionprops(objects.labels, probability)):
        assert table.size_px[place] == region.area
        assert table.centroid_px[place] == pytest.approx(region.centroid)
        assert tuple(table.box_px[place].T.ravel()) == region.bbox
        assert table.mean_probability is not None
        assert table.mean_probability[place] == pytest.approx(region.intensity_mean, abs=1e-6)
        diameter = table.columns()["equivalent_diameter_px"][place]
        assert diameter == pytest.approx(region.equivalent_diameter_area)
        if len(shape) == 2:
            assert table.perimeter_px is not None
            assert table.perimeter_px[place] == pytest.approx(
                measure.perimeter_crofton(objects.labels == place + 1)
            )


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 1.0), (1.0, 1.5)])
def test_perimeter_of_a_disk_in_anisotropic_pixels(spacing):
    y, x = np.indices((201, 201)) - 100.0
    disk = ((y * spacing[0]) ** 2 + (x * spacing[1]) ** 2 <= 60**2).astype(np.int32)
    (length,) = measure_perimeters(disk, 1, spacing)
    assert length == pytest.approx(2 * np.pi * 60, rel=0.03)


def test_perimeter_includes_holes():
    full = np.zeros((60, 60), dtype=np.int32)
    full[10:50, 10:50] = 1
    ring = full.copy()
    ring[20:40, 20:40] = 0
    (outer,), (both,) = measure_perimeters(full, 1), measure_perimeters(ring, 1)
    assert both == pytest.approx(1.5 * outer, rel=0.02)


def test_measure_table_refuses_bad_input():
    objects = label_objects(CLASSES)
    with raises_code(DataError, "probabilities_missing"):
        measure_table(objects, NAMES, probabilities={1: np.ones((3, 4))})
    with raises_code(DataError, "invalid_spacing"):
        measure_table(objects, NAMES, spacing_mm=(1.0, -1.0))


def test_measure_table_identifies_objects_by_number():
    labels = np.array([[2, 2, 1]], dtype=np.int32)
    table = measure_table(Objects(labels=labels, classes=np.array([2, 1], np.uint8)), NAMES)
    assert table.class_names == ("debris", "cell")
    assert table.size_px.tolist() == [1, 2]
