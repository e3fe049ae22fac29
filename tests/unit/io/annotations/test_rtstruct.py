"""Contours in the patient, drawn on an oblique series and counted by hand."""

import numpy as np
import pydicom
import pytest

from codes import raises_code
from dicoms import SLICES, box, contour, item, on_series, save_series, save_structures
from ushape import io
from ushape.errors import DataError
from ushape.io.annotations import read_annotation
from ushape.io.annotations.rtstruct import read_structures
from ushape.types import ShapesMask


@pytest.fixture
def draw(tmp_path):
    """Returns the mask of regions on the series, with their names as classes."""
    save_series(tmp_path / "ct")

    def drawn(*rois, classes=None):
        save_structures(tmp_path / "rs.dcm", rois)
        names = tuple(dict.fromkeys(name for name, _ in rois)) if classes is None else classes
        mask = ShapesMask(tmp_path / "rs.dcm", "rtstruct", tmp_path / "ct", classes=names)
        return read_annotation(mask, mask.image)

    return drawn


def filled(*boxes):
    codes = np.zeros(SLICES.shape, int)
    for code, (left, top, right, bottom), place in boxes:
        codes[place, top:bottom, left:right] = code
    return codes


def test_contours_are_drawn_on_the_slices_of_an_oblique_series(draw, tmp_path):
    drawn = draw(("liver", [box(1, 2, 5, 4, place) for place in (1, 2)]))
    expected = filled((1, (1, 2, 5, 4), 1), (1, (1, 2, 5, 4), 2))
    assert (drawn.codes == expected).all()
    assert drawn.shape_remarks == ()
    assert drawn.grid == io.read_grid(tmp_path / "ct")
    assert drawn.encoding.suffix == ".nii.gz"


def test_ellipse_covers_the_pixels_whose_centers_are_within_it(draw):
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    x, y = 3.6 + 2.3 * np.cos(angles), 2.4 + 1.7 * np.sin(angles)
    drawn = draw(("eye", [on_series(np.stack([x, y], axis=1), 3)]))
    rows, columns = np.mgrid[:6, :8]
    inside = ((columns - 3.6) / 2.3) ** 2 + ((rows - 2.4) / 1.7) ** 2 < 1
    assert (drawn.codes[3] == inside).all()
    assert drawn.codes.sum() == inside.sum()


def test_contours_within_others_are_holes(draw):
    drawn = draw(("ring", [box(0, 0, 7, 6, 2), box(2, 2, 5, 4, 2), box(3, 2, 4, 3, 2)]))
    expected = filled((1, (0, 0, 7, 6), 2), (0, (2, 2, 5, 4), 2), (1, (3, 2, 4, 3), 2))
    assert (drawn.codes == expected).all()


def test_keyhole_contour_has_a_hole(draw):
    outer = [(-0.5, -0.5), (6.5, -0.5), (6.5, 5.5), (-0.5, 5.5), (-0.5, -0.5)]
    inner = [(1.5, 1.5), (1.5, 3.5), (4.5, 3.5), (4.5, 1.5), (1.5, 1.5)]
    drawn = draw(("ring", [on_series([*outer, *inner], 2)]))
    assert (drawn.codes == filled((1, (0, 0, 7, 6), 2), (0, (2, 2, 5, 4), 2))).all()


def test_contour_that_is_listed_twice_is_drawn_once(draw):
    drawn = draw(("liver", [box(1, 2, 5, 4, 1), box(1, 2, 5, 4, 1)]))
    assert drawn.codes.sum() == 8


def test_smaller_regions_cover_larger_ones_in_any_order(draw):
    body, liver = ("body", [box(0, 0, 8, 6)]), ("liver", [box(1, 2, 5, 4)])
    for rois in ((body, liver), (liver, body)):
        drawn = draw(*rois, classes=("body", "liver"))
        assert (drawn.codes == filled((1, (0, 0, 8, 6), 0), (2, (1, 2, 5, 4), 0))).all()


def test_a_wall_covers_the_organ_that_it_surrounds(draw):
    whole = box(0, 0, 7, 6, 2)
    drawn = draw(("wall", [whole, box(2, 2, 5, 4, 2)]), ("organ", [whole]))
    assert (drawn.codes == filled((1, (0, 0, 7, 6), 2), (2, (2, 2, 5, 4), 2))).all()


def test_names_are_matched_without_upper_case_and_spaces(draw):
    rois = ("  LEFT   Lung ", [box(0, 0, 2, 2)]), ("left lung", [box(4, 0, 6, 2)])
    drawn = draw(*rois, classes=("Left lung",))
    assert (drawn.codes == filled((1, (0, 0, 2, 2), 0), (1, (4, 0, 6, 2), 0))).all()


def test_regions_that_are_not_classes_are_not_drawn(draw):
    drawn = draw(("body", [box(0, 0, 8, 6)]), ("liver", [box(1, 2, 5, 4)]), classes=("liver",))
    assert drawn.codes.sum() == 8
    assert drawn.codes.max() == 1


def test_contours_between_slices_belong_to_the_nearest_one(draw):
    drawn = draw(("liver", [box(1, 2, 5, 4, 1.3), box(0, 0, 3, 3, 2.8)]))
    assert (drawn.codes == filled((1, (1, 2, 5, 4), 1), (1, (0, 0, 3, 3), 3))).all()
    assert "2 of 2 contours of liver lie between slices" in drawn.shape_remarks[0]


def test_of_several_planes_the_nearest_one_is_drawn(draw):
    drawn = draw(("liver", [box(1, 2, 5, 4, 1.4), box(0, 0, 3, 3, 1.0), box(0, 0, 8, 6, 0.7)]))
    assert (drawn.codes == filled((1, (0, 0, 3, 3), 1))).all()
    assert "2 of them are not used" in drawn.shape_remarks[0]


def test_contours_on_some_slices_only_are_reported(draw):
    drawn = draw(("liver", [box(1, 2, 5, 4, place) for place in (0, 2, 4)]))
    assert drawn.codes.sum() == 24
    assert "about one of 2 slices" in drawn.shape_remarks[0]


def test_contours_outside_of_the_series_are_counted(draw):
    inside = [box(1, 2, 5, 4, place) for place in (0, 1, 2)]
    far = on_series(1e9 * np.array([(0, 0), (1, 0), (0, 1)]), 0)
    drawn = draw(("liver", [*inside, box(1, 2, 5, 4, 7), box(50, 2, 55, 4, 1)]))
    assert drawn.codes.sum() == 24
    assert "2 of 5 contours of liver lie outside" in drawn.shape_remarks[0]
    drawn = draw(("liver", [*inside, far]))
    assert "1 of 4 contours" in drawn.shape_remarks[0]


def test_contours_that_leave_the_image_are_cut(draw):
    drawn = draw(("body", [box(-20, -20, 5, 4, 1)]))
    assert (drawn.codes == filled((1, (0, 0, 5, 4), 1))).all()


def test_contours_of_another_place_are_refused(draw):
    with raises_code(DataError, "mask_outside_image"):
        draw(("liver", [box(1, 2, 5, 4, 9), box(1, 2, 5, 4, 8), box(1, 2, 5, 4, 0)]))


def test_contours_across_the_slices_are_refused(draw):
    across = np.concatenate([on_series([(1, 2), (5, 2)], 0), on_series([(5, 2), (1, 2)], 3)])
    with raises_code(DataError, "contours_not_on_slices"):
        draw(("liver", [across]))


def test_points_and_open_lines_are_counted(draw, tmp_path):
    center = contour(on_series([(3, 3)], 1), "POINT")
    line = contour(on_series([(3, 3), (4, 4), (5, 3)], 1), "OPEN_PLANAR")
    two = box(1, 2, 5, 4)[:2]
    drawn = draw(("isocenter", [center]), ("liver", [box(1, 2, 5, 4), line, two]), ("empty", []))
    assert (drawn.codes == filled((2, (1, 2, 5, 4), 0))).all()
    rois = read_structures(tmp_path / "rs.dcm").rois
    assert [(len(roi.contours), roi.without_area) for roi in rois] == [(0, 1), (1, 2), (0, 0)]


def test_single_slice_gets_a_flat_mask(tmp_path):
    save_series(tmp_path / "ct", places=[0])
    save_structures(tmp_path / "rs.dcm", [("liver", [box(1, 2, 5, 4)])])
    image = next((tmp_path / "ct").iterdir())
    mask = ShapesMask(tmp_path / "rs.dcm", "rtstruct", image, classes=("liver",))
    codes = read_annotation(mask, image).codes
    assert codes.shape == io.read(image).array.shape[1:]
    assert codes.sum() == 8


def test_contours_need_the_position_of_the_image(tmp_path):
    save_structures(tmp_path / "rs.dcm", [("liver", [box(1, 2, 5, 4)])])
    np.save(tmp_path / "x.npy", SLICES)
    mask = ShapesMask(tmp_path / "rs.dcm", "rtstruct", tmp_path / "x.npy", classes=("liver",))
    with raises_code(DataError, "contours_unplaced"):
        read_annotation(mask, mask.image)


@pytest.mark.parametrize(
    "damaged",
    [
        item(ContourGeometricType="CLOSED_PLANAR", ContourData=["1", "2", "3", "4"]),
        item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4, ContourData=["1"] * 9),
    ],
)
def test_damaged_contours_are_refused(damaged, tmp_path):
    save_structures(tmp_path / "rs.dcm", [("liver", [damaged])])
    with raises_code(DataError, "damaged_file"):
        read_structures(tmp_path / "rs.dcm")


def test_coordinates_that_are_no_numbers_are_refused(tmp_path):
    save_structures(tmp_path / "rs.dcm", [("liver", [box(1, 2, 5, 4)])])
    content = (tmp_path / "rs.dcm").read_bytes()
    place = content.index(b"\\", content.index(b"CLOSED_PLANAR"))
    for text in (b"nan\\", b"x.y\\", b"inf\\"):
        (tmp_path / "rs.dcm").write_bytes(content[: place - 3] + text + content[place + 1 :])
        with raises_code(DataError, "damaged_file"):
            read_structures(tmp_path / "rs.dcm")


def test_truncated_file_is_refused_or_lacks_regions(tmp_path):
    save_structures(tmp_path / "rs.dcm", [("liver", [box(1, 2, 5, 4)])])
    content = (tmp_path / "rs.dcm").read_bytes()
    for length in range(140, len(content), 7):
        (tmp_path / "rs.dcm").write_bytes(content[:length])
        try:
            rois = read_structures(tmp_path / "rs.dcm").rois
        except DataError:
            continue
        assert sum(len(roi.contours) for roi in rois) < 2


def test_region_without_a_name_is_named_by_its_number(tmp_path):
    save_structures(tmp_path / "rs.dcm", [("", [box(1, 2, 5, 4)])])
    assert read_structures(tmp_path / "rs.dcm").rois[0].name == "ROI 1"
    assert pydicom.dcmread(tmp_path / "rs.dcm").Modality == "RTSTRUCT"
