import numpy as np
import pydicom
import pytest
import SimpleITK

from codes import raises_code
from dicoms import COSINES, NORMAL, SLICES, save, save_series
from ushape import io
from ushape.errors import DataError
from ushape.types import MaskEncoding


def test_dicom_slice_has_its_spacing(tmp_path):
    save(tmp_path / "x.dcm", SLICES[0])
    pixels = io.dicom.read(tmp_path / "x.dcm")
    assert (pixels.array == SLICES[:1]).all()
    assert pixels.array.dtype == np.uint16
    assert pixels.spacing_mm == (0.75, 0.5)
    assert io.dicom.patient_of(tmp_path / "x.dcm") == "anna"


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int32), (0.25, 3, np.float32)]
)
def test_dicom_rescaling_counted_by_hand(tmp_path, slope, intercept, dtype):
    save(tmp_path / "x.dcm", SLICES[0], RescaleSlope=slope, RescaleIntercept=intercept)
    array = io.read(tmp_path / "x.dcm").array
    assert array.dtype == dtype
    assert (array[0] == SLICES[0].astype(float) * slope + intercept).all()


def test_monochrome1_is_inverted(tmp_path):
    save(tmp_path / "x.dcm", SLICES[0], PhotometricInterpretation="MONOCHROME1")
    # 12 bits are stored: 0 is the brightest, 4095.
    assert (io.read(tmp_path / "x.dcm").array[0] == 4095 - SLICES[0].astype(int)).all()


def test_read_series_orders_slices_and_agrees_with_gdcm(tmp_path):
    save_series(tmp_path / "ct")
    (tmp_path / "ct" / "notes.txt").write_text("no slice")
    pixels = io.dicom.read_series(tmp_path / "ct")
    assert (pixels.array[0] == SLICES.astype(int) - 1024).all()
    assert pixels.spacing_mm == pytest.approx((2.5, 0.75, 0.5))
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct"))
    volume = SimpleITK.ReadImage(names)
    assert (SimpleITK.GetArrayFromImage(volume) == pixels.array[0]).all()
    assert pixels.grid.origin_mm == pytest.approx(volume.GetOrigin())
    assert pixels.grid.direction == pytest.approx(volume.GetDirection(), abs=1e-6)
    assert (io.read(tmp_path / "ct").array == pixels.array).all()
    io.write_mask(tmp_path / "m.nii.gz", SLICES % 2, MaskEncoding(), like=tmp_path / "ct")
    mask = io.read(tmp_path / "m.nii.gz")
    assert mask.grid.origin_mm == pytest.approx(pixels.grid.origin_mm, abs=1e-4)
    assert mask.grid.direction == pytest.approx(pixels.grid.direction, abs=1e-4)


def test_read_series_of_one_slice_is_flat(tmp_path):
    save_series(tmp_path / "ct", places=[0])
    assert io.dicom.read_series(tmp_path / "ct").array.shape == (1, 6, 8)


@pytest.mark.parametrize("places", [(0, 1, 2, 4, 5), (0, 1, 2, 2, 3), (0, 0)])
def test_read_series_refuses_missing_and_repeated_slices(places, tmp_path):
    save_series(tmp_path / "ct", places)
    with raises_code(DataError, "dicom_series_uneven"):
        io.dicom.read_series(tmp_path / "ct")


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"SeriesInstanceUID": "9.9"}, "several_dicom_series"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "dicom_series_uneven"),
        ({"PixelSpacing": [1, 1]}, "dicom_series_uneven"),
        ({"Rows": 3, "Columns": 16}, "dicom_series_uneven"),
        ({"ImagePositionPatient": None}, "dicom_series_uneven"),
    ],
)
def test_read_series_refuses_slices_that_do_not_belong_together(elements, code, tmp_path):
    save_series(tmp_path / "ct")
    position = [round(float(number), 6) for number in np.array([5, 6, 7]) - 2.5 * NORMAL]
    fitting = {"ImageOrientationPatient": COSINES, "ImagePositionPatient": position}
    save(tmp_path / "ct" / "odd.dcm", SLICES[0], **{**fitting, **elements})
    with raises_code(DataError, code):
        io.dicom.read_series(tmp_path / "ct")


def test_dicom_mask_encoding_names_a_writable_format(tmp_path):
    save(tmp_path / "x.dcm", SLICES[0])
    assert io.read_mask(tmp_path / "x.dcm").encoding == MaskEncoding(dtype="uint16")
    save(tmp_path / "y.dcm", SLICES[0], RescaleSlope=1, RescaleIntercept=-9)
    mask = io.read_mask(tmp_path / "y.dcm")
    assert mask.encoding == MaskEncoding(dtype="int32", suffix=".tif")
    io.write_mask(tmp_path / "m.tif", mask.codes, mask.encoding)
    assert (io.read_mask(tmp_path / "m.tif").codes == mask.codes).all()
    save_series(tmp_path / "ct")
    assert io.read_mask(tmp_path / "ct").encoding.suffix == ".nii.gz"


def test_dicom_colors_and_frames(tmp_path):
    colors = np.random.default_rng(0).integers(256, size=(2, 6, 8, 3), dtype=np.uint8)
    form = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Rows": 6, "Columns": 8}
    save(tmp_path / "x.dcm", colors, NumberOfFrames=2, **form, **bits)
    assert (io.read(tmp_path / "x.dcm").array == colors.transpose(3, 0, 1, 2)).all()


def test_dicom_lossless_jpeg_is_read(tmp_path):
    # pydicom cannot unpack it by itself; GDCM packs it here.
    image = SimpleITK.GetImageFromArray(SLICES[0])
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.SetFileName(str(tmp_path / "x.dcm"))
    writer.Execute(image)
    syntax = pydicom.dcmread(tmp_path / "x.dcm").file_meta.TransferSyntaxUID
    assert syntax in io.dicom.BY_ITK
    assert (io.read(tmp_path / "x.dcm").array == SLICES[:1]).all()


def test_dicom_without_pixels_is_refused(tmp_path):
    save(tmp_path / "x.dcm", SLICES[0])
    data = pydicom.dcmread(tmp_path / "x.dcm")
    del data.PixelData
    data.save_as(tmp_path / "x.dcm")
    with raises_code(DataError, "no_pixels"):
        io.read(tmp_path / "x.dcm")
    (tmp_path / "empty").mkdir()
    with raises_code(DataError, "no_images"):
        io.read(tmp_path / "empty")


def test_dicom_contours_of_radiotherapy_are_refused_by_name(tmp_path):
    save(tmp_path / "x.dcm", SLICES[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    data = pydicom.dcmread(tmp_path / "x.dcm")
    del data.PixelData, data.Rows, data.Columns
    data.save_as(tmp_path / "x.dcm")
    with raises_code(DataError, "contours_without_series"):
        io.read_mask(tmp_path / "x.dcm")
