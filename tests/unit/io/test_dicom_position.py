import numpy as np
import pydicom
import pytest

from codes import raises_code
from dicoms import (
    COSINES,
    NORMAL,
    SLICES,
    box,
    item,
    save,
    save_frames,
    save_series,
    save_structures,
)
from ushape import io
from ushape.errors import DataError
from ushape.io.annotations import rtstruct
from ushape.io.dicom_position import axes_of, slice_distance
from ushape.types import ShapesMask

ALONG_ROWS, ALONG_COLUMNS = np.array(COSINES[:3]), np.array(COSINES[3:])


def move(path, shift):
    """Moves the first pixel of a slice by a vector in mm."""
    data = pydicom.dcmread(path)
    moved = np.array(data.ImagePositionPatient, float) + shift
    data.ImagePositionPatient = [round(float(number), 6) for number in moved]
    data.save_as(path)


def in_order(folder):
    """Returns the files of `save_series` in the order of their places."""
    return [folder / f"{(7 * number) % 10}.dcm" for number in range(len(SLICES))]


@pytest.mark.parametrize("direction", [ALONG_ROWS, ALONG_COLUMNS])
@pytest.mark.parametrize("kind", ["tilted gantry", "sideways jump"])
def test_slices_that_do_not_lie_behind_each_other_are_refused(kind, direction, tmp_path):
    save_series(tmp_path / "ct")
    for number, path in enumerate(in_order(tmp_path / "ct")):
        # A gantry at 10 degrees, and a series of which the table was moved in between.
        aside = (
            np.tan(np.radians(10)) * 2.5 * number if kind == "tilted gantry" else 4 * (number > 2)
        )
        move(path, aside * direction)
    with raises_code(DataError, "sheared_grid"):
        io.read(tmp_path / "ct")
    with raises_code(DataError, "sheared_grid"):
        io.read_grid(tmp_path / "ct")
    save_structures(tmp_path / "rt.dcm", [("liver", [box(1, 2, 5, 4, 1)])])
    mask = ShapesMask(
        path=tmp_path / "rt.dcm", image=tmp_path / "ct", format="rtstruct", classes=("liver",)
    )
    with raises_code(DataError, "sheared_grid"):
        rtstruct.draw_structures(mask)


@pytest.mark.parametrize("direction", [0.5 * ALONG_ROWS, 0.75 * ALONG_COLUMNS])
def test_slices_may_be_moved_by_less_than_a_tenth_of_a_pixel(direction, tmp_path):
    save_series(tmp_path / "ct")
    move(in_order(tmp_path / "ct")[2], 0.09 * direction)
    assert io.read(tmp_path / "ct").spacing_mm == pytest.approx((2.5, 0.75, 0.5))
    move(in_order(tmp_path / "ct")[2], 0.02 * direction)
    with raises_code(DataError, "sheared_grid"):
        io.read(tmp_path / "ct")


@pytest.mark.parametrize(
    ("places", "code"),
    [
        ((0, 1, 3, 4, 5), "dicom_series_uneven"),
        ((0, 1, 2, 3, 20), "dicom_series_uneven"),
        ((5, 4, 3, 1, 0), "dicom_series_uneven"),
        ((4, 0, 1, 5, 2), "dicom_series_uneven"),
        ((0, 1, 2, 0, 1), "several_time_points"),
        ((0, 0, 1, 1, 2), "several_time_points"),
        ((3, 3, 3, 3, 3), "several_time_points"),
    ],
)
def test_frames_with_gaps_or_repeated_positions_are_refused(places, code, tmp_path):
    save_frames(tmp_path / "ct.dcm", places)
    for read in (io.read, io.read_grid):
        with raises_code(DataError, code):
            read(tmp_path / "ct.dcm")


@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (3, 0, 4, 1, 2)])
def test_frames_are_placed_by_their_positions(places, tmp_path):
    save_frames(tmp_path / "ct.dcm", places)
    pixels = io.read(tmp_path / "ct.dcm")
    assert pixels.spacing_mm == pytest.approx((2.5, 1, 1))
    assert pixels.grid == io.read_grid(tmp_path / "ct.dcm")
    for stored, place in enumerate(places):
        found = [n for n, plane in enumerate(pixels.array[0]) if (plane == SLICES[stored]).all()]
        position = pixels.grid.matrix @ [found[0], 0, 0, 1]
        assert position == pytest.approx(np.array([5, 6, 7]) + 2.5 * place * NORMAL, abs=1e-5)


def frame(place, **groups):
    position = np.array([5, 6, 7]) + 2.5 * place * NORMAL
    place = item(ImagePositionPatient=[round(float(number), 6) for number in position])
    return item(PlanePositionSequence=[place], **groups)


@pytest.mark.parametrize("kind", ["direction", "spacing", "tilt"])
def test_frames_that_do_not_belong_together_are_refused(kind, tmp_path):
    save_frames(tmp_path / "ct.dcm", range(5))
    frames = [frame(place) for place in range(5)]
    if kind == "direction":
        plane = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        frames[2] = frame(2, PlaneOrientationSequence=[plane])
    elif kind == "spacing":
        measures = item(PixelSpacing=[2, 2], SliceThickness=2.5)
        frames[2] = frame(2, PixelMeasuresSequence=[measures])
    else:
        for number, one in enumerate(frames):
            place = one.PlanePositionSequence[0]
            moved = np.array(place.ImagePositionPatient, float) + 0.4 * number * ALONG_COLUMNS
            place.ImagePositionPatient = [round(float(number), 6) for number in moved]
    data = pydicom.dcmread(tmp_path / "ct.dcm")
    data.PerFrameFunctionalGroupsSequence = frames
    data.save_as(tmp_path / "ct.dcm")
    with raises_code(DataError, "sheared_grid" if kind == "tilt" else "dicom_series_uneven"):
        io.read(tmp_path / "ct.dcm")


def save_dose(path, offsets, position=(5, 6, 7), cosines=(1, 0, 0, 0, 1, 0)):
    save(
        path,
        SLICES,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2",
        NumberOfFrames=len(SLICES),
        ImagePositionPatient=list(position),
        ImageOrientationPatient=list(cosines),
        GridFrameOffsetVector=list(offsets),
    )


@pytest.mark.parametrize(
    ("offsets", "step"),
    [((0, 3, 6, 9, 12), 3), ((0, -3, -6, -9, -12), -3), ((7, 10, 13, 16, 19), 3)],
)
def test_dose_lies_at_its_offsets(offsets, step, tmp_path):
    save_dose(tmp_path / "dose.dcm", offsets)
    pixels = io.read(tmp_path / "dose.dcm")
    assert (pixels.array[0] == SLICES).all()
    assert pixels.spacing_mm == pytest.approx((3, 0.75, 0.5))
    assert pixels.grid.matrix @ [2, 0, 0, 1] == pytest.approx((5, 6, 7 + 2 * step))


def test_absolute_offsets_of_a_dose_are_positions_along_z(tmp_path):
    # The patient lies on the front: the normal of the slices points to negative z.
    save_dose(tmp_path / "dose.dcm", (7, 10, 13, 16, 19), cosines=(-1, 0, 0, 0, 1, 0))
    assert io.read_grid(tmp_path / "dose.dcm").matrix @ [2, 0, 0, 1] == pytest.approx((5, 6, 13))


def test_dose_with_a_missing_slice_is_refused(tmp_path):
    save_dose(tmp_path / "dose.dcm", (0, 3, 6, 12, 15))
    with raises_code(DataError, "dicom_series_uneven"):
        io.read(tmp_path / "dose.dcm")


@pytest.mark.parametrize(("slices", "step", "pixel"), [(256, 0.7, 0.5), (400, 0.5, 0.35)])
def test_long_series_whose_cosines_have_three_decimals_is_not_tilted(slices, step, pixel):
    angle = np.radians(1.8)
    along_x = [np.cos(angle), np.sin(angle), 0]
    normal = np.cross(along_x, [0, 0, 1])
    positions = np.arange(slices)[:, None] * step * normal
    axes = axes_of([*np.round(along_x, 3).tolist(), 0, 0, 1])
    assert np.ptp(positions @ axes[0]) > 0.1 * pixel
    names = [f"{number}" for number in range(slices)]
    distance = slice_distance(names, positions, axes, (pixel, pixel))
    assert distance == pytest.approx(step, rel=1e-5)
    tilted = positions + np.arange(slices)[:, None] * step * 0.0015 * axes[0]
    jump = positions + 0.2 * pixel * (np.arange(slices)[:, None] == slices // 2) * axes[1]
    for wrong in (tilted, jump):
        with raises_code(DataError, "sheared_grid"):
            slice_distance(names, wrong, axes, (pixel, pixel))
